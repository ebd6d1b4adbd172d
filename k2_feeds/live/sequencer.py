"""What a live feed has seen of each symbol: which frames are repetitions, and which ids are missing.

Two connections overlap while one replaces the other, repairs come late, and frames may change places: whatever came
already is told by its id, whatever is missing is the complement of what came.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from k2_core.numberings import begins_anew
from k2_core.sequences import Intervals

QUOTES_REMEMBERED = 1_024
"""Update ids kept per symbol: some seconds of the busiest one; two connections are milliseconds apart."""


@dataclass
class Numbers:
    """The ids of one symbol. The topmost interval is kept as two integers: nearly every id extends it by one.

    newest_us: event time of the newest trade, -1 before any; session: the numbering it belongs to, by the judge's rule.
    """

    first: int
    last: int
    newest_us: int = -1
    session: int = 0
    is_heard: bool = False
    below: Intervals = field(default_factory=Intervals)

    @property
    def seen(self) -> Intervals:
        """Every id that came."""
        return self.below.union(Intervals.between(self.first, self.last))

    def admit(self, number: int, event_us: int) -> Admitted:
        """Take one id in."""
        if self.last < number:
            return self._above(number, event_us)
        is_first, newest_us = not self.is_heard, self.newest_us
        self.newest_us, self.is_heard = max(newest_us, event_us), True
        if event_us > newest_us:
            # nothing that is late or comes twice is newer than all else: the exchange numbers anew. The first one
            # may only say that the id this feed began after is of no use, as when an earlier run left frames behind
            is_next = newest_us >= 0 and begins_anew(newest_us // 1_000, self.last, event_us // 1_000, number)
            self.session += is_next
            self.first, self.last, self.below = number, number, Intervals()
            # the first ids of a numbering may have gone by while nobody listened
            unseen = (0, number - 1) if is_next and number else None
            return Admitted(True, unseen, began_anew=is_next or not is_first)
        if self._holds(number):
            return Admitted(False)
        self._absorb(number)
        return Admitted(True)

    def fill(self, number: int) -> bool:
        """Take one id in that was asked for; it says nothing about where the exchange is. Whether it is new."""
        if self._holds(number):
            return False
        if number < self.first:
            self._absorb(number)
        return True

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        """What of [first, last] did not come, as inclusive (first, last), ascending."""
        edges = Intervals.of(np.array([first - 1, last + 1], np.int64))
        return self.seen.clipped(first, last).union(edges).holes()

    def _holds(self, number: int) -> bool:
        if number >= self.first:
            return number <= self.last
        return bool(self.below.contains(np.array([number], np.int64))[0])

    def _above(self, number: int, event_us: int) -> Admitted:
        self.newest_us, self.is_heard = max(self.newest_us, event_us), True
        if number == self.last + 1:
            self.last = number
            return Admitted(True)
        hole = (self.last + 1, number - 1)
        self.below = self.seen
        self.first = self.last = number
        return Admitted(True, hole)

    def _absorb(self, number: int) -> None:
        below = self.below.union(Intervals.between(number, number))
        if int(below.lasts[-1]) + 1 == self.first:
            self.first = int(below.firsts[-1])
            below = Intervals(below.firsts[:-1], below.lasts[:-1])
        self.below = below


@dataclass(frozen=True, slots=True)
class Admitted:
    """What one id is. hole: ids between the highest so far and this one, inclusive, when it left some out.

    Where a numbering begins, nobody has said which id is its first: then the hole is everything below.
    """

    is_new: bool
    hole: tuple[int, int] | None = None
    began_anew: bool = False


FIRST = Admitted(True)


@dataclass
class Sequencer:
    """The ids of all symbols of one feed. trades: contiguous ids. quotes: rising ids with holes."""

    trades: dict[str, Numbers] = field(default_factory=dict)
    _quotes: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    _next: dict[str, int] = field(default_factory=dict)

    def begin(self, symbol: str, last: int, *, newest_us: int = -1, session: int = 0) -> None:
        """Say which id was the last before this feed started: what is between it and the first to come is missing.

        newest_us: event time of the newest trade of then; session: the numbering that id is of.
        """
        self.trades[symbol] = Numbers(last, last, newest_us, session)

    def session(self, symbol: str) -> int:
        """Tell the numbering the ids of a symbol are of now."""
        numbers = self.trades.get(symbol)
        return numbers.session if numbers else 0

    def trade(self, symbol: str, number: int, event_us: int) -> Admitted:
        """Take in the id of one trade. event_us: when it was made, µs UTC."""
        numbers = self.trades.get(symbol)
        if numbers is None:
            self.trades[symbol] = Numbers(number, number, event_us, is_heard=True)
            return FIRST
        return numbers.admit(number, event_us)

    def fill(self, symbol: str, number: int) -> bool:
        """Take in the id of one trade that was asked for. Whether it is new."""
        numbers = self.trades.get(symbol)
        return numbers is None or numbers.fill(number)

    def quote(self, symbol: str, number: int) -> bool:
        """Take in the id of one book update. Returns whether it is new, as far as the last ones tell."""
        ring = self._quotes.get(symbol)
        if ring is None:
            ring = self._quotes[symbol] = np.full(QUOTES_REMEMBERED, -1, np.int64)
        if (ring == number).any():
            return False
        at = self._next.get(symbol, 0)
        ring[at] = number
        self._next[symbol] = (at + 1) % QUOTES_REMEMBERED
        return True

    def missing(self, symbol: str, hole: tuple[int, int]) -> list[tuple[int, int]]:
        """What of a hole is still missing."""
        numbers = self.trades.get(symbol)
        return numbers.missing(*hole) if numbers else []
