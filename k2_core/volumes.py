"""A day's volume beside those of the days before it: far outside their distribution, rows may be missing or doubled.

Volumes vary by factors, so their logarithms are compared: a day is unusual when it is further from the median of the
days before than five times their spread, told robustly, and at least by a factor of four. So half a day, or a holiday
nobody knew, passes; a day of which three quarters are missing does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

DAYS_MAX = 20
"""Days with rows that are looked back on: a month of trading."""
DAYS_MIN = 4
"""Fewer have no distribution."""
SPREADS_MAX = 5.0
"""Robust standard deviations of the logarithms."""
FACTOR_MIN = 4.0
"""Smaller factors are never unusual: an expiry trebles a volume."""
_SIGMAS_PER_MAD = 1.4826
"""Standard deviations of a normal distribution in its median absolute deviation."""


@dataclass(frozen=True)
class Usual:
    """The bounds of what is usual after some days, and their median."""

    low: float
    median: float
    high: float

    def holds(self, volume: float) -> bool:
        """Whether a volume lies within."""
        return self.low <= volume <= self.high


def usual(earlier: Sequence[float]) -> Usual | None:
    """What volume is usual, from those of earlier days, each above 0; None where they are too few to tell."""
    if len(earlier) < DAYS_MIN:
        return None
    logarithms = [math.log(volume) for volume in earlier]
    middle = median(logarithms)
    spread = _SIGMAS_PER_MAD * median(abs(one - middle) for one in logarithms)
    width = max(SPREADS_MAX * spread, math.log(FACTOR_MIN))
    return Usual(math.exp(middle - width), math.exp(middle), math.exp(middle + width))
