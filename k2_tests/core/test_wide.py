from __future__ import annotations

import itertools
from decimal import Decimal

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from k2_core import wide
from k2_tests.core.bars_oracle import EXACT

small = st.integers(0, 2**60 - 1)
pairs = st.lists(st.tuples(small, small), min_size=1, max_size=30)
NOTIONAL = pa.decimal128(38, 16)


@given(pairs, st.data())
def test_sums_of_products_are_those_of_python(numbers, data):
    cuts = data.draw(st.sets(st.integers(0, len(numbers) - 1)))
    starts = sorted({0, *cuts})
    a, b = np.array(numbers, np.int64).T
    found = wide.integers(wide.summed(wide.products(a, b), np.array(starts)))
    bounds = [*starts, len(numbers)]
    assert found == [sum(x * y for x, y in numbers[i:j]) for i, j in itertools.pairwise(bounds)]


@given(st.lists(st.integers(0, 10**38 - 1), min_size=1), st.integers(0, 3))
def test_decimals_go_through_limbs_unchanged(units, offset):
    values = [Decimal(n).scaleb(-16, EXACT) for n in units]
    column = pa.chunked_array([pa.array([Decimal(1)] * offset + values, NOTIONAL).slice(offset)])
    limbs = wide.limbs_of_decimals(column)
    assert wide.integers(limbs) == units
    assert wide.decimals_of(limbs, NOTIONAL).to_pylist() == values


def test_a_sum_that_a_type_cannot_hold_is_null_and_a_null_counts_nothing():
    most = Decimal(10**38 - 1).scaleb(-16, EXACT)
    column = pa.chunked_array([pa.array([most, most, None, Decimal(1)], NOTIONAL)])
    total = wide.summed(wide.limbs_of_decimals(column), np.array([0, 1, 2]))
    assert wide.decimals_of(total, NOTIONAL).to_pylist() == [most, most, Decimal(1)]
    total = wide.summed(wide.limbs_of_decimals(column), np.array([0]))
    assert wide.decimals_of(total, NOTIONAL).to_pylist() == [None]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), min_size=1))
def test_ratios_are_rounded_half_to_even(numbers):
    values, absent = wide.ratios([n for n, _ in numbers], [d for _, d in numbers])
    expected = [None if not d else round(Decimal(n) / d) for n, d in numbers]
    assert [None if none else v for v, none in zip(values.tolist(), absent.tolist(), strict=True)] == expected
    some = [(n, d) for n, d in numbers if d]
    narrow = wide.narrow_ratios(np.array([n for n, _ in some], np.int64), np.array([d for _, d in some], np.int64))
    assert narrow.tolist() == [e for e in expected if e is not None]
