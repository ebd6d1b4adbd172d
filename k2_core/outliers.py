"""Prints whose price is far from those around them: told, never removed.

A print is an outlier when it lies further from the median of the fifty prints around it than ten times their median
absolute deviation (the rule of the R package `highfrequency`) plus a floor. The deviation alone would not do: where
fifty prints in a row have one price it is zero, and one tick would be an outlier. The floor is half a percent, or ten
of the smallest steps between the day's prices where those are larger, as they are below a dollar; at most five percent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Prices = npt.NDArray[np.int64]
"""Prices in units of 1e-8."""

WINDOW = 50
"""Prints that a median is taken of; fewer, and a burst of wrong ones would be the median."""
STEP = 10
"""Prints in the middle of a window that are measured by it: a window a print would cost ten times as much."""
DEVIATIONS_MAX = 10
"""Median absolute deviations: of normal prices one in a hundred billion is further away."""
FLOOR = 200
"""One part in so many of the median: half a percent, beyond the spread of what is traded in earnest."""
STEPS = 10
"""Smallest steps between prices: a tick of half a cent at 60 cents is more than half a percent."""
CEILING = 20
"""The steps count for no more than one part in so many of the median: of two prices in a day one may be the outlier."""
PRINTS_MIN = 20
"""Of fewer prints there is no distribution to be outside of."""
_WINDOWS_AT_ONCE = 20_000
"""Windows in memory: 16 MB with their deviations."""


@dataclass(frozen=True)
class Outliers:
    """Per print, in the order given: whether it is one, the median around it, and how far from that it may be."""

    is_outlier: npt.NDArray[np.bool_]
    median: Prices
    limit: Prices


def outliers(prices: Prices) -> Outliers:
    """Judge the prints of one symbol and date. prices: shape (n,), in total order."""
    count = len(prices)
    if count < PRINTS_MIN:
        return Outliers(np.zeros(count, bool), prices, np.zeros(count, np.int64))
    width = min(WINDOW, count)
    middles = np.arange(0, count, STEP)
    starts = np.clip(middles - (width - STEP) // 2, 0, count - width)
    medians, deviations = np.empty((2, len(starts)), np.int64)
    for at in range(0, len(starts), _WINDOWS_AT_ONCE):
        some = slice(at, at + _WINDOWS_AT_ONCE)
        windows = np.lib.stride_tricks.sliding_window_view(prices, width)[starts[some]]
        medians[some] = _medians(windows)
        deviations[some] = _medians(np.abs(windows - medians[some, None]))
    which = np.arange(count) // STEP
    median, limit = medians[which], (DEVIATIONS_MAX * deviations + _floor(prices, medians))[which]
    return Outliers(np.abs(prices - median) > limit, median, limit)


def _floor(prices: Prices, medians: Prices) -> Prices:
    steps = np.diff(np.unique(prices))
    coarse = STEPS * int(steps.min()) if len(steps) else 0
    out: Prices = np.clip(coarse, medians // FLOOR, medians // CEILING)
    return out


def _medians(windows: Prices) -> Prices:
    """The median of each row; of an even number the upper one, so that it is a price."""
    middle = windows.shape[1] // 2
    out: Prices = np.partition(windows, middle, axis=1)[:, middle]
    return out
