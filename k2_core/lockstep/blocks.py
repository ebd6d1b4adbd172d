"""The blocks of arrays and maps, walked in step: each round is one item of every lane that still has one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from k2_core.frames import Longs
from k2_core.lockstep.lanes import Lanes, Mask
from k2_core.lockstep.walk import Malformed, list_end
from k2_core.quality import Reason

Step = Callable[[memoryview, int, int], int]
"""Data, start and end of the record -> where the item that starts there ends. Raises Malformed."""

Round = tuple[Lanes, Longs, Longs]

_ROUNDS_MANY = 16
_LANES_FEW = 64
"""A round costs as much as stepping over some dozens of items one by one, however few lanes it moves."""
_BYTE_MAX = 255
"""Counts up to here are sorted as bytes, many times faster."""


@dataclass
class _Front:
    """Lanes inside a block, those with the most items first.

    owners: which lane each is; counts: items of the block; ends: where the block says it ends, -1 if it does not say.
    """

    lanes: Lanes
    owners: Longs
    counts: Longs
    ends: Longs

    def keep(self, index: Longs) -> None:
        """Go on with some of them, in their order."""
        self.lanes = self.lanes.some(index)
        self.owners, self.counts, self.ends = self.owners[index], self.counts[index], self.ends[index]


class Blocks:
    """One array or map of every lane. counts: items of each lane, complete once the rounds have ended."""

    def __init__(self, lanes: Lanes, name: str, step: Step) -> None:
        self._lanes, self._name, self._step = lanes, name, step
        self.counts: Longs = np.zeros(len(lanes), np.int64)
        self._rounds = 0

    def rounds(self) -> Iterator[Round]:
        """Yield lanes each standing at an item, to be moved past it; their owners; the item's ordinal in its owner.

        An owner comes once in a round, but for one that holds all that is left of a few.
        """
        front = self._begin()
        while len(front.owners):
            yield from self._in_step(front)
            self._check_claims(front)
            self._lanes.put(front.owners, front.lanes)
            front = self._open(front.lanes, front.owners)

    def _begin(self) -> _Front:
        """The first blocks. Most lists of many fields have none: a byte of 0, past which their lanes are moved."""
        lanes, first = self._lanes, self._lanes.byte()
        index = np.flatnonzero(first)
        if 2 * len(index) > len(lanes):
            return self._open(lanes, np.arange(len(lanes)))
        lanes.at = lanes.at + (first == 0)
        return self._open(lanes.some(index), index)

    def _open(self, lanes: Lanes, owners: Longs) -> _Front:
        """Begin the next block of some lanes; a list whose block has no items has ended."""
        counts, ends = lanes.varints(self._name), np.full(len(lanes), -1)
        if counts.min(initial=0) < 0:
            sized = np.flatnonzero(counts < 0)
            counts[sized] = -counts[sized]
            ends[sized] = self._claimed_ends(lanes, sized)
        bad = counts > lanes.ends - lanes.at
        bad &= counts != 0
        bad |= counts < 0  # the one number whose negative is itself
        if bad.any():
            detail = "items claimed, more than the record has bytes left"
            lanes.fail(bad, Reason.TRUNCATED, lambda i: f"{self._name}: {counts[i]} {detail}")
        if lanes.block.faults:
            counts = np.where(lanes.is_parked, 0, counts)
        if lanes is not self._lanes:
            self._lanes.put(owners, lanes)
        front = _Front(lanes, owners, counts, ends)
        front.keep(_by_count(counts))
        return front

    def _claimed_ends(self, lanes: Lanes, sized: Longs) -> Longs:
        """Where blocks that state their bytes say they end."""
        sub = lanes.some(sized)
        sizes = sub.lengths(self._name)
        lanes.put(sized, sub)
        ends: Longs = sub.at + sizes
        return ends

    def _in_step(self, front: _Front) -> Iterator[Round]:
        """The rounds of a block each. Leaves in the front the lanes that have another block to open."""
        before = self.counts[front.owners]
        falling = -front.counts
        for number in itertools.count():
            m = int(np.searchsorted(falling, -number))
            if m == 0:
                break
            if self._rounds >= _ROUNDS_MANY and m < _LANES_FEW:
                yield from self._rest(front, m, number)
                break
            self._rounds += 1
            lanes = front.lanes
            part = Lanes(lanes.block, lanes.at[:m].copy(), lanes.ends[:m], lanes.rows[:m])
            yield part, front.owners[:m], before[:m] + number
            part.check_inside()
            lanes.at[:m] = part.at
            if lanes.block.faults and (parked := lanes.is_parked).any():
                self._drop(front, parked, number + 1)
                before, falling = self.counts[front.owners], -front.counts
        self.counts[front.owners] += front.counts

    def _drop(self, front: _Front, parked: Mask, items: int) -> None:
        """Go on without lanes that have failed. items: of this block, handed out so far."""
        gone = front.owners[parked]
        self.counts[gone] += np.minimum(front.counts[parked], items)
        self._lanes.put(gone, front.lanes.some(np.flatnonzero(parked)))
        front.keep(np.flatnonzero(~parked))

    def _check_claims(self, front: _Front) -> None:
        lied = (front.ends >= 0) & (front.ends != front.lanes.at)
        if lied.any():
            detail = "a block is not as long as it says"
            front.lanes.fail(lied, Reason.UNDECODABLE, lambda i: f"{self._name}: {detail}")

    def _rest(self, front: _Front, m: int, items: int) -> Iterator[Round]:
        """All that is left of the first m lanes, found item by item and handed out at once; they leave the front."""
        sub, owners = front.lanes.some(np.arange(m)), front.owners[:m]
        starts: list[list[int]] = []
        faults: dict[int, Malformed] = {}
        for i, left in enumerate((front.counts[:m] - items).tolist()):
            try:
                starts.append(self._walked(sub, i, left, int(front.ends[i])))
            except Malformed as malformed:
                starts.append([])
                faults[i] = malformed
        for i, fault in faults.items():
            sub.fail(np.arange(m) == i, fault.reason, lambda _, text=str(fault): f"{self._name}: {text}")  # type: ignore[misc]
        self._lanes.put(owners, sub)
        counts = np.array([len(of_lane) for of_lane in starts], np.int64)
        firsts = self.counts[owners] + items - (np.cumsum(counts) - counts)
        self.counts[owners] += items + counts
        front.keep(np.arange(m, len(front.owners)))
        which = np.repeat(np.arange(m), counts)
        at = np.fromiter(itertools.chain.from_iterable(starts), np.int64, len(which))
        lanes = Lanes(sub.block, at, sub.ends[which], sub.rows[which])
        yield lanes, owners[which], firsts[which] + np.arange(len(which))
        lanes.check_inside()

    def _walked(self, lanes: Lanes, i: int, left: int, claim: int) -> list[int]:
        """Where the items of one list start that are left; its lane is moved behind it. Raises Malformed."""
        data, end = lanes.block.view, int(lanes.ends[i])
        starts: list[int] = []

        def item(at: int) -> int:
            starts.append(at)
            return self._step(data, at, end)

        lanes.at[i] = list_end(data, int(lanes.at[i]), end, item, left=left, claim=claim)
        return starts


def _by_count(counts: Longs) -> Longs:
    """Places of all that are not 0, the largest first."""
    index = np.flatnonzero(counts)
    found = counts[index]
    if found.max(initial=0) <= _BYTE_MAX:
        return index[np.argsort((_BYTE_MAX - found).astype(np.uint8), kind="stable")]
    return index[np.argsort(-found, kind="stable")]
