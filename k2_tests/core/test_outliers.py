from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from k2_core.outliers import CEILING, DEVIATIONS_MAX, FLOOR, PRINTS_MIN, STEP, STEPS, WINDOW, outliers

UNIT = 10**8
CALM = st.lists(st.integers(9_990, 10_010), min_size=PRINTS_MIN, max_size=300)


def judged(*prices: float) -> list[bool]:
    found: list[bool] = outliers(np.array([round(p * UNIT) for p in prices], np.int64)).is_outlier.tolist()
    return found


@given(CALM, st.data())
def test_the_print_that_is_far_off_is_the_one_that_is_told(prices, data):
    at = data.draw(st.integers(0, len(prices) - 1))
    spoiled = [5_000 if i == at else price for i, price in enumerate(prices)]
    assert judged(*spoiled) == [i == at for i in range(len(prices))]


@given(CALM)
def test_agrees_with_the_plain_definition(prices):
    units = np.array(prices, np.int64) * UNIT
    width = min(WINDOW, len(units))
    steps = np.diff(np.unique(units))
    expected = []
    for at, price in enumerate(units.tolist()):
        start = min(max(at // STEP * STEP - (width - STEP) // 2, 0), len(units) - width)
        window = sorted(units[start : start + width].tolist())
        median = window[width // 2]
        deviation = sorted(abs(p - median) for p in window)[width // 2]
        coarse = STEPS * int(steps.min()) if len(steps) else 0
        floor = min(max(median // FLOOR, coarse), median // CEILING)
        expected.append(abs(price - median) > DEVIATIONS_MAX * deviation + floor)
    assert outliers(units).is_outlier.tolist() == expected


def test_ten_ticks_of_a_share_below_a_dollar_are_none_though_they_are_percents():
    assert not any(judged(*[0.67] * 30, *[0.685] * 4, 0.69, *[0.67] * 30))


def test_a_move_that_stays_is_no_outlier():
    assert not any(judged(*[100.0] * 100, *[120.0] * 100))


def test_of_too_few_prints_nothing_is_said():
    assert not any(judged(*[100.0] * (PRINTS_MIN - 2), 5000.0))
    assert judged() == []
