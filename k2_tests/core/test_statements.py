"""Statements about gaps: which become gap events, which are dead letters, and that none vanishes."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.gap_ids import GapId
from k2_core.judge import decide
from k2_core.screen import screen
from k2_core.sequences import MAX_ID
from k2_core.verdict import Screened, Verdict
from k2_tests.ticks import FEEDS, NOON, table_of

FEED = FEEDS["coverage"]
TODAY = date(2024, 8, 9)


def statement(**changes: Any) -> dict[str, Any]:
    """A feed states that one gap is being backfilled, unless changed."""
    record = {
        "message_id": f"COVERAGE:c0ffee:{changes.get('gap_id')}:{changes.get('event')}",
        "collection_id": "c0ffee",
        "event": "backfilling",
        "feed": "binance-trades",
        "source": "repair by ada",
        "exchange": "BINANCE",
        "symbol": "BTCUSDT",
        "timestamp": NOON,
        "first_id": 3,
        "last_id": 9,
        "rows": 0,
        "rejected": 0,
        "ingestion_timestamp": NOON,
        "gap_id": "binance-trades:BTCUSDT:0:3-9",
        "evidence": '{"sha256": "00"}',
    }
    return record | changes


def screened(*records: dict[str, Any]) -> Screened:
    return screen(FEED, table_of(FEED, records), TODAY)


def judged(*records: dict[str, Any], stored: Any = None) -> Verdict:
    nothing = FEED.table.arrow_schema().empty_table()
    return decide(FEED, screened(*records), {}, lambda _wanted: nothing if stored is None else stored)


def test_a_statement_about_a_gap_is_a_row_and_an_event() -> None:
    verdict = judged(statement())
    (event,) = verdict.gaps
    assert (event.gap_id, event.state, event.size) == ("binance-trades:BTCUSDT:0:3-9", "backfilling", 7)
    assert (event.exchange, event.actor, event.evidence) == ("BINANCE", "repair by ada", '{"sha256": "00"}')
    assert (event.stated, event.exchange_date) == (NOON, date(2024, 8, 8))
    assert len(verdict.rows) == 1


def test_a_statement_delivered_again_is_no_second_event() -> None:
    assert len(judged(statement(), statement()).gaps) == 1
    first = judged(statement())
    assert judged(statement(), stored=first.rows).gaps == ()


def test_other_statements_of_a_feed_are_no_gap_events() -> None:
    verdict = judged(statement(event="closed", gap_id=None, evidence=None), statement(event="anything", gap_id=None))
    assert (len(verdict.rows), verdict.gaps) == (2, ())


CONTRADICTIONS = {
    "no gap id": ({"gap_id": None}, "missing_value"),
    "an empty gap id": ({"gap_id": ""}, "bad_gap"),
    "another form": ({"gap_id": "BTCUSDT 3-9"}, "bad_gap"),
    "a part too many": ({"gap_id": "binance-trades:BTC:USDT:0:3-9"}, "bad_gap"),
    "another symbol": ({"symbol": "ETHUSDT"}, "bad_gap"),
    "another feed": ({"feed": "binance-quotes"}, "bad_gap"),
    "another first id": ({"first_id": 4}, "bad_gap"),
    "no last id": ({"last_id": None}, "bad_gap"),
    "a range that runs backwards": ({"gap_id": "binance-trades:BTCUSDT:0:9-3", "first_id": 9, "last_id": 3}, "bad_gap"),
    "leading zeros": ({"gap_id": "binance-trades:BTCUSDT:0:03-9"}, "bad_gap"),
    "digits of another script": ({"gap_id": "binance-trades:BTCUSDT:0:٣-9"}, "bad_gap"),
    "a negative id": ({"gap_id": "binance-trades:BTCUSDT:0:-3-9", "first_id": -3}, "bad_gap"),
    "an id past int64": ({"gap_id": f"binance-trades:BTCUSDT:0:3-{2**63}", "last_id": MAX_ID}, "bad_gap"),
    "more ids than int64 counts": ({"gap_id": f"binance-trades:BTCUSDT:0:0-{MAX_ID}", "first_id": 0, "last_id": MAX_ID},
                                   "bad_gap"),
    "a session past int32": ({"gap_id": f"binance-trades:BTCUSDT:{2**31}:3-9"}, "bad_gap"),
    "an endless name": ({"gap_id": "x" * 10_000}, "bad_gap"),
    "an unknown state": ({"event": "lost"}, "unknown_state"),
    "the judge's own state": ({"event": "filled"}, "unknown_state"),
    "a state of another case": ({"event": "Accepted"}, "unknown_state"),
    "a time that cannot be": ({"timestamp": NOON + timedelta(days=900)}, "implausible_time"),
}  # fmt: skip


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_statement_that_contradicts_itself_is_a_dead_letter_and_its_neighbours_are_not(what: str) -> None:
    changes, reason = CONTRADICTIONS[what]
    found = screened(statement(), statement(**changes), statement(event="closed", gap_id=None))
    assert [(dead.index, dead.reason) for dead in found.dead] == [(1, reason)]
    assert len(found.rows) == 2


ANY_ID = st.one_of(st.none(), st.integers(-2, 12), st.sampled_from([MAX_ID, MAX_ID - 1]))


@given(
    st.lists(
        st.builds(
            statement,
            gap_id=st.one_of(st.none(), st.text(max_size=40), st.from_regex(r"[a-z:0-9-]{0,30}"),
                             st.builds("binance-trades:BTCUSDT:{}:{}-{}".format, ANY_ID, ANY_ID, ANY_ID)),
            event=st.one_of(st.sampled_from(["backfilling", "accepted", "open", "closed"]), st.text(max_size=9)),
            first_id=ANY_ID,
            last_id=ANY_ID,
            message_id=st.uuids().map(str),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_every_statement_is_a_row_or_a_letter_and_every_event_is_one_that_can_be_stored(records: Any) -> None:
    found = screened(*records)
    verdict = decide(FEED, found, {}, lambda _wanted: FEED.table.arrow_schema().empty_table())
    assert len(verdict.rows) + len(found.dead) == len(records)
    for event in verdict.gaps:
        assert GapId.parse(event.gap_id).size == event.size <= MAX_ID


@given(st.text(max_size=60))
def test_a_gap_id_is_read_only_where_it_is_written_the_one_way(text: str) -> None:
    try:
        gap = GapId.parse(text)
    except ValueError:
        return
    assert str(gap) == text
