"""When to ask again, and how long to wait before."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

PASSING = frozenset({408, 429, 502, 503, 504})
"""Answers that may be others in a moment. Every call of this client reads, so asking twice does no harm."""


@dataclass(frozen=True)
class Retry:
    """How patient a client is.

    attempts: of one request; a stream that has brought rows since its last failure starts to count anew.
    pause_seconds: before the second attempt; doubled before each further one, up to pause_seconds_max. A server that
    says when to come back is believed up to retry_after_seconds_max.
    """

    attempts: int = 6
    pause_seconds: float = 0.2
    pause_seconds_max: float = 10.0
    retry_after_seconds_max: float = 90.0

    def pause(self, attempt: int, retry_after: str | None, chance: Callable[[], float] = random.random) -> float:
        """Seconds to wait after a failed attempt, counted from 1. Chance spreads clients that failed together."""
        if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
            return min(float(retry_after), self.retry_after_seconds_max) + self.pause_seconds * chance()
        doubled = self.pause_seconds * 2.0 ** min(attempt - 1, 30)
        return min(doubled, self.pause_seconds_max) * (0.5 + chance() / 2)


PATIENT = Retry()
"""A client that was told nothing else gives a server some six seconds to come back, and as long as it asks for."""
