from __future__ import annotations

import itertools
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_api.parts import parts_of
from k2_api.plans import Plan, Span, first_instants, holding, holding_any, last_instants, within
from k2_core.windows import FIRST_US, LAST_US, from_us, to_us
from k2_resources.lake.files import DataFileEntry

DAY = date(2024, 8, 8)
LOW, HIGH = datetime(2024, 8, 8, 10, tzinfo=UTC), datetime(2024, 8, 8, 11, tzinfo=UTC)


def entry(**changes: Any) -> DataFileEntry:
    bounds = {"timestamp_min": LOW, "timestamp_max": HIGH, "symbol_min": "B", "symbol_max": "D", "exchange_date": DAY}
    return DataFileEntry(**{"path": "f", "rows": 1, "size_bytes": 1, "revised": False, **bounds, **changes})


@pytest.mark.parametrize(
    ("symbol", "kept"), [("A", False), ("B", True), ("C", True), ("D", True), ("DA", False), (None, True)]
)
def test_a_file_is_needed_when_its_symbols_may_include_the_asked(symbol: str | None, kept: bool) -> None:
    assert bool(holding([entry()], symbol)) is kept


@pytest.mark.parametrize(
    ("start_us", "end_us", "kept"),
    [(0, 0, False), (0, 1, True), (3_600_000_000, 9_000_000_000, True), (3_600_000_001, 9_000_000_000, False)],
)
def test_a_file_is_needed_when_its_times_touch_the_half_open_range(start_us: int, end_us: int, kept: bool) -> None:
    low = to_us(LOW)
    assert bool(within([entry()], Span(low + start_us, low + end_us))) is kept


@pytest.mark.parametrize(("first", "end", "kept"), [(8, 9, True), (7, 8, False), (9, 10, False)])
def test_a_file_is_needed_when_its_date_is_asked_for(first: int, end: int, kept: bool) -> None:
    span = Span().dates(date(2024, 8, first).toordinal(), date(2024, 8, end).toordinal())
    assert bool(within([entry()], span)) is kept


def test_a_file_without_bounds_is_always_needed() -> None:
    unknown = entry(timestamp_min=None, timestamp_max=None, symbol_min=None, symbol_max=None, exchange_date=None)
    assert holding([unknown], "Z") == (unknown,)
    assert within([unknown], Span(0, 1)) == (unknown,)
    assert (first_instants([unknown]), last_instants([unknown])) == ([FIRST_US], [LAST_US])


def test_a_walk_may_pause_once_per_exchange_date() -> None:
    later = entry(timestamp_min=HIGH, timestamp_max=datetime(2024, 8, 8, 12, tzinfo=UTC))
    files = [later, entry(), entry(exchange_date=date(2024, 8, 9), timestamp_min=HIGH)]
    assert sorted(first_instants(files)) == [to_us(LOW), to_us(HIGH)]
    assert max(last_instants(files)) == to_us(datetime(2024, 8, 8, 12, tzinfo=UTC)) + 1


@pytest.mark.parametrize(("symbols", "kept"), [((), True), (("A", "C"), True), (("A", "E"), False), (("D",), True)])
def test_a_file_is_needed_when_it_may_hold_any_of_the_asked(symbols: tuple[str, ...], kept: bool) -> None:
    plan = Plan((entry(),))
    assert bool(plan.holding(symbols)) is kept
    assert plan.holding(symbols) == holding_any([entry()], symbols), "asked again it says the same"


FILES = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(0, 10**8), st.integers(1, 10**6), st.booleans()).map(
        lambda f: entry(
            timestamp_min=from_us(f[0]) if f[3] else None,
            timestamp_max=from_us(f[0] + f[1]) if f[3] else None,
            rows=f[2],
        )
    ),
    max_size=8,
)


@settings(deadline=None)
@given(FILES, st.integers(0, 10**9), st.integers(1, 10**9), st.integers(1, 10**6), st.booleans())
def test_the_parts_of_a_span_cover_it_once_in_reading_order(
    files: list[DataFileEntry], start_us: int, width_us: int, rows: int, descending: bool
) -> None:
    span = Span(start_us, start_us + width_us)
    parts = list(parts_of(files, span, descending=descending, rows=rows))
    ordered = parts[::-1] if descending else parts
    assert [ordered[0].start_us, ordered[-1].end_us] == [span.start_us, span.end_us]
    assert all(a.end_us == b.start_us for a, b in itertools.pairwise(ordered))
    assert len(parts) <= 2 + sum(f.rows for f in files) // rows


def test_a_span_without_bounds_is_cut_where_its_rows_are() -> None:
    files = [
        entry(rows=1_000),
        entry(rows=1_000, timestamp_min=HIGH, timestamp_max=datetime(2024, 8, 8, 12, tzinfo=UTC)),
    ]
    parts = list(parts_of(files, Span(), descending=False, rows=500))
    assert 4 <= len(parts) <= 5
    assert all(LOW <= from_us(part.end_us) <= datetime(2024, 8, 8, 12, tzinfo=UTC) for part in parts[:-1])
