"""How gaps stand, against a naive reading: the last statement about each id, one id at a time."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from k2_core.gap_ids import MAX_ID, OPEN, STATED, URGENCY, GapId
from k2_core.gap_states import filled, history, is_settled, unfilled

NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)
DAY = date(2024, 8, 8)
STATEMENTS_FROM = 1_000
"""Event numbers of the table of statements; those of trades are below."""


def event(number: int, state: str, first: int, last: int, *, stated: int | None = None, **changes: Any) -> Any:
    """One row of audit.gaps, of BTCUSDT unless changed. stated: minutes past noon; None: the judge saw it."""
    gap = GapId("binance-trades", changes.get("scope", "BTCUSDT"), changes.get("session", 0), first, last)
    return {
        "gap_id": str(gap),
        "event_number": number,
        "state": state,
        "feed": gap.feed,
        "scope": gap.scope,
        "session": gap.session,
        "first_id": first,
        "last_id": last,
        "size": gap.size,
        "exchange_date": DAY,
        "actor": "judge" if stated is None else "somebody",
        "evidence": None,
        "stated": None if stated is None else NOON + timedelta(minutes=stated),
        **changes,
    }


def states(events: list[Any]) -> dict[tuple[int, int], str]:
    return {(gap["first_id"], gap["last_id"]): gap["state"] for gap in unfilled(events)}


def test_a_gap_is_as_the_judge_saw_it_until_somebody_states_more() -> None:
    opened = event(1, "open", 3, 9)
    assert states([opened]) == {(3, 9): "open"}
    assert states([opened, event(1_000, "backfilling", 3, 9, stated=1)]) == {(3, 9): "backfilling"}
    assert states([opened, event(1_000, "absent_at_source", 3, 8, stated=1)]) == {(3, 9): "open"}


def test_the_last_statement_counts_by_its_time_and_then_by_the_log() -> None:
    opened = event(1, "open", 3, 9)
    late, early = event(1_000, "unrecoverable", 3, 9, stated=5), event(1_001, "backfilling", 3, 9, stated=4)
    assert states([opened, late, early]) == {(3, 9): "unrecoverable"}
    same = event(1_002, "accepted", 3, 9, stated=5)
    assert states([same, opened, late, early]) == {(3, 9): "accepted"}


def test_ids_that_came_are_no_gap_whatever_was_stated() -> None:
    events = [event(1, "open", 3, 9), event(2, "filled", 3, 9), event(1_000, "unrecoverable", 3, 9, stated=9)]
    assert states(events) == {}


def test_a_statement_without_a_hole_changes_nothing() -> None:
    assert states([event(1_000, "not_collected", 3, 9, stated=1)]) == {}


def test_what_is_left_of_a_gap_is_what_was_stated_of_it() -> None:
    events = [
        event(1, "open", 3, 9),
        event(1_000, "not_collected", 3, 9, stated=1),
        event(2, "filled", 3, 9),
        event(3, "open", 3, 5, parent="binance-trades:BTCUSDT:0:3-9"),
        event(4, "open", 7, 9, parent="binance-trades:BTCUSDT:0:3-9"),
    ]
    assert states(events) == {(3, 5): "not_collected", (7, 9): "not_collected"}
    explained = [*events, event(1_001, "absent_at_source", 7, 9, stated=2)]
    assert states(explained) == {(3, 5): "not_collected", (7, 9): "absent_at_source"}


def test_a_gap_of_several_states_is_in_the_most_urgent() -> None:
    events = [
        event(1, "open", 1, 10),
        event(1_000, "absent_at_source", 1, 4, stated=1),
        event(1_001, "unrecoverable", 5, 5, stated=1),
        event(1_002, "absent_at_source", 6, 10, stated=1),
    ]
    assert states(events) == {(1, 10): "unrecoverable"}


def test_a_statement_goes_for_its_own_numbering_and_symbol_only() -> None:
    events = [event(1, "open", 3, 9), event(1_000, "accepted", 3, 9, stated=1, session=1)]
    assert states([*events, event(1_001, "accepted", 3, 9, stated=1, scope="ETHUSDT")]) == {(3, 9): "open"}


def test_a_gap_is_told_with_the_statement_that_put_it_in_its_state_and_the_date_it_was_seen_at() -> None:
    seen = event(1, "open", 3, 9, exchange_date=date(2020, 1, 1))
    told = event(1_000, "accepted", 0, MAX_ID - 1, stated=1, actor="ada", evidence='{"why": "known"}')
    (gap,) = unfilled([told, seen])
    assert (gap["gap_id"], gap["exchange_date"]) == ("binance-trades:BTCUSDT:0:3-9", date(2020, 1, 1))
    assert (gap["actor"], gap["evidence"], gap["stated"]) == ("ada", '{"why": "known"}', NOON + timedelta(minutes=1))
    assert is_settled(gap)


IDS = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (min(pair), max(pair)))
HOLES = st.lists(IDS, max_size=6)
TOLD = st.lists(st.tuples(IDS, st.sampled_from(STATED), st.integers(0, 5)), max_size=12)


@given(HOLES, TOLD, st.randoms(use_true_random=False))
def test_states_agree_with_the_last_statement_about_each_id_in_any_order_of_arrival(
    holes: list[tuple[int, int]], told: list[Any], shuffled: random.Random
) -> None:
    statements = [event(STATEMENTS_FROM + n, state, *ids, stated=minute) for n, (ids, state, minute) in enumerate(told)]
    events = [*(event(n, "open", *ids) for n, ids in enumerate(dict.fromkeys(holes))), *statements]
    last: dict[int, str] = {}
    for statement in sorted(statements, key=lambda s: (s["stated"], s["event_number"])):
        last.update(dict.fromkeys(range(statement["first_id"], statement["last_id"] + 1), statement["state"]))
    expected = {
        (first, until): min((last.get(n, OPEN) for n in range(first, until + 1)), key=URGENCY.index)
        for first, until in holes
    }
    assert states(events) == expected
    shuffled.shuffle(events)
    assert states(events) == expected


def test_a_gap_is_filled_once_the_judge_sees_it_no_more():
    events = [event(3, "filled", 5, 6), event(1, "open", 5, 6), event(2, "open", 8, 9, exchange_date=date(2024, 8, 9))]
    (found,) = filled(events)
    assert (found["gap_id"], found["state"], found["exchange_date"]) == (events[0]["gap_id"], "filled", DAY)
    assert [gap["first_id"] for gap in unfilled(events)] == [8]
    assert filled([*events, event(4, "open", 5, 6)]) == []


def test_the_life_of_a_gap_is_what_was_seen_and_then_what_was_stated_of_its_ids():
    events = [
        event(STATEMENTS_FROM + 1, "accepted", 1, 100, stated=2),
        event(STATEMENTS_FROM, "backfilling", 6, 6, stated=5),
        event(2, "filled", 5, 6),
        event(1, "open", 5, 6),
        event(3, "open", 6, 6),
        event(STATEMENTS_FROM + 2, "accepted", 7, 9, stated=1),
        event(STATEMENTS_FROM + 3, "accepted", 5, 6, stated=1, session=1),
        event(STATEMENTS_FROM + 4, "accepted", 5, 6, stated=1, scope="ETHUSDT"),
    ]
    gap = GapId("binance-trades", "BTCUSDT", 0, 5, 6)
    told = [e["event_number"] for e in history(gap, events)]
    assert told == [1, 2, STATEMENTS_FROM + 1, STATEMENTS_FROM]
