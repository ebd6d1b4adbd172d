from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from hypothesis import given
from hypothesis import strategies as st

from k2_core.windows import (
    EPOCH,
    FIRST_US,
    LAST_US,
    TIMEFRAMES,
    ceil_us,
    floor_us,
    from_us,
    iso,
    strides,
    to_us,
    vwap,
)

INSTANTS = st.datetimes(timezones=st.just(UTC))
WIDTHS = st.sampled_from([t.width_us for t in TIMEFRAMES.values() if t.width_us])


@given(INSTANTS)
def test_an_instant_survives_the_way_to_microseconds_and_back(instant: datetime) -> None:
    assert from_us(to_us(instant)) == instant
    assert datetime.fromisoformat(iso(instant)) == instant
    assert FIRST_US <= to_us(instant) <= LAST_US


@given(INSTANTS, WIDTHS)
def test_every_instant_lies_in_the_window_that_starts_at_its_floor(instant: datetime, width: int) -> None:
    at = to_us(instant)
    low, high = floor_us(at, width), ceil_us(at, width)
    assert low <= at < low + width
    assert low % width == high % width == 0
    assert high == (low if low == at else low + width)


def test_a_range_without_a_start_begins_on_a_boundary() -> None:
    assert all(FIRST_US % t.width_us == 0 for t in TIMEFRAMES.values() if t.width_us)


@given(st.lists(st.integers(-50, 150)), st.integers(0, 50), st.integers(51, 100), st.booleans())
def test_strides_cover_the_range_once_in_reading_order(edges: list[int], low: int, high: int, descending: bool) -> None:
    parts = list(strides(edges, low, high, descending=descending))
    covered = [n for a, b in parts for n in (range(b - 1, a - 1, -1) if descending else range(a, b))]
    assert covered == (list(range(high - 1, low - 1, -1)) if descending else list(range(low, high)))
    assert {edge for part in parts for edge in part} <= {low, high, *edges}


def test_a_walk_over_many_days_takes_few_strides() -> None:
    assert len(list(strides(range(5_000), -1, 5_000, descending=True))) <= 15


@given(
    st.lists(
        st.tuples(*[st.integers(1, 10**18 - 1)] * 2),
        min_size=1,
        max_size=30,
    )
)
def test_the_average_price_equals_exact_decimal_arithmetic(prints: list[tuple[int, int]]) -> None:
    with localcontext(prec=200):
        notional = sum(Decimal(p).scaleb(-8) * Decimal(q).scaleb(-8) for p, q in prints)
        volume = sum(Decimal(q).scaleb(-8) for _, q in prints)
        expected = (notional / volume).quantize(Decimal("1e-8"), ROUND_HALF_EVEN)
    assert vwap(sum(p * q for p, q in prints), sum(q for _, q in prints)) == f"{expected:.8f}"


def test_without_volume_there_is_no_average() -> None:
    assert vwap(0, 0) is None


def test_windows_are_aligned_to_the_epoch() -> None:
    assert floor_us(to_us(EPOCH + timedelta(minutes=7)), 5 * 60_000_000) == 5 * 60_000_000
