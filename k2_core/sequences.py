"""Which ids of a source were seen: sets of intervals, one per numbering of a scope.

Belongs here: set arithmetic over ids. Which numbering an id belongs to is decided in `numberings`; what a hole or a
repeat means for a row, in `judge`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

MAX_ID = 2**63 - 1
"""Ids are non-negative signed 64-bit integers, in Avro and in Iceberg."""
COVER_HOLES_MAX = 15
"""Holes kept in the cover of a monotonic feed: enough to leave a few stray ids out, few enough to write every time."""

_NO_IDS: Ids = np.empty(0, np.int64)


@dataclass(frozen=True)
class Intervals:
    """A set of ids as disjoint, non-touching, ascending inclusive intervals [firsts[i], lasts[i]].

    Inclusive, unlike every other interval of K2: the largest int64 must be storable.
    """

    firsts: Ids = field(default_factory=lambda: _NO_IDS)
    lasts: Ids = field(default_factory=lambda: _NO_IDS)

    def __len__(self) -> int:
        return len(self.firsts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Intervals):
            return NotImplemented
        return np.array_equal(self.firsts, other.firsts) and np.array_equal(self.lasts, other.lasts)

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    @classmethod
    def of(cls, ids: Ids) -> Intervals:
        """The set of these ids: any order, repeats allowed."""
        unique = np.unique(ids)
        return _merged(unique, unique)

    @classmethod
    def between(cls, first: int, last: int) -> Intervals:
        """Every id from first to last, both inclusive."""
        return cls(np.array([first], np.int64), np.array([last], np.int64))

    def contains(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which ids are in the set. Shape of ids."""
        if not len(self):
            return np.zeros(len(ids), bool)
        at = np.searchsorted(self.firsts, ids, side="right") - 1
        inside: npt.NDArray[np.bool_] = (at >= 0) & (ids <= self.lasts[at])
        return inside

    def union(self, other: Intervals) -> Intervals:
        """Both sets together, neighbours joined."""
        if not len(self) or not len(other):
            return self if len(self) else other
        firsts = np.concatenate([self.firsts, other.firsts])
        lasts = np.concatenate([self.lasts, other.lasts])
        order = np.argsort(firsts, kind="stable")
        return _merged(firsts[order], lasts[order])

    def followed_by(self, firsts: list[int], lasts: list[int]) -> Intervals:
        """With intervals above the highest, themselves ascending."""
        if len(self) and len(firsts) == 1 and firsts[0] - 1 == self.lasts[-1]:
            grown = self.lasts.copy()
            grown[-1] = lasts[0]
            return Intervals(self.firsts, grown)
        return _merged(np.concatenate([self.firsts, firsts]), np.concatenate([self.lasts, lasts]))

    def clipped(self, first: int, last: int) -> Intervals:
        """What lies within [first, last], both inclusive."""
        firsts, lasts = np.maximum(self.firsts, first), np.minimum(self.lasts, last)
        inside = firsts <= lasts
        return Intervals(firsts[inside], lasts[inside])

    def covered(self, holes_max: int = COVER_HOLES_MAX) -> Intervals:
        """A set that holds this one and has few holes: the topmost and the widest of the others stay.

        The topmost stays so that the two highest ids can always be told.
        """
        if len(self) - 1 <= holes_max:
            return self
        widths = self.firsts[1:] - self.lasts[:-1]
        widths[-1] = MAX_ID
        open_ = np.zeros(len(widths), bool)
        open_[np.argsort(-widths, kind="stable")[:holes_max]] = True
        return Intervals(self.firsts[np.concatenate([[True], open_])], self.lasts[np.concatenate([open_, [True]])])

    def holes(self) -> list[tuple[int, int]]:
        """The missing ids between the smallest and the largest, as inclusive (first, last), ascending."""
        return _pairs(*self.hole_bounds)

    @property
    def hole_bounds(self) -> tuple[Ids, Ids]:
        """The holes as two columns."""
        return self.lasts[:-1] + 1, self.firsts[1:] - 1

    @property
    def highest(self) -> int | None:
        return int(self.lasts[-1]) if len(self) else None

    @property
    def highest_two(self) -> tuple[int | None, int | None]:
        """The second highest id and the highest."""
        if not len(self):
            return None, None
        first, last = int(self.firsts[-1]), int(self.lasts[-1])
        if first < last:
            return last - 1, last
        return (int(self.lasts[-2]) if len(self) > 1 else None), last


def _merged(firsts: Ids, lasts: Ids) -> Intervals:
    """Join intervals that touch or overlap. firsts ascending."""
    if not len(firsts):
        return Intervals()
    reach = np.maximum.accumulate(lasts)
    # first - 1 rather than reach + 1: the largest int64 has no successor, and ids are never negative
    starts = np.concatenate([[True], firsts[1:] - 1 > reach[:-1]])
    ends = np.concatenate([starts[1:], [True]])
    return Intervals(firsts[starts], reach[ends])


EVER_MS = -(2**63)
"""Start of the first stretch of a scope: whatever comes late was always part of the first numbering."""


@dataclass(frozen=True)
class Stretch:
    """A piece of event time that belongs to one numbering, both ends inclusive. Milliseconds since the epoch.

    Milliseconds, because one row may be stated once in milliseconds and once in microseconds.
    """

    start_ms: int
    end_ms: int
    session: int


@dataclass(frozen=True)
class ScopeState:
    """What is known of one scope (one symbol of a feed): its newest numbering, and beside it the others.

    seen: ids stored; of a monotonic feed a cover of them. dead: ids that died as dead letters. high: what a monotonic
    feed remembered before it kept a cover: any id up to it may be stored. session: number of this numbering.
    Of the newest alone: stretches, disjoint and ascending, whose last is its own; others; adrift: (event time in ms,
    id) of dead letters whose time no stretch holds yet.
    """

    seen: Intervals = field(default_factory=Intervals)
    dead: Intervals = field(default_factory=Intervals)
    high: int | None = None
    session: int = 0
    stretches: tuple[Stretch, ...] = ()
    others: tuple[ScopeState, ...] = ()
    adrift: frozenset[tuple[int, int]] = frozenset()

    @property
    def stored(self) -> Intervals:
        """Every id that may be stored."""
        return self.seen if self.high is None else self.seen.union(Intervals.between(0, self.high))

    def numberings(self) -> dict[int, ScopeState]:
        """Every numbering of the scope by its number."""
        return {state.session: state for state in (*self.others, self)}

    def numbering(self, session: int) -> ScopeState:
        """One of them; empty if nothing is known of it."""
        return self if session == self.session else self.numberings().get(session, ScopeState(session=session))

    @classmethod
    def of(
        cls, numberings: Mapping[int, ScopeState], stretches: tuple[Stretch, ...], adrift: frozenset[tuple[int, int]]
    ) -> ScopeState:
        """Put the numberings of a scope together."""
        newest = stretches[-1].session if stretches else 0
        top = numberings.get(newest, cls())
        others = tuple(
            cls(other.seen, other.dead, other.high, session)
            for session, other in sorted(numberings.items())
            if session != newest
        )
        return cls(top.seen, top.dead, top.high, newest, stretches, others, adrift)

    def known(self, undecided: Iterable[int] = ()) -> Intervals:
        """Every id of this numbering that is no gap: stored, or dead with its bytes kept.

        undecided: dead ids adrift that would belong here by now. A dead id outside the span of the stored ones says
        nothing: one corrupt id must not open a hole up to it.
        """
        if not len(self.seen):
            return self.seen
        dead = self.dead.union(Intervals.of(np.array(sorted(undecided), np.int64)))
        return self.seen.union(dead.clipped(int(self.seen.firsts[0]), int(self.seen.lasts[-1])))


@dataclass(frozen=True)
class HoleChange:
    """One hole that opened, or closed (filled, or split into remainders named `opened` with this one as parent)."""

    first: int
    last: int
    state: str
    parent: tuple[int, int] | None = None


def hole_changes(before: Intervals, after: Intervals) -> list[HoleChange]:
    """The events that turn the holes of one set into those of another, in id order.

    A hole that shrank is closed, and what remains of it opens under its own id with the old one as parent.
    """
    gone, came = _only_in(before, after), _only_in(after, before)
    changes = [HoleChange(first, last, "filled") for first, last in gone]
    for first, last in came:
        at = bisect_right(gone, (first, MAX_ID)) - 1
        parent = gone[at] if at >= 0 and last <= gone[at][1] else None
        changes.append(HoleChange(first, last, "open", parent))
    return sorted(changes, key=lambda c: (c.first, c.state))


def _only_in(one: Intervals, other: Intervals) -> list[tuple[int, int]]:
    """The holes of one set that are no holes of the other, ascending."""
    firsts, lasts = one.hole_bounds
    theirs, their_lasts = other.hole_bounds
    if len(theirs):
        at = np.minimum(np.searchsorted(theirs, firsts), len(theirs) - 1)
        differ = (theirs[at] != firsts) | (their_lasts[at] != lasts)
        firsts, lasts = firsts[differ], lasts[differ]
    return _pairs(firsts, lasts)


def _pairs(firsts: Ids, lasts: Ids) -> list[tuple[int, int]]:
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
