from __future__ import annotations

from datetime import timedelta

import pyarrow.compute as pc
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from k2_core.bars import MAX_CARRY_US, bars_of
from k2_core.refresh import spliced
from k2_core.windows import MINUTE_US, floor_us, from_us, to_us
from k2_tests.core.test_bars import basis_at, commits, prints, table_of


@settings(max_examples=25)
@given(prints(), commits, commits, st.data())
def test_a_refreshed_date_is_the_one_computed_anew(records, first, second, data):
    """Whatever came late, of whichever symbol: only minutes from the oldest new print on are computed."""
    day = records[0]["exchange_date"]
    own = [r for r in records if r["exchange_date"] == day]
    known = data.draw(st.integers(0, len(own) - 1))
    since = from_us(floor_us(min(to_us(r["timestamp"]) for r in own[known:]), MINUTE_US))
    assume(known)
    basis, rows = basis_at(second), table_of(own)
    stored = bars_of(table_of(own[:known]), basis_at(first))
    near = rows.filter(pc.greater_equal(rows["timestamp"], since - timedelta(microseconds=MAX_CARRY_US)))
    assert spliced(stored, bars_of(near, basis), since, basis) == bars_of(rows, basis)


@given(prints(), commits, commits)
@settings(max_examples=10)
def test_a_date_to_which_nothing_came_is_only_told_anew(records, first, second):
    day = records[0]["exchange_date"]
    rows = table_of([r for r in records if r["exchange_date"] == day])
    nothing, basis = bars_of(rows.slice(0, 0), basis_at(second)), basis_at(second)
    assert spliced(bars_of(rows, basis_at(first)), nothing, from_us(to_us(second) * 2), basis) == bars_of(rows, basis)
