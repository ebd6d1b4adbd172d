"""How every gap stands, told from all events about it, whatever the order in which two tables learned of them.

A gap is there while the judge sees the hole. What was stated of its ids says in which state it is: the last statement
about an id counts, by the time of the statement, then by the order of the log. A statement goes for every hole within
its ids, so it holds for what is left of a gap that shrank, and a hole that is cut differently is explained all the
same. Statements about ids that are no hole change nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from k2_core.gap_ids import FILLED, OPEN, SETTLED, STATED, URGENCY, GapId

Event = Mapping[str, Any]
"""A row of audit.gaps."""
Numbering = tuple[str, str, int]
"""Feed, scope, session."""


@dataclass
class _Painted:
    """The last statement about each id: disjoint ascending pieces, both ends inclusive; later paint covers earlier."""

    firsts: list[int] = field(default_factory=list)
    lasts: list[int] = field(default_factory=list)
    statements: list[Event] = field(default_factory=list)

    def paint(self, first: int, last: int, statement: Event) -> None:
        start, end = bisect_left(self.lasts, first), bisect_right(self.firsts, last)
        pieces = [(first, last, statement)]
        if start < end:
            below, above = (self.firsts[start], self.statements[start]), (self.lasts[end - 1], self.statements[end - 1])
            if below[0] < first:
                pieces.insert(0, (below[0], first - 1, below[1]))
            if above[0] > last:
                pieces.append((last + 1, above[0], above[1]))
        self.firsts[start:end] = [piece[0] for piece in pieces]
        self.lasts[start:end] = [piece[1] for piece in pieces]
        self.statements[start:end] = [piece[2] for piece in pieces]

    def over(self, first: int, last: int) -> list[Event | None]:
        """The statements that count for the ids of a hole; None among them where some have none."""
        start, end = bisect_left(self.lasts, first), bisect_right(self.firsts, last)
        found: list[Event | None] = list(self.statements[start:end])
        painted = sum(min(self.lasts[i], last) - max(self.firsts[i], first) + 1 for i in range(start, end))
        return found if painted == last - first + 1 else [*found, None]


def unfilled(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Every gap that is there, as the judge first described it, with its state, by feed, scope and first id.

    events: rows of audit.gaps, any order. actor, evidence and stated are those of the statement that gave the state.
    """
    painted: dict[Numbering, _Painted] = defaultdict(_Painted)
    ordered = sorted(events, key=_number)
    for event in sorted((e for e in ordered if e["state"] in STATED), key=lambda e: e["stated"]):
        painted[_numbering(event)].paint(event["first_id"], event["last_id"], event)
    holes = [(of_gap[0], of_gap[-1]) for of_gap in _seen(ordered) if of_gap[-1]["state"] != FILLED]
    found = [_standing(first, last, painted.get(_numbering(first), _Painted())) for first, last in holes]
    return sorted(found, key=_place)


def filled(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Every gap that was there and is no more: its ids came, or what is left of it has another name.

    events: rows of audit.gaps, any order. Each as the judge saw it last, dated as it first did, in the same order.
    """
    over = [of_gap for of_gap in _seen(sorted(events, key=_number)) if of_gap[-1]["state"] == FILLED]
    return sorted(({**told[-1], "exchange_date": told[0]["exchange_date"]} for told in over), key=_place)


def history(gap: GapId, events: Iterable[Event]) -> list[Event]:
    """What the judge saw of one gap, then what was stated of any of its ids, each oldest first."""
    concern = sorted((e for e in events if _concerns(gap, e)), key=_number)
    stated = [event for event in concern if event["state"] in STATED]
    return [e for e in concern if e["state"] not in STATED] + sorted(stated, key=lambda e: e["stated"])


def is_settled(gap: Event) -> bool:
    """Whether a gap asks for nothing more."""
    return gap["state"] in SETTLED


def _seen(ordered: Iterable[Event]) -> list[list[Event]]:
    """What the judge saw of each gap. ordered: events in their order."""
    seen: dict[str, list[Event]] = defaultdict(list)
    for event in ordered:
        if event["state"] not in STATED:
            seen[event["gap_id"]].append(event)
    return list(seen.values())


def _standing(first: Event, last: Event, painted: _Painted) -> dict[str, Any]:
    """A hole with its state. first, last: the judge's own events of it."""
    told = painted.over(first["first_id"], first["last_id"])
    by_state = {OPEN if statement is None else statement["state"]: statement for statement in told}
    state = min(by_state, key=URGENCY.index)
    statement = by_state[state] or {}
    stated = {name: statement.get(name, last.get(name)) for name in ("actor", "evidence", "stated")}
    return {**last, **stated, "state": state, "exchange_date": first["exchange_date"]}


def _concerns(gap: GapId, event: Event) -> bool:
    """Whether an event is one of a gap, or a statement about some of its ids."""
    if event["gap_id"] == str(gap):
        return True
    same = _numbering(event) == (gap.feed, gap.scope, gap.session)
    overlaps = event["first_id"] <= gap.last_id and gap.first_id <= event["last_id"]
    return same and overlaps and event["state"] in STATED


def _numbering(event: Event) -> Numbering:
    return event["feed"], event["scope"], event["session"]


def _number(event: Event) -> int:
    return int(event["event_number"])


def _place(gap: Event) -> tuple[str, str, int, int]:
    return gap["feed"], gap["scope"], gap["session"], gap["first_id"]
