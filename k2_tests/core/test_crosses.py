from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from k2_core.contracts import QUOTES
from k2_core.crosses import crosses
from k2_resources.rule_sets import load_sessions
from k2_resources.settings import Settings
from k2_tests.ticks import asx_trade, quote

ASX = load_sessions(Settings().config, "asx")
NOON = asx_trade("43200")["timestamp"]


def state(bid, ask, at=NOON, ordinal=0, symbol="BHP"):
    prices = {f"{side}_price": price and Decimal(price) for side, price in (("bid", bid), ("ask", ask))}
    key = f"ASX:{symbol}:quote:2014-03-11:{at}:{ordinal}"
    lineage = {"kafka_topic": "t", "kafka_epoch": 0, "kafka_partition": 0, "kafka_offset": 0}
    return {
        **quote(0, symbol=symbol, message_id=key, exchange="ASX", timestamp=at, source_sequence=None, **prices),
        **lineage,
        "platform_sequence": ordinal,
        "exchange_date": date(2014, 3, 11),
        "revision": 0,
    }


def judged(*states):
    return crosses(pa.Table.from_pylist(list(states), schema=QUOTES.arrow_schema()), ASX)


def standing(*states):
    return judged(*states).standing.tolist()


def test_a_cross_that_the_next_state_of_its_instant_undoes_does_not_stand():
    assert standing(state("11", "10", ordinal=0), state("11", "12", ordinal=1)) == [False, False]


def test_a_cross_that_is_the_last_state_of_its_instant_stands():
    later = NOON + timedelta(milliseconds=1)
    assert standing(state("11", "10"), state("11", "12", at=later)) == [True, False]


def test_the_total_order_says_which_state_is_last_whatever_the_order_of_rows():
    first, last = state("11", "10", ordinal=0), state("11", "12", ordinal=1)
    assert standing(last, first) == [False, False]


def test_another_symbol_at_the_same_instant_replaces_nothing():
    assert standing(state("11", "10"), state("1", "2", symbol="CBA", ordinal=1)) == [True, False]


def test_locked_and_one_sided_books_are_not_crossed():
    assert judged(state("10", "10"), state(None, "10"), state("10", None)).crossed.tolist() == [False] * 3


def test_before_the_open_and_after_the_close_a_book_may_cross():
    early, late = (asx_trade(second)["timestamp"] for second in ("35000", "57600"))
    found = judged(state("11", "10", at=early), state("11", "10", at=late))
    assert (found.crossed.tolist(), found.standing.tolist()) == ([True, True], [False, False])


sides = st.sampled_from(["9", "10", "11", None])


@given(st.lists(st.tuples(st.integers(0, 3), sides, sides, st.sampled_from(["BHP", "CBA"])), max_size=12), st.randoms())
def test_the_order_of_rows_changes_nothing(rows, rng):
    states = [
        state(bid, ask, NOON + timedelta(milliseconds=ms), n, symbol) for n, (ms, bid, ask, symbol) in enumerate(rows)
    ]
    told = dict(zip((s["message_id"] for s in states), standing(*states), strict=True))
    shuffled = rng.sample(states, len(states))
    assert dict(zip((s["message_id"] for s in shuffled), standing(*shuffled), strict=True)) == told
    last = {(s["symbol"], s["timestamp"]): s for s in states}
    crossed = {
        s["message_id"] for s in last.values() if s["bid_price"] and s["ask_price"] and s["bid_price"] > s["ask_price"]
    }
    assert {key for key, stands in told.items() if stands} == crossed
