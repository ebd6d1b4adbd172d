"""When a feed may open a connection: what the exchange allows, and what makes sense while it fails.

The quota and the breaker are pure: the time comes in, in seconds of any steady clock.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

ATTEMPTS_MAX = 300
"""Connection attempts the exchange takes from one address within the time below."""
ATTEMPTS_SECONDS = 300.0
FAILURES_MAX = 3
"""Failures in a row after which trying on is noise."""
OPEN_SECONDS = 30.0
"""Time an open breaker lets nobody through."""
BACKOFF_SECONDS = 0.5
"""Longest pause after a first failure; it doubles with each further one."""
BACKOFF_SECONDS_MAX = 60.0
_PROBE_POLL_SECONDS = 0.2


@dataclass
class Quota:
    """At most so many attempts within any stretch of time, whoever makes them."""

    attempts_max: int = ATTEMPTS_MAX
    seconds: float = ATTEMPTS_SECONDS
    _made: deque[float] = field(default_factory=deque)

    def take(self, now: float) -> float:
        """Take one attempt and say 0, or say how many seconds to wait before asking again."""
        while self._made and self._made[0] <= now - self.seconds:
            self._made.popleft()
        if len(self._made) >= self.attempts_max:
            return self._made[0] + self.seconds - now
        self._made.append(now)
        return 0.0


class State(StrEnum):
    """closed: everybody may try. open: nobody. half_open: one probe is under way, the rest wait for what it finds."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


@dataclass
class Breaker:
    """Stops trying after some failures in a row; after a while it lets one probe through."""

    failures_max: int = FAILURES_MAX
    open_seconds: float = OPEN_SECONDS
    state: State = State.CLOSED
    _failures: int = 0
    _opened: float = 0.0

    def admit(self, now: float) -> float:
        """Let the caller through and say 0, or say how many seconds to wait before asking again."""
        if self.state is State.OPEN and now >= self._opened + self.open_seconds:
            self.state = State.HALF_OPEN
            return 0.0
        if self.state is State.CLOSED:
            return 0.0
        return _PROBE_POLL_SECONDS if self.state is State.HALF_OPEN else self._opened + self.open_seconds - now

    def succeeded(self) -> None:
        """Close: the other side answers. The failures before count on until `proved`."""
        self.state = State.CLOSED

    def proved(self) -> None:
        """Forget the failures: what was opened lasts."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """Count one failure; a probe that failed opens at once."""
        self._failures += 1
        if self.state is State.HALF_OPEN or self._failures >= self.failures_max:
            self.state, self._opened = State.OPEN, now

    def abandoned(self, now: float) -> None:
        """Take note that whoever was let through went away without trying: the next one is the probe."""
        if self.state is State.HALF_OPEN:
            self.state, self._opened = State.OPEN, now - self.open_seconds


def backoff(failures: int, *, first: float = BACKOFF_SECONDS, seconds_max: float = BACKOFF_SECONDS_MAX) -> float:
    """Seconds to pause after so many failures in a row: anything up to a ceiling that doubles with each.

    Full jitter, so that connections that were cut together do not come back together.
    """
    return random.uniform(0, min(seconds_max, first * 2 ** min(failures - 1, 16)))  # noqa: S311 - not a secret


@dataclass
class Admission:
    """One gate for all connections of a feed. To be used from one event loop."""

    quota: Quota = field(default_factory=Quota)
    breaker: Breaker = field(default_factory=Breaker)
    _away_until: float = float("-inf")

    async def enter(self) -> None:
        """Wait until a connection may be opened. The quota comes last: an attempt taken is an attempt made."""
        while (wait := self._away_until - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        while wait := self.breaker.admit(time.monotonic()):
            await asyncio.sleep(wait)
        try:
            while wait := self.quota.take(time.monotonic()):
                await asyncio.sleep(wait)
        except asyncio.CancelledError:
            self.breaker.abandoned(time.monotonic())
            raise

    def succeeded(self) -> None:
        self.breaker.succeeded()

    def proved(self) -> None:
        self.breaker.proved()

    def failed(self, away_seconds: float = 0.0) -> None:
        """Count one failure. away_seconds: how long the exchange told us all to stay away."""
        self._away_until = max(self._away_until, time.monotonic() + away_seconds)
        self.breaker.failed(time.monotonic())

    def abandoned(self) -> None:
        self.breaker.abandoned(time.monotonic())
