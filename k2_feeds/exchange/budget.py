"""How much an address may ask: connection attempts and messages in a moving window, request weight in a fixed one."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from k2_feeds.exchange.settings import Limits


class Window:
    """At most so many events in any stretch of so many seconds."""

    def __init__(self, events_max: int, seconds: float) -> None:
        self._events_max, self._seconds = events_max, seconds
        self._times: deque[float] = deque()

    def admit(self, now: float) -> bool:
        """Count an event, refused ones too, and tell whether it is within the limit."""
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        self._times.append(now)
        if len(self._times) > self._events_max + 1:
            self._times.popleft()  # what is counted must not grow with what is refused
        return len(self._times) <= self._events_max


class Verdict(NamedTuple):
    """What becomes of a request. status: 200, 429 or 418; retry_seconds: whole seconds, as the header has them."""

    status: int
    retry_seconds: int = 0


ADMITTED = Verdict(200)


class WeightBudget:
    """Request weight of one address: 429 when a window's is spent, 418 for who does not wait.

    Times are seconds of one monotonic clock. used: weight in this window, as X-MBX-USED-WEIGHT-1M tells it.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._window_ends = -math.inf
        self._quiet_until = -math.inf
        self._banned_until = -math.inf
        self._refusals = 0
        self._bans = 0
        self.used = 0

    def ask(self, weight: int, now: float) -> Verdict:
        """Spend weight, or say why not."""
        if now >= self._window_ends:
            seconds = self._limits.weight_window_seconds
            self._window_ends, self.used = (now // seconds + 1) * seconds, 0
        if now < self._banned_until:
            return Verdict(418, _whole(self._banned_until - now))
        if now < self._quiet_until:
            return self._refuse_again(now)
        self.used += weight
        if self.used > self._limits.weight_max:
            return self.refuse(self._window_ends - now, now)
        return ADMITTED

    def refuse(self, seconds: float, now: float) -> Verdict:
        """Answer 429 and expect silence for so long."""
        self._refusals, self._quiet_until = 0, now + seconds
        return Verdict(429, _whole(seconds))

    def ban(self, seconds: float, now: float) -> Verdict:
        """Answer nothing but 418 for so long."""
        self._bans, self._banned_until = self._bans + 1, now + seconds
        return Verdict(418, _whole(seconds))

    def _refuse_again(self, now: float) -> Verdict:
        self._refusals += 1
        if self._refusals > self._limits.refusals_max:
            return self.ban(self._limits.ban_seconds * 2**self._bans, now)
        return Verdict(429, _whole(self._quiet_until - now))


def _whole(seconds: float) -> int:
    """Seconds for Retry-After; never so few that who waits them comes too early."""
    return max(1, math.ceil(seconds))
