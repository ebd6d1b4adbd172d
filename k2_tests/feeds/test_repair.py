"""Holes filled from REST: every id asked for is a row, absent with its proof, or named as one nobody could use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2_core.errors import Unreachable
from k2_core.gap_ids import GapId
from k2_feeds.binance_frames import parse_frame
from k2_feeds.coverage import Stamp
from k2_feeds.exchange import ExchangeSettings, Fault, Kind, exchange
from k2_feeds.outcomes import Rejected, Row, Unusable
from k2_feeds.repair import BEHIND_ATTEMPTS_MAX, Filled, Repair, mended, rest_row
from k2_resources.binance.rest import BinanceRest
from k2_tests.feeds.homes import FEEDS
from k2_tests.small_exchange import Reply, SmallExchange, rest_trade, small_exchange

FEED = FEEDS["binance-trades"]
NOW_US = 1_800_000_000_000_000
STAMP = Stamp("c0ffee", "repair by ada", NOW_US)


@pytest.fixture(scope="module")
def serving() -> Iterator[SmallExchange]:
    with small_exchange() as here:
        yield here


@pytest.fixture
def here(serving: SmallExchange) -> SmallExchange:
    serving.begin_anew()
    return serving


@pytest.fixture
def repair(here: SmallExchange) -> Iterator[Repair]:
    with BinanceRest(here.url, attempts_max=2, weight_per_minute=10**9, wait=lambda _seconds: None) as rest:
        yield Repair(rest, lambda: NOW_US, wait=lambda _seconds: None)


def ids(filled: Filled) -> list[int]:
    return [row.record["source_sequence"] for row in filled.rows]


def test_a_trade_of_rest_is_the_row_of_the_stream_but_for_what_only_one_of_them_tells() -> None:
    told = rest_trade(7)
    frame = {"e": "trade", "s": "BTCUSDT", "t": 7, "p": told["price"], "q": told["qty"], "T": told["time"], "m": False}
    streamed = parse_frame(json.dumps(frame).encode(), NOW_US)
    asked = rest_row("BTCUSDT", told, NOW_US)
    assert isinstance(streamed, Row)
    assert {**asked.record, "vendor_data": None} == dict(streamed.record)
    assert asked.record["vendor_data"] == {"quoteQty": "25.12500000", "isBestMatch": "true"}


def test_a_hole_the_exchange_has_whole_is_filled_in_one_question(repair: Repair, here: SmallExchange) -> None:
    here.lists("BTCUSDT", range(1, 100))
    filled = repair.fill("BTCUSDT", 10, 19)
    assert ids(filled) == list(range(10, 20))
    assert (filled.absent, filled.statements(FEED, STAMP)) == ([], [])
    assert here.paths() == ["historicalTrades?symbol=BTCUSDT&fromId=10&limit=11"]


def test_a_large_hole_is_asked_for_page_by_page(repair: Repair, here: SmallExchange) -> None:
    here.lists("BTCUSDT", range(1, 3_000))
    assert ids(repair.fill("BTCUSDT", 10, 2_509)) == list(range(10, 2_510))
    assert len(here.asked) == 3


def test_ids_the_exchange_does_not_have_are_named_exactly_with_what_proves_it(
    repair: Repair, here: SmallExchange
) -> None:
    here.lists("BTCUSDT", [1, 2, 5, 6, 9, 12])
    filled = repair.fill("BTCUSDT", 3, 11)
    assert ids(filled) == [5, 6, 9]
    assert filled.absent == [(3, 4), (7, 8), (10, 11)]
    page = json.dumps([rest_trade(n) for n in (5, 6, 9, 12)]).encode()
    assert filled.evidence[7, 8] == {
        "asked": "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=3&limit=10",
        "status": 200,
        "sha256": hashlib.sha256(page).hexdigest(),
        "trades": 4,
        "id_before": 6,
        "id_after": 9,
    }
    stated = filled.statements(FEED, STAMP, session=2)
    assert [row.record["gap_id"] for row in stated] == [
        f"binance-trades:BTCUSDT:2:{ids}" for ids in ("3-4", "7-8", "10-11")
    ]
    assert {row.record["event"] for row in stated} == {"absent_at_source"}
    assert json.loads(stated[1].record["evidence"]) == filled.evidence[7, 8]


def test_ids_that_nothing_follows_yet_are_asked_for_again_before_they_count_as_absent(
    repair: Repair, here: SmallExchange
) -> None:
    here.lists("BTCUSDT", range(1, 8))
    here.replies.append(Reply(200, b"[]"))
    assert ids(repair.fill("BTCUSDT", 5, 7)) == [5, 6, 7]
    here.asked.clear()
    filled = repair.fill("BTCUSDT", 6, 9)
    assert ids(filled) == [6, 7]
    assert filled.absent == [(8, 9)]
    assert len(here.asked) == 1 + BEHIND_ATTEMPTS_MAX


HOSTILE: dict[str, dict[str, Any]] = {
    "not_a_number": {"price": "NaN"},
    "not_positive": {"qty": "-1"},
    "decimal_overflow": {"qty": "46000000000"},
    "too_many_decimals": {"price": "0.12345678901"},
    "wrong_type": {"isBuyerMaker": "true"},
    "implausible_time": {"time": 10**18},
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_a_trade_nobody_can_send_is_set_aside_and_its_id_unrecoverable(
    reason: str, repair: Repair, here: SmallExchange
) -> None:
    here.lists("BTCUSDT", range(1, 6))
    here.lists("BTCUSDT", [3], **HOSTILE[reason])
    filled = repair.fill("BTCUSDT", 2, 4)
    outcomes = list(filled.outcomes)
    assert [o.record["source_sequence"] for o in outcomes if isinstance(o, Row)] == [2, 4]
    assert [(o.reason, o.symbol) for o in outcomes if isinstance(o, Rejected)] == [(reason, "BTCUSDT")]
    (stated,) = filled.statements(FEED, STAMP)
    assert (stated.record["event"], stated.record["gap_id"]) == ("unrecoverable", "binance-trades:BTCUSDT:0:3-3")
    assert json.loads(stated.record["evidence"])["reason"] == reason


def test_a_missing_key_is_named() -> None:
    with pytest.raises(Unusable, match="key qty is missing"):
        rest_row("BTCUSDT", {"id": 1, "price": "1", "time": 1, "isBuyerMaker": True}, NOW_US)


@pytest.mark.parametrize("numbers", [[4, 3], [3, 3], [1, 2], [None], ["3"], [3.5], [True, 4]])
def test_an_answer_that_is_none_to_the_question_proves_nothing(
    numbers: list[Any], repair: Repair, here: SmallExchange
) -> None:
    here.replies.append(Reply(200, json.dumps([rest_trade(1, id=number) for number in numbers]).encode()))
    filled = repair.fill("BTCUSDT", 3, 9)
    with pytest.raises(Unreachable):
        list(filled.outcomes)
    assert filled.absent == []


def gap(first: int, last: int, symbol: str = "BTCUSDT") -> GapId:
    return GapId(FEED.name, symbol, 0, first, last)


def told(outcomes: list[Any]) -> list[tuple[str, str]]:
    return [(o.record["event"], o.record["gap_id"]) for o in outcomes if isinstance(o, Row) and o.feed == "coverage"]


def test_a_repair_states_every_step_of_every_gap(repair: Repair, here: SmallExchange) -> None:
    here.lists("BTCUSDT", [1, 2, 3, 6, 7])
    outcomes = list(mended(repair, FEED, [gap(2, 2), gap(4, 6), gap(1, 3, "GONEUSDT")], lambda: STAMP, lambda _: 0))
    assert told(outcomes) == [
        ("backfilling", "binance-trades:BTCUSDT:0:2-2"),
        ("backfilling", "binance-trades:BTCUSDT:0:4-6"),
        ("absent_at_source", "binance-trades:BTCUSDT:0:4-5"),
        ("backfilling", "binance-trades:GONEUSDT:0:1-3"),
        ("unrecoverable", "binance-trades:GONEUSDT:0:1-3"),
    ]
    assert "Invalid symbol" in outcomes[-1].record["evidence"]


def test_ids_of_an_earlier_numbering_are_asked_of_nobody(repair: Repair, here: SmallExchange) -> None:
    here.lists("BTCUSDT", range(1, 9))
    outcomes: list[Any] = list(mended(repair, FEED, [gap(2, 3)], lambda: STAMP, lambda _: 1))
    assert told(outcomes) == [("unrecoverable", "binance-trades:BTCUSDT:0:2-3")]
    assert "numbering 1, not 0" in outcomes[0].record["evidence"]


def test_an_exchange_that_breaks_off_leaves_the_gap_in_backfilling(repair: Repair, here: SmallExchange) -> None:
    here.lists("BTCUSDT", range(1, 3_000))
    taking = mended(repair, FEED, [gap(1, 2_000)], lambda: STAMP, lambda _: 0)
    taken = [next(taking) for _ in range(500)]
    here.replies.extend([Reply(500)] * 2)
    with pytest.raises(Unreachable):
        taken += list(taking)
    assert told(taken) == [("backfilling", "binance-trades:BTCUSDT:0:1-2000")]


@given(st.sets(st.integers(0, 60)), st.integers(0, 60), st.integers(0, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_rows_and_absent_ids_are_together_the_ids_asked_for(
    repair: Repair, here: SmallExchange, there: set[int], one: int, other: int
) -> None:
    first, last = sorted((one, other))
    here.trades.clear()
    here.lists("BTCUSDT", there)
    filled = repair.fill("BTCUSDT", first, last)
    found, absent = ids(filled), [n for a, b in filled.absent for n in range(a, b + 1)]
    assert found == sorted(there & set(range(first, last + 1)))
    assert sorted(found + absent) == list(range(first, last + 1))


def test_a_simulated_exchange_gives_what_its_ledger_holds_however_rest_behaves() -> None:
    missing = Fault(Kind.ABSENT, count=7, one_in=150)
    market = ExchangeSettings(
        seed=3, symbols=("SIMBTCUSDT",), speed=100_000, trades_per_second=50, trades_max=1_500, faults=(missing,)
    )
    with exchange(market) as running, BinanceRest(running.rest_url, pause_seconds_first=0.01) as rest:
        assert running.is_over.wait(30)
        running.faults.inject("rest_5xx", count=2)
        running.faults.inject("rest_429", seconds=1)
        there, absent = running.ledger.trades("SIMBTCUSDT"), sorted(n for _, n in running.ledger.absent("SIMBTCUSDT"))
        assert len(absent) == 7
        filled = Repair(rest, lambda: NOW_US).fill("SIMBTCUSDT", there[0].trade_id, there[-1].trade_id)
        rows = [row.record for row in filled.rows]
        assert running.stats()["rest_refused"] == 1
    assert [(r["source_sequence"], r["timestamp"], r["price"], r["quantity"]) for r in rows] == [
        (t.trade_id, t.time_us, t.price, t.quantity) for t in there
    ]
    within = [n for n in absent if there[0].trade_id < n < there[-1].trade_id]
    assert [n for first, last in filled.absent for n in range(first, last + 1)] == within
