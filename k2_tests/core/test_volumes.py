from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.volumes import DAYS_MIN, FACTOR_MIN, usual

VOLUMES = st.lists(st.floats(0.001, 1e12), min_size=DAYS_MIN, max_size=20)


@given(VOLUMES, st.floats(0.001, 1e6))
def test_what_is_usual_does_not_depend_on_the_unit(volumes, unit):
    bounds, scaled = usual(volumes), usual([v * unit for v in volumes])
    assert bounds is not None and scaled is not None
    assert scaled.low / unit == pytest.approx(bounds.low, rel=1e-6)
    assert scaled.high / unit == pytest.approx(bounds.high, rel=1e-6)


@given(VOLUMES)
def test_the_median_day_is_usual_and_so_is_a_factor_below_the_least(volumes):
    bounds = usual(volumes)
    assert bounds is not None
    assert bounds.holds(bounds.median)
    assert bounds.low <= bounds.median / FACTOR_MIN * 1.000001
    assert bounds.high >= bounds.median * FACTOR_MIN * 0.999999


def test_a_day_of_which_most_is_missing_is_not_usual_and_half_a_day_is():
    bounds = usual([100.0, 110.0, 95.0, 105.0, 90.0])
    assert bounds is not None
    assert (bounds.holds(50), bounds.holds(20), bounds.holds(0), bounds.holds(500)) == (True, False, False, False)


def test_a_few_days_have_no_distribution():
    assert usual([100.0] * (DAYS_MIN - 1)) is None
