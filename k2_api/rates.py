"""How much a caller may still ask: units over any minute, counted in this process.

Paths differ in price, and an answer beyond a few megabytes is paid for by its bytes once it was sent, so that a limit
in requests is not a way to ask for everything. `limits` keeps the windows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter

from k2_resources import clock

WINDOW_SECONDS = 60
EXACT_MAX = 10_000
"""Units of a window up to which each one's time is kept; beyond, two counters estimate it in constant memory."""
BYTES_PER_UNIT = 4 << 20
"""Bytes of an answer that are covered by its price; each further so many cost one unit: 10,000 rows of JSON fit."""
PRICES: Mapping[str, int] = {"/v1/ohlcv/batch": 5, "/v1/sql": 10, "/v1/aggregations": 2, "/v1/trades/with-quotes": 2}
"""Units of paths that cost more than one. The batch of timeframes was 20 a minute of 100 on the original platform."""


@dataclass(frozen=True)
class Standing:
    """What is left to a caller. reset_at: seconds since the epoch at which more is left than now."""

    is_granted: bool
    limit: int
    remaining: int
    reset_at: float
    window_seconds: int

    @property
    def reset_seconds(self) -> int:
        """Whole seconds until more is left than now, at least one while nothing is."""
        left = math.ceil(self.reset_at - clock.now().timestamp())
        return max(left, 0 if self.remaining else 1)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As draft-ietf-httpapi-ratelimit-headers-10 and clients of the original platform read it."""
        told = {
            "ratelimit-policy": f'"key";q={self.limit};w={self.window_seconds}',
            "ratelimit": f'"key";r={self.remaining};t={self.reset_seconds}',
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(math.ceil(self.reset_at)),
        }
        return [(name.encode(), value.encode()) for name, value in told.items()]


class Rates:
    """The windows of all callers. Used from the event loop only."""

    def __init__(self, window_seconds: int = WINDOW_SECONDS) -> None:
        self._window_seconds = window_seconds
        storage = MemoryStorage()
        self._exact = MovingWindowRateLimiter(storage)
        self._estimating = SlidingWindowCounterRateLimiter(storage)

    def take(self, caller: str, units: int, limit: int) -> Standing:
        """Spend units of a caller, or none of them where they are more than is left.

        limit: units of a window; a single price above it is lowered to it, or the path could never be asked.
        """
        limiter, item = self._window(limit)
        granted = limiter.hit(item, caller, cost=min(units, limit))
        left = limiter.get_window_stats(item, caller)
        return Standing(granted, limit, max(left.remaining, 0), left.reset_time, self._window_seconds)

    def charge_bytes(self, caller: str, sent: int, limit: int) -> None:
        """Charge a caller for an answer already sent, as far as anything is left."""
        if units := sent // BYTES_PER_UNIT:
            limiter, item = self._window(limit)
            remaining = limiter.get_window_stats(item, caller).remaining
            if remaining > 0:
                limiter.hit(item, caller, cost=min(units, remaining))

    def _window(self, limit: int) -> tuple[RateLimiter, RateLimitItemPerSecond]:
        item = RateLimitItemPerSecond(limit, self._window_seconds)
        return (self._exact if limit <= EXACT_MAX else self._estimating), item


def price(path: str) -> int:
    """Units a request to a path costs before anything is sent."""
    return PRICES.get(path, 1)
