"""Signs that a feed is well: its memory does not grow, its clock agrees, every symbol speaks.

Pure: times and sizes come in.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

LEAK_WINDOW_SECONDS = 3_600.0
"""Stretch over which the slope of memory is taken: a sawtooth of caches and collections evens out."""
LEAK_SECONDS_MIN = 600.0
"""Below it a start that still fills its caches would look like a leak."""
SKEW_WINDOW_SECONDS = 60.0
_BYTES_PER_MB = 1_000_000
_SECONDS_PER_HOUR = 3_600.0
_HALF_AT, _FULL_AT = 10.0, 50.0
"""MB an hour: at 10 a process of a gigabyte doubles in four days (0.5), at 50 within one (1.0)."""


def leak_score(mb_per_hour: float) -> float:
    """Score the growth of memory from 0 to 1: linear to 0.5 at 10 MB/h, and on to 1.0 at 50 MB/h."""
    if mb_per_hour <= _HALF_AT:
        return max(0.0, 0.5 * mb_per_hour / _HALF_AT)
    return min(1.0, 0.5 + 0.5 * (mb_per_hour - _HALF_AT) / (_FULL_AT - _HALF_AT))


@dataclass
class Memory:
    """Resident bytes over time."""

    window_seconds: float = LEAK_WINDOW_SECONDS
    seconds_min: float = LEAK_SECONDS_MIN
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def sample(self, now: float, resident_bytes: int) -> None:
        """Take one sample. now: seconds of a steady clock, rising."""
        self._samples.append((now, resident_bytes))
        while self._samples[0][0] < now - self.window_seconds:
            self._samples.popleft()

    @property
    def resident_bytes(self) -> int:
        return self._samples[-1][1] if self._samples else 0

    @property
    def mb_per_hour(self) -> float:
        """Slope of the line through the samples by least squares; 0 until they span enough time."""
        if len(self._samples) < 2 or self._samples[-1][0] - self._samples[0][0] < self.seconds_min:
            return 0.0
        times, sizes = zip(*self._samples, strict=True)
        slope: float = statistics.linear_regression(times, sizes).slope
        return slope * _SECONDS_PER_HOUR / _BYTES_PER_MB

    @property
    def score(self) -> float:
        return leak_score(self.mb_per_hour)


@dataclass
class Skew:
    """How far our clock is ahead of the exchange's, at most: the shortest way any frame took in the last minute or two.

    It holds the network's delay; below zero a frame came before it was sent, so our clock is certainly behind.
    """

    window_seconds: float = SKEW_WINDOW_SECONDS
    _began: float = float("-inf")
    _lowest: float | None = None
    _lowest_before: float | None = None

    def took(self, now: float, seconds: float) -> None:
        """Take in one frame. now: steady clock; seconds: from when it was sent to when it came, by the two clocks."""
        if now - self._began >= self.window_seconds:
            self._began, self._lowest_before, self._lowest = now, self._lowest, None
        self._lowest = seconds if self._lowest is None else min(self._lowest, seconds)

    @property
    def seconds(self) -> float | None:
        """None before the first frame."""
        return min((s for s in (self._lowest, self._lowest_before) if s is not None), default=None)


@dataclass
class Silence:
    """When each symbol was last heard of. Silence is no loss, only a reason to look."""

    seconds_max: float
    heard: dict[str, float] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)

    def expect(self, symbols: Iterable[str], now: float) -> None:
        """Say which symbols are to be heard of from now on."""
        self.heard.update(dict.fromkeys(symbols, now))

    def looked(self, now: float) -> tuple[list[str], list[str]]:
        """The symbols that went silent since the last look, and those that spoke again."""
        silent = {symbol for symbol, heard in self.heard.items() if now - heard >= self.seconds_max}
        came, went = sorted(silent - self.stale), sorted(self.stale - silent)
        self.stale = silent
        return came, went

    def longest(self, now: float) -> float:
        """Seconds the most silent symbol has been so."""
        return max((now - heard for heard in self.heard.values()), default=0.0)
