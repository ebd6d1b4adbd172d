from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from k2_api.plans import Span, first_instants, holding, last_instants, within
from k2_core.windows import FIRST_US, LAST_US, to_us
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
