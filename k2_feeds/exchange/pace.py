"""The exchange's own time: event time, which runs at a chosen speed and can be held."""

from __future__ import annotations

import math
import threading
import time
from typing import NamedTuple


class _Anchor(NamedTuple):
    event_us: int
    wall_seconds: float
    is_held: bool


class MarketClock:
    """Event time in µs. At unlimited speed it is the time of the last tick published.

    Its state is one value that is replaced whole, so any thread may ask, hold, release and move it on.
    """

    def __init__(self, start_us: int, speed: float) -> None:
        self.is_unlimited = math.isinf(speed)
        self._us_per_second = 0.0 if self.is_unlimited else speed * 1_000_000
        self._anchor = _Anchor(start_us, time.monotonic(), is_held=False)
        self._changing = threading.Lock()

    @property
    def is_held(self) -> bool:
        return self._anchor.is_held

    def now_us(self) -> int:
        """Tell the event time."""
        anchor = self._anchor
        elapsed = 0.0 if anchor.is_held else time.monotonic() - anchor.wall_seconds
        return anchor.event_us + int(elapsed * self._us_per_second)

    def hold(self) -> None:
        """Stop event time."""
        with self._changing:
            self._anchor = _Anchor(self.now_us(), time.monotonic(), is_held=True)

    def release(self) -> None:
        """Let event time go on from where it is."""
        with self._changing:
            self._anchor = _Anchor(self.now_us(), time.monotonic(), is_held=False)

    def reach(self, event_us: int) -> None:
        """Move on to an instant, never back; what an unlimited clock does instead of running."""
        with self._changing:
            self._anchor = _Anchor(max(event_us, self.now_us()), time.monotonic(), self._anchor.is_held)
