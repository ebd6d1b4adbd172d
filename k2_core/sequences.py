"""Which ids of a source were seen: sets of intervals, one per scope.

Belongs here: set arithmetic over ids. What a hole or a repeat means for a row is decided in `judge`.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

MAX_ID = 2**63 - 1
"""Ids are non-negative signed 64-bit integers, in Avro and in Iceberg."""

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

    def contains(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which ids are in the set. Shape of ids."""
        if not len(self):
            return np.zeros(len(ids), bool)
        at = np.searchsorted(self.firsts, ids, side="right") - 1
        inside: npt.NDArray[np.bool_] = (at >= 0) & (ids <= self.lasts[at])
        return inside

    def union(self, other: Intervals) -> Intervals:
        """Both sets together, neighbours joined."""
        firsts = np.concatenate([self.firsts, other.firsts])
        lasts = np.concatenate([self.lasts, other.lasts])
        order = np.argsort(firsts, kind="stable")
        return _merged(firsts[order], lasts[order])

    def clipped(self, first: int, last: int) -> Intervals:
        """What lies within [first, last], both inclusive."""
        firsts, lasts = np.maximum(self.firsts, first), np.minimum(self.lasts, last)
        inside = firsts <= lasts
        return Intervals(firsts[inside], lasts[inside])

    def holes(self) -> list[tuple[int, int]]:
        """The missing ids between the smallest and the largest, as inclusive (first, last), ascending."""
        return list(zip((self.lasts[:-1] + 1).tolist(), (self.firsts[1:] - 1).tolist(), strict=True))

    @property
    def highest(self) -> int | None:
        return int(self.lasts[-1]) if len(self) else None


def _merged(firsts: Ids, lasts: Ids) -> Intervals:
    """Join intervals that touch or overlap. firsts ascending."""
    if not len(firsts):
        return Intervals()
    reach = np.maximum.accumulate(lasts)
    # first - 1 rather than reach + 1: the largest int64 has no successor, and ids are never negative
    starts = np.concatenate([[True], firsts[1:] - 1 > reach[:-1]])
    ends = np.concatenate([starts[1:], [True]])
    return Intervals(firsts[starts], reach[ends])


@dataclass(frozen=True)
class ScopeState:
    """What is known of one scope (one symbol of a feed): ids stored, ids that died as dead letters, the highest id."""

    seen: Intervals = field(default_factory=Intervals)
    dead: Intervals = field(default_factory=Intervals)
    high: int | None = None

    def known(self) -> Intervals:
        """Every id that is no gap: stored, or dead with its bytes kept.

        A dead id outside the span of the stored ones says nothing: one corrupt id must not open a hole up to it.
        """
        if not len(self.seen):
            return self.seen
        return self.seen.union(self.dead.clipped(int(self.seen.firsts[0]), int(self.seen.lasts[-1])))


@dataclass(frozen=True)
class HoleChange:
    """One hole that opened, or closed (filled, or split into remainders named `opened` with this one as parent)."""

    first: int
    last: int
    state: str
    parent: tuple[int, int] | None = None


def hole_changes(before: Intervals, after: Intervals) -> list[HoleChange]:
    """The events that turn the holes of one set into those of a larger one, in id order.

    A hole that shrank is closed, and what remains of it opens under its own id with the old one as parent.
    """
    old, new = before.holes(), after.holes()
    gone = sorted(set(old) - set(new))
    came = sorted(set(new) - set(old))
    changes = [HoleChange(first, last, "filled") for first, last in gone]
    for first, last in came:
        at = bisect_right(gone, (first, MAX_ID)) - 1
        parent = gone[at] if at >= 0 and last <= gone[at][1] else None
        changes.append(HoleChange(first, last, "open", parent))
    return sorted(changes, key=lambda c: (c.first, c.state))
