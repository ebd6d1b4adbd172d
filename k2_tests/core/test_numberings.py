from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from k2_core.numberings import settled_high
from k2_core.sequences import EVER_MS, Intervals, ScopeState, Stretch
from k2_core.states import STATE_SCHEMA, state_from, state_table
from k2_core.verdict import DUPLICATE, REVISION, WRITTEN
from k2_tests.core.test_judge import QUOTES_FEED, TRADES_FEED, Lake
from k2_tests.ticks import NOON, quote, trade

NUMBERED = pytest.mark.parametrize(
    ("feed", "made"), [(TRADES_FEED, trade), (QUOTES_FEED, quote)], ids=["trades", "quotes"]
)
LATER = timedelta(hours=2)


def ids_of(lake):
    """Stored keys without what they have in common."""
    return sorted(key.rpartition(":")[2] for key in lake.rows["message_id"].to_pylist())


def after(number, made=trade, pause=LATER, **changes):
    """A record past the quiet hour, its time rising with its id."""
    return made(number, timestamp=NOON + pause + timedelta(milliseconds=number), **changes)


@NUMBERED
@pytest.mark.parametrize("batches", [1, 4], ids=["in one batch", "across batches"])
def test_ids_that_begin_anew_are_other_rows_and_feeding_them_again_adds_nothing(feed, made, batches):
    lake = Lake(feed)
    records = [*(made(n) for n in range(1, 9)), *(after(n, made) for n in range(1, 5))]
    size = len(records) // batches
    for start in range(0, len(records), size):
        lake.feed_in(*records[start : start + size])
    assert ids_of(lake) == sorted([*"12345678", *(f"{n}~1" for n in range(1, 5))])
    lake.feed_in(*records[::-1])
    lake.feed_in(*records[5:], *records)
    assert len(lake.rows) == len(records)
    assert set(lake.rows["revision"].to_pylist()) == {0}


@pytest.mark.parametrize(
    ("number", "pause"),
    [(1, timedelta(minutes=59)), (4, LATER), (5, LATER), (9, LATER)],
    ids=["too soon", "half of the highest", "above half", "going on"],
)
def test_only_an_hour_of_silence_and_an_id_below_half_begin_anew(number, pause):
    lake = Lake(TRADES_FEED)
    lake.feed_in(*(trade(n) for n in range(6, 9)))
    lake.feed_in(after(number, pause=pause))
    assert ids_of(lake) == sorted([*"678", str(number)])


def test_what_belongs_to_the_old_numbering_goes_there_after_the_new_one_has_begun():
    lake = Lake(TRADES_FEED)
    lake.feed_in(trade(1), trade(2), trade(9))
    lake.feed_in(after(2), after(1), after(3))
    lake.feed_in(trade(5), trade(2, price=Decimal(7)), trade(10), after(4))
    assert ids_of(lake) == sorted(["1", "2", "2", "5", "9", "10", "1~1", "2~1", "3~1", "4~1"])
    assert lake.open_gaps == [f"binance-trades:BTCUSDT:0:{hole}" for hole in ("3-4", "6-8")]


def test_a_gap_names_its_numbering():
    lake = Lake(TRADES_FEED)
    lake.feed_in(*(trade(n) for n in range(1, 13)), after(1), after(5))
    assert lake.open_gaps == ["binance-trades:BTCUSDT:1:2-4"]
    verdict = lake.feed_in(after(2), after(3), after(4))
    assert [(e.session, e.first_id, e.last_id, e.state) for e in verdict.gaps] == [(1, 2, 4, "filled")]


def test_a_third_numbering_is_counted_on():
    lake = Lake(TRADES_FEED)
    lake.feed_in(*(trade(n) for n in range(1, 50)), *(after(n) for n in range(1, 20)))
    lake.feed_in(*(after(n, pause=2 * LATER) for n in range(1, 5)))
    assert {f"{n}~2" for n in range(1, 5)} < set(ids_of(lake))


def test_one_row_in_two_time_units_stays_in_its_numbering_at_the_edge():
    lake = Lake(TRADES_FEED)
    fine = NOON + timedelta(hours=1, microseconds=9_250)
    lake.feed_in(*(trade(n) for n in range(1, 9)))
    lake.feed_in(trade(1, timestamp=fine))
    verdict = lake.feed_in(trade(1, timestamp=fine.replace(microsecond=9_000)))
    assert verdict.outcome.tolist() == [DUPLICATE]
    assert ids_of(lake) == sorted([*"12345678", "1~1"])


@NUMBERED
def test_one_record_from_the_future_renumbers_nobody_else(feed, made):
    lake = Lake(feed)
    lake.feed_in(*(made(n) for n in range(100, 110)))
    lake.feed_in(after(3, made, pause=timedelta(days=300)))
    lake.feed_in(*(made(n, timestamp=NOON + timedelta(days=n)) for n in range(110, 410, 10)))
    late = made(105, timestamp=NOON + timedelta(days=301, minutes=1), **{lake_price(feed): Decimal(3)})
    assert lake.feed_in(late).outcome.tolist() == [REVISION]
    assert [key for key in ids_of(lake) if "~" in key] == ["3~1"]


def lake_price(feed):
    return "price" if feed is TRADES_FEED else "bid_price"


@NUMBERED
@pytest.mark.parametrize("stray", [2**62, 2**63 - 1])
def test_one_stray_huge_id_makes_nobody_begin_anew_and_costs_no_scan(feed, made, stray):
    lake = Lake(feed)
    key = f"BINANCE:BTCUSDT:{feed.kind}:{stray}"
    lake.feed_in(made(1), made(2), {**made(2), "source_sequence": stray, "message_id": key}, made(3))
    asked = []
    found, lake.find = lake.find, lambda wanted: asked.append(wanted) or found(wanted)
    assert lake.feed_in(*(after(n, made) for n in range(4, 30))).outcome.tolist() == [WRITTEN] * 26
    assert asked == []
    assert not any("~" in key for key in ids_of(lake))


def test_a_stray_id_is_not_the_highest():
    assert settled_high(None, None) == 0
    assert settled_high(None, 2**62) == 2**62
    assert settled_high(1_000, 2**62) == 1_000
    assert settled_high(10, 1_000) == 1_000
    assert settled_high(3_700_000_000, 3_702_000_000) == 3_702_000_000


def test_a_dead_letter_before_the_first_row_of_its_numbering_is_no_gap_there():
    lake = Lake(TRADES_FEED)
    lake.feed_in(*(trade(n) for n in range(10, 20)))
    dead = after(2, price=Decimal(0))
    lake.feed_in(dead)
    lake.feed_in(after(1), after(3))
    assert lake.open_gaps == []
    lake.feed_in(dead)
    assert lake.open_gaps == []
    assert lake.feed_in(after(2)).outcome.tolist() == [WRITTEN]
    assert ids_of(lake)[-1] == "3~1"
    assert "2~1" in ids_of(lake)


def test_a_dead_letter_that_was_late_by_its_own_clock_is_no_gap():
    lake = Lake(TRADES_FEED)
    lake.feed_in(trade(1), trade(2, price=Decimal(0), timestamp=NOON + timedelta(seconds=9)), trade(3))
    assert lake.open_gaps == []
    assert lake.verdicts[-1].gaps == ()


def test_a_dead_letter_of_an_impossible_time_accounts_for_its_id_in_the_first_numbering():
    lake = Lake(TRADES_FEED)
    lake.feed_in(trade(1), trade(2, timestamp=NOON.replace(year=9000)), trade(3))
    assert lake.open_gaps == []
    assert lake.state["BTCUSDT"].adrift == frozenset()


def test_a_correction_past_the_quiet_hour_is_a_revision_if_its_id_is_not_low():
    lake = Lake(TRADES_FEED)
    lake.feed_in(*(trade(n) for n in range(1, 10)))
    assert lake.feed_in(after(5)).outcome.tolist() == [REVISION]
    assert lake.feed_in(after(4, pause=2 * LATER)).outcome.tolist() == [WRITTEN]
    assert ids_of(lake)[-1] == "9"
    assert "4~1" in ids_of(lake)


def test_a_state_file_of_one_numbering_is_read_and_goes_on():
    rows = [("BTCUSDT", 0, "seen", 5, 9), ("BTCUSDT", 0, "dead", 7, 7), ("ETHUSDT", 0, "high", 40, 40)]
    old = pa.table([pa.array(c) for c in zip(*rows, strict=True)], names=STATE_SCHEMA.names).cast(STATE_SCHEMA)
    trades, quotes = Lake(TRADES_FEED), Lake(QUOTES_FEED)
    trades.state = quotes.state = state_from(old)
    assert trades.state["BTCUSDT"] == ScopeState(Intervals.between(5, 9), Intervals.between(7, 7))
    trades.feed_in(trade(10), trade(11))
    assert trades.state["BTCUSDT"].seen == Intervals.between(5, 11)
    asked = []
    quotes.find = lambda wanted: asked.append(wanted.message_ids.to_pylist()) or quotes.rows.slice(0, 0)
    quotes.feed_in(quote(39, symbol="ETHUSDT"), quote(41, symbol="ETHUSDT"))
    assert asked[0] == ["BINANCE:ETHUSDT:quote:39"]
    assert state_from(state_table(quotes.state)) == quotes.state


def test_a_state_is_what_its_file_says():
    older = ScopeState(Intervals.of(np.array([1, 2, 9])), Intervals.between(4, 4), session=1)
    newest = ScopeState(
        seen=Intervals.between(3, 8),
        session=0,
        stretches=(Stretch(EVER_MS, 5, 0), Stretch(7, 7, 1), Stretch(9, 12, 0)),
        others=(older,),
        adrift=frozenset({(13, 4), (14, 1)}),
    )
    state = {"A": newest, "B": ScopeState(adrift=frozenset({(1, 1)})), "C": ScopeState(high=4)}
    assert state_from(state_table(state)) == state
    assert state_from(state_table({})) == {}
