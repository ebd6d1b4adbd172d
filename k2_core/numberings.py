"""Which numbering of its source an id belongs to: sources begin their ids anew, and an id then means another trade.

A numbering owns stretches of event time of its scope. A record whose time a stretch holds belongs there, for ever:
stretches only grow, into time nobody owns. So a record delivered again finds the numbering it was given at first, and
changes nothing. Where nobody owns the time yet:

- past the newest stretch a record continues its numbering, unless it is more than an hour later and its id below half
  of the highest: then it begins the next one;
- between two stretches it belongs to the later one if it could have begun it, else to the earlier one.

Two guards, for one broken record must not renumber a symbol. An id that stands alone, far beyond the next, is not the
highest. And a numbering begun by records of one millisecond only is passed over when the next record continues the
one before.

What does not depend on order. Always: how a given order is cut into batches; every delivery after the first. Of first
deliveries, any order gives the same rows and holes provided that within each numbering ids rise with event time, that
numberings lie more than an hour apart, and that of each later one the first two milliseconds are delivered in order,
after an id of the one before that is more than twice theirs, and before anything of the next. Nobody can do better: ids
of a new numbering that arrive before those of the old look exactly like a source that has always been there; and a
correction that moves a print of a low id past the quiet hour looks like the first id of a new numbering.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from k2_core.scopes import Scopes, dense
from k2_core.sequences import EVER_MS, Ids, Intervals, ScopeState, Stretch

Sessions = npt.NDArray[np.int32]
State = Mapping[str, ScopeState]
"""Sequence state of one feed: scope (symbol) -> what was seen."""

QUIET_MS = 3_600_000
"""Silence before a numbering may begin anew, in event time: no source restarts within the hour of its last id."""
ALONE_BEYOND = 1 << 20
"""Ids: one that is this far past the next, and more than twice it, stands alone. A million lost ids are no outage."""


def settled_high(second: int | None, highest: int | None) -> int:
    """The highest id that counts when a record is asked whether it begins anew; 0 while there is none."""
    if highest is None:
        return 0
    alone = second is not None and highest > 2 * second and highest - second > ALONE_BEYOND
    return second if alone and second is not None else highest


def begins_anew(newest_ms: int, highest: int, time_ms: int, number: int) -> bool:
    """Whether a record past the newest one of its scope is the first of a numbering to come. highest: that counts."""
    return time_ms > newest_ms + QUIET_MS and 2 * number < highest


class Timeline:
    """The numberings of one scope, while records are placed one after the other.

    begins_anew, of a place: past everything owned, and the first of a numbering to come.
    """

    def __init__(self, state: ScopeState) -> None:
        self._stretches = list(state.stretches)
        self._starts = [s.start_ms for s in self._stretches]
        self._highs = {n: numbering.stored.highest_two for n, numbering in state.numberings().items()}

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        return tuple(self._stretches)

    def place(self, time_ms: int, number: int) -> int:
        """Give a stored record its numbering, and the numbering the time."""
        session, at, grown = self._find(time_ms, number)
        if at == len(self._stretches):
            self._stretches.append(grown)
            self._starts.append(grown.start_ms)
        else:
            self._stretches[at], self._starts[at] = grown, grown.start_ms
        second, highest = self._highs.get(session, (None, None))
        if highest is None or number > highest:
            self._highs[session] = (highest, number)
        elif number < highest and (second is None or number > second):
            self._highs[session] = (number, highest)
        return session

    def owner(self, time_ms: int) -> int | None:
        """The numbering that owns an instant."""
        at = bisect_right(self._starts, time_ms) - 1
        return self._stretches[at].session if at >= 0 and time_ms <= self._stretches[at].end_ms else None

    def suggested(self, time_ms: int, number: int) -> int | None:
        """The numbering a record that is not stored would belong to by now; None if it would begin one."""
        session = self._find(time_ms, number)[0]
        return session if session in self._highs else None

    def _find(self, time_ms: int, number: int) -> tuple[int, int, Stretch]:
        """(session, which stretch, that stretch with this instant in it)."""
        if not self._stretches:
            return 0, 0, Stretch(EVER_MS, time_ms, 0)
        at = bisect_right(self._starts, time_ms) - 1
        left = self._stretches[at]
        if time_ms <= left.end_ms:
            return left.session, at, left
        if at + 1 == len(self._stretches):
            return self._beyond(time_ms, number)
        right = self._stretches[at + 1]
        # where the earlier numbering is the higher, it was passed over, and the later one is the one before it
        if right.session < left.session or self._begins_anew(left, time_ms, number):
            return right.session, at + 1, replace(right, start_ms=time_ms)
        return left.session, at, replace(left, end_ms=time_ms)

    def _beyond(self, time_ms: int, number: int) -> tuple[int, int, Stretch]:
        """Past everything owned: continue what was passed over, begin anew, or continue the newest."""
        last, end = self._stretches[-1], len(self._stretches)
        before = last if last.start_ms < last.end_ms else self._before_newcomers()
        if before.session != last.session and number > settled_high(*self._highs[before.session]):
            return before.session, end, Stretch(time_ms, time_ms, before.session)
        if self._begins_anew(last, time_ms, number):
            session = max(self._highs) + 1
            return session, end, Stretch(time_ms, time_ms, session)
        return last.session, end - 1, replace(last, end_ms=time_ms)

    def _before_newcomers(self) -> Stretch:
        """The newest stretch of a numbering that has more than one millisecond."""
        pieces = Counter(s.session for s in self._stretches)
        settled = (s for s in reversed(self._stretches) if s.start_ms < s.end_ms or pieces[s.session] > 1)
        return next(settled)  # the first stretch began before all time

    def _begins_anew(self, last: Stretch, time_ms: int, number: int) -> bool:
        return begins_anew(last.end_ms, settled_high(*self._highs[last.session]), time_ms, number)


@dataclass(frozen=True)
class Placed:
    """The rows of a batch with their numberings.

    sessions: per row. stretches: per scope of the batch, grown. Groups are the rows of one scope and numbering: group g
    is order[bounds[g]:bounds[g + 1]], arrival order within; group_scopes are places in `Scopes.names`.
    """

    sessions: Sessions
    stretches: tuple[tuple[Stretch, ...], ...]
    order: Ids
    bounds: Ids
    group_scopes: Ids
    group_sessions: Ids


def place(scopes: Scopes, times_ms: Ids, ids: Ids, state: State) -> Placed:
    """Give every row of a batch its numbering, as if they came one after the other. times_ms, ids: per row."""
    if not len(ids):
        return Placed(np.empty(0, np.int32), (), scopes.order, scopes.bounds, np.empty(0, int), np.empty(0, int))
    before = [state.get(name, _NEW) for name in scopes.names]
    times, numbers = times_ms[scopes.order], ids[scopes.order]
    ends = np.maximum.reduceat(times, scopes.bounds[:-1]).tolist()
    careful = _may_begin_anew(scopes, times, numbers, before)
    sessions = np.zeros(len(ids), np.int32)
    stretches = []
    for i, known in enumerate(before):
        if careful[i] or len(known.stretches) > 1:
            mine = slice(scopes.bounds[i], scopes.bounds[i + 1])
            placed, grown = _place_scope(known, times[mine], numbers[mine], may_begin_anew=bool(careful[i]))
            sessions[scopes.order[mine]] = placed
        else:
            last = known.stretches[0].end_ms if known.stretches else EVER_MS
            grown = known.stretches if ends[i] <= last else (Stretch(EVER_MS, ends[i], 0),)
        stretches.append(grown)
    return _grouped(scopes, sessions, tuple(stretches))


_NEW = ScopeState()


def _may_begin_anew(scopes: Scopes, times: Ids, numbers: Ids, before: list[ScopeState]) -> npt.NDArray[np.bool_]:
    """The scopes of which a record comes after an hour of silence with an id below half of any so far.

    times, numbers: in scope order. Never misses one that begins anew; the record by record look decides.
    """
    starts = scopes.bounds[:-1]
    newest = np.array(
        [s.stretches[-1].end_ms if s.stretches else times[at] for s, at in zip(before, starts, strict=True)]
    )
    base = min(int(times.min()), int(newest.min()))
    # every scope gets a range of its own, so that one running maximum serves them all
    width = max(int(times.max()), int(newest.max())) - base + 1
    apart = np.repeat(np.arange(len(starts)), np.diff(scopes.bounds)) * width
    shifted = times - base + apart
    so_far = np.empty_like(shifted)
    so_far[1:] = shifted[:-1]
    so_far[starts] = newest - base + apart[starts]
    late = shifted > np.maximum.accumulate(so_far) + QUIET_MS
    found = np.zeros(len(starts), bool)
    if late.any():
        highest = np.maximum.reduceat(numbers, starts)
        highest = np.maximum(highest, [s.stored.highest or 0 for s in before])
        half_up = highest // 2 + (highest & 1)
        found = np.logical_or.reduceat(late & (numbers < np.repeat(half_up, np.diff(scopes.bounds))), starts)
    return found


def _place_scope(
    state: ScopeState, times: Ids, numbers: Ids, *, may_begin_anew: bool
) -> tuple[Sessions, tuple[Stretch, ...]]:
    if state.stretches and not may_begin_anew:
        last = state.stretches[-1]
        at = np.searchsorted([s.start_ms for s in state.stretches], times, side="right") - 1
        owned = times <= np.array([s.end_ms for s in state.stretches])[at]
        if owned.all() or (last.start_ms < last.end_ms and (owned | (times > last.end_ms)).all()):
            grown = replace(last, end_ms=max(last.end_ms, int(times.max())))
            return np.array([s.session for s in state.stretches], np.int32)[at], (*state.stretches[:-1], grown)
    timeline = Timeline(state)
    placed = [timeline.place(*entry) for entry in zip(times.tolist(), numbers.tolist(), strict=True)]
    return np.array(placed, np.int32), timeline.stretches


def _grouped(scopes: Scopes, sessions: Sessions, stretches: tuple[tuple[Stretch, ...], ...]) -> Placed:
    if not sessions.any():
        every = np.arange(len(scopes.names))
        return Placed(sessions, stretches, scopes.order, scopes.bounds, every, np.zeros_like(every))
    width = int(sessions.max()) + 1
    groups, which = dense(scopes.codes.astype(np.int64) * width + sessions)
    bounds = np.concatenate([[0], np.cumsum(np.bincount(which))])
    return Placed(sessions, stretches, np.argsort(which, kind="stable"), bounds, groups // width, groups % width)


Adrift = frozenset[tuple[int, int]]
"""(event time in ms, id) of dead letters whose time no numbering owns yet."""


def settled(state: ScopeState, dead: Adrift) -> tuple[dict[int, Intervals], Adrift]:
    """Sort dead ids by the numbering that owns their time; the second of the pair is still adrift."""
    timeline = Timeline(state)
    found: dict[int, list[int]] = {}
    adrift = set()
    for time_ms, number in dead:
        owner = timeline.owner(time_ms)
        if owner is None:
            adrift.add((time_ms, number))
        else:
            found.setdefault(owner, []).append(number)
    return {n: Intervals.of(np.array(ids, np.int64)) for n, ids in found.items()}, frozenset(adrift)


def known_ids(state: ScopeState) -> dict[int, Intervals]:
    """Per numbering of a scope every id that is no gap; a dead id still adrift counts where it would belong by now."""
    suggested: dict[int, list[int]] = {}
    if state.adrift:
        timeline = Timeline(state)
        for time_ms, number in state.adrift:
            session = timeline.suggested(time_ms, number)
            if session is not None:
                suggested.setdefault(session, []).append(number)
    return {n: numbering.known(suggested.get(n, ())) for n, numbering in state.numberings().items()}
