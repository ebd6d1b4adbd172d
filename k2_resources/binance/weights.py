"""The request weight Binance grants an address, counted so that no minute of the exchange's ever holds more."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from k2_core.errors import Misconfigured

WINDOW_SECONDS = 60.0
"""The exchange counts by minutes of its own clock, which we do not know: no sixty seconds may exceed the limit."""


class WeightBudget:
    """What may be spent now, by our own count and by what the exchange says was used from this address.

    Ask before a request, note after its answer: as the weight is noted after the exchange counted it, none leaves our
    window before it leaves the one of the exchange. Not to be shared between threads.
    """

    def __init__(self, weight_per_minute: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.weight_per_minute = weight_per_minute
        self._monotonic = monotonic
        self._spent: deque[tuple[float, int]] = deque()
        self._told = 0
        self._told_at = float("-inf")

    @property
    def used(self) -> int:
        """Weight that may count against the next request."""
        now = self._monotonic()
        while self._spent and now - self._spent[0][0] >= WINDOW_SECONDS:
            self._spent.popleft()
        told = self._told if now - self._told_at < WINDOW_SECONDS else 0
        return max(told, sum(weight for _, weight in self._spent))

    def seconds_until(self, weight: int) -> float:
        """How long a request has to wait; 0 when it need not. Raises Misconfigured when it never fits."""
        if weight > self.weight_per_minute:
            raise Misconfigured(f"a request weighs {weight}, more than the {self.weight_per_minute} of a whole minute")
        if self.used + weight <= self.weight_per_minute:
            return 0.0
        now, wait, own = self._monotonic(), 0.0, sum(spent for _, spent in self._spent)
        if self._told + weight > self.weight_per_minute:
            wait = max(0.0, self._told_at + WINDOW_SECONDS - now)
        for at, spent in self._spent:
            if own + weight <= self.weight_per_minute:
                break
            own, wait = own - spent, max(wait, at + WINDOW_SECONDS - now)
        return wait

    def note(self, weight: int, told: int | None) -> None:
        """Count a request that was made. told: weight used within the minute by what the answer says, if it does."""
        now = self._monotonic()
        self._spent.append((now, weight))
        if told is not None:
            self._told, self._told_at = told, now
        elif now - self._told_at < WINDOW_SECONDS:
            self._told += weight
