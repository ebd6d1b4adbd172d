"""What the ids of a batch add to what is known of a feed, and which of them may be stored already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from k2_core.feeds import Feed
from k2_core.numberings import Placed, settled
from k2_core.sequences import Ids, Intervals, ScopeState, Stretch
from k2_core.verdict import DeadIds, Mask, Screened, State


@dataclass(frozen=True)
class Absorbed:
    """The state after a batch, and what was found on the way.

    known: per row, whether its id may be stored; it certainly is not otherwise. repeated: per row, whether its id comes
    more than once in the batch. holes_may_differ: the scopes that did more than go on where they had stopped.
    """

    state: State
    known: Mask
    repeated: Mask
    holes_may_differ: frozenset[str]


@dataclass(frozen=True)
class _Group:
    """The ids of one numbering of one scope in a batch, in arrival order. rows: where they stand in the batch."""

    scope: str
    session: int
    rows: Ids
    ids: Ids
    low: int
    high: int
    is_rising: bool

    @property
    def is_run(self) -> bool:
        """Whether the ids are low, low + 1, .., high in this order."""
        return self.is_rising and self.high - self.low + 1 == len(self.ids)


def absorb(feed: Feed, screened: Screened, placed: Placed, ids: Ids, state: State) -> Absorbed:
    """Add the ids of the rows, and those of the dead letters. ids: per row."""
    known, repeated = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
    seen: dict[str, dict[int, Intervals]] = {}
    differ: set[str] = set()
    for group in _groups(screened, placed, ids):
        before = state.get(group.scope, _NEW).numbering(group.session)
        stored = before.stored
        highest = -1 if stored.highest is None else stored.highest
        if not group.is_rising or group.low <= highest:
            known[group.rows] = stored.contains(group.ids)
            repeated[group.rows] = _is_repeated(group)
        if not (group.is_run and group.low == highest + 1):
            differ.add(group.scope)
        seen.setdefault(group.scope, {})[group.session] = _with(feed, before.seen, group, highest)
    after = dict(state)
    for scope, stretches in zip(screened.scopes.names, placed.stretches, strict=True):
        before = state.get(scope, _NEW)
        after[scope] = _grown(before, seen[scope], stretches)
        if before.adrift:
            differ.add(scope)
    _bury(after, screened.dead_ids, differ)
    return Absorbed(after, known, repeated, frozenset(differ | set(screened.dead_ids)))


_NEW = ScopeState()


def _grown(before: ScopeState, seen: dict[int, Intervals], stretches: tuple[Stretch, ...]) -> ScopeState:
    if len(stretches) == 1 and not before.others:  # as good as always: a source that never began anew
        return ScopeState(seen[0], before.dead, before.high, 0, stretches, (), before.adrift)
    numberings = {session: replace(before.numbering(session), seen=ids) for session, ids in seen.items()}
    return ScopeState.of({**before.numberings(), **numberings}, stretches, before.adrift)


def _groups(screened: Screened, placed: Placed, ids: Ids) -> Iterator[_Group]:
    if not len(ids):
        return
    ordered, starts = ids[placed.order], placed.bounds[:-1]
    rises = np.ones(len(ids), bool)
    rises[1:] = ordered[1:] > ordered[:-1]
    rises[starts] = True
    columns = (
        placed.group_scopes,
        placed.group_sessions,
        starts,
        placed.bounds[1:],
        np.minimum.reduceat(ordered, starts),
        np.maximum.reduceat(ordered, starts),
        np.logical_and.reduceat(rises, starts),
    )
    for scope, session, start, end, low, high, rising in zip(*(c.tolist() for c in columns), strict=True):
        rows = placed.order[start:end]
        yield _Group(screened.scopes.names[scope], session, rows, ordered[start:end], low, high, rising)


def _is_repeated(group: _Group) -> Mask | bool:
    if group.is_rising:
        return False
    _, which, counts = np.unique(group.ids, return_inverse=True, return_counts=True)
    mask: Mask = counts[which] > 1
    return mask


def _with(feed: Feed, seen: Intervals, group: _Group, highest: int) -> Intervals:
    """What is seen with the ids of a group; of a monotonic feed a cover of it."""
    above = group.is_rising and group.low > highest
    if feed.rule == "contiguous":
        if above and group.is_run:
            return seen.followed_by([group.low], [group.high])
        return seen.union(Intervals.of(group.ids))
    if above and len(group.ids) > 1:
        # one interval would do, but for the hole below the highest, which tells whether it stands alone
        return seen.followed_by([group.low, group.high], [int(group.ids[-2]), group.high]).covered()
    return seen.union(Intervals.of(group.ids)).covered()


def _bury(after: dict[str, ScopeState], dead_ids: DeadIds, touched: Iterable[str]) -> None:
    """Enter dead ids, and those that a grown stretch has caught up with."""
    for scope in {*touched, *dead_ids}:
        before = after.get(scope, _NEW)
        adrift = before.adrift | dead_ids.get(scope, frozenset())
        if not adrift:
            continue
        certain, still = settled(before, adrift)
        numberings = before.numberings()
        for session, ids in certain.items():
            numbering = before.numbering(session)
            numberings[session] = replace(numbering, dead=numbering.dead.union(ids))
        after[scope] = ScopeState.of(numberings, before.stretches, still)
