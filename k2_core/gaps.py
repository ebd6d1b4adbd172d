"""Holes in the ids of a contiguous feed: which opened and which closed in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from k2_core.absorption import Absorbed
from k2_core.feeds import Feed
from k2_core.numberings import Placed, known_ids
from k2_core.screen import int64s
from k2_core.sequences import HoleChange, Intervals, ScopeState, hole_changes
from k2_core.verdict import GapEvent, Screened, State, gap_id

_EPOCH = date(1970, 1, 1)


def gap_events(
    feed: Feed, screened: Screened, placed: Placed, before: State, absorbed: Absorbed
) -> tuple[GapEvent, ...]:
    """The events that turn the holes of the state before into those of the state after a batch."""
    if feed.rule != "contiguous":
        return ()
    groups = zip(placed.group_scopes.tolist(), placed.group_sessions.tolist(), strict=True)
    where = {(screened.scopes.names[scope], session): g for g, (scope, session) in enumerate(groups)}
    events: list[GapEvent] = []
    for scope in sorted(absorbed.holes_may_differ):
        for session, changes in _changes(before.get(scope, ScopeState()), absorbed.state[scope]):
            dated = _Dated(screened, placed, where.get((scope, session)))
            events += [_event(feed, scope, session, change, dated) for change in changes]
    return tuple(events)


def _changes(before: ScopeState, after: ScopeState) -> Iterator[tuple[int, list[HoleChange]]]:
    """Per numbering what became of its holes."""
    old = known_ids(before)
    for session, ids in sorted(known_ids(after).items()):
        if changes := hole_changes(old.get(session, Intervals()), ids):
            yield session, changes


def _event(feed: Feed, scope: str, session: int, change: HoleChange, dated: _Dated) -> GapEvent:
    parent = gap_id(feed.name, scope, session, *change.parent) if change.parent else None
    day = dated.near(change.last)
    return GapEvent(
        feed.name, feed.exchange, scope, change.first, change.last, change.state, day, parent, session=session
    )


class _Dated:
    """Exchange dates of the arrived ids of one group, to date a hole by its neighbour."""

    def __init__(self, screened: Screened, placed: Placed, group: int | None) -> None:
        self._today = screened.today
        at = slice(0, 0) if group is None else slice(placed.bounds[group], placed.bounds[group + 1])
        rows = placed.order[at]
        ids = int64s(screened.rows["source_sequence"])[rows]
        order = np.argsort(ids, kind="stable")
        self._ids = ids[order]
        self._days = screened.rows["exchange_date"].cast(pa.int32()).to_numpy()[rows][order]

    def near(self, last: int) -> date:
        """The date of the arrived id next above the hole, else the one at or below its end, else today."""
        at = int(np.searchsorted(self._ids, last, side="right"))
        if not len(self._ids):
            return self._today
        above = at < len(self._ids) and self._ids[at] == last + 1
        day = self._days[at if above else max(at - 1, 0)]
        return _EPOCH + timedelta(days=int(day))
