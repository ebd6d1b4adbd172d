"""Windows of bars: which window an instant lies in, where a window ends, and the exact average price inside one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND_US = 1_000_000
MINUTE_US = 60_000_000
DAY_US = 86_400 * 1_000_000

FIRST_US = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
"""Earliest instant a calendar holds: the start of a range without one. It lies on a boundary of every timeframe."""
LAST_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
"""Latest instant a calendar holds: the end of a range without one."""


@dataclass(frozen=True)
class Timeframe:
    """A length of bars. width_us: None for the exchange-local trading day, which has 23 or 25 hours at times.

    is_regular: only of what printed while the exchange traded.
    """

    name: str
    width_us: int | None
    is_regular: bool = False


TIMEFRAMES = {
    name: Timeframe(name, width)
    for name, width in {
        "1m": MINUTE_US,
        "5m": 5 * MINUTE_US,
        "15m": 15 * MINUTE_US,
        "30m": 30 * MINUTE_US,
        "1h": 60 * MINUTE_US,
        "1d": None,
    }.items()
}

INTERVALS = {
    **{f"{n}s": Timeframe(f"{n}s", n * SECOND_US) for n in (1, 5, 10, 15, 30)},
    **{f"{n}m": Timeframe(f"{n}m", n * MINUTE_US) for n in (1, 2, 3, 5, 10, 15, 30)},
    **{f"{n}h": Timeframe(f"{n}h", n * 60 * MINUTE_US) for n in (1, 2, 4, 6, 8, 12)},
    "1d": TIMEFRAMES["1d"],
    "session": Timeframe("session", None, is_regular=True),
}
"""Every length a reader may ask for, the shortest first: each divides a day."""


def to_us(instant: datetime) -> int:
    """Microseconds since the epoch of an instant with a zone, exactly."""
    return (instant - EPOCH) // timedelta(microseconds=1)


def from_us(instant_us: int) -> datetime:
    """The instant at so many microseconds since the epoch, in UTC. Raises OverflowError outside the years 1 to 9999."""
    return EPOCH + timedelta(microseconds=instant_us)


def iso(instant: datetime) -> str:
    """ISO 8601 in UTC with `Z` and always six digits."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def floor_us(instant_us: int, width_us: int) -> int:
    """Start of the window an instant lies in; windows are aligned to the UTC epoch."""
    return instant_us - instant_us % width_us


def ceil_us(instant_us: int, width_us: int) -> int:
    """First window start at or after an instant."""
    return -floor_us(-instant_us, width_us)


def strides(edges: Iterable[int], low: int, high: int, *, descending: bool) -> Iterator[tuple[int, int]]:
    """Cut [low, high) into disjoint intervals in reading order, each over about twice as many edges as the last.

    A reader that wants the first N rows stops as soon as it has them; one that finds none pays for a logarithm of
    the edges. Edges outside (low, high) are ignored; the intervals always cover all of [low, high).
    """
    inner = sorted({edge for edge in edges if low < edge < high}, reverse=descending)
    cuts = [inner[i] for i in _doubling(len(inner))]
    bounds = [high, *cuts, low] if descending else [low, *cuts, high]
    for a, b in itertools.pairwise(bounds):
        if a != b:
            yield (b, a) if descending else (a, b)


def vwap(notional_e16: int, quantity_e8: int) -> str | None:
    """Volume-weighted average price with 8 decimals, rounded half to even; None when nothing traded.

    notional_e16: sum of price x quantity in units of 1e-16. quantity_e8: sum of quantities in units of 1e-8.
    """
    if quantity_e8 == 0:
        return None
    price_e8, rest = divmod(notional_e16, quantity_e8)
    if 2 * rest > quantity_e8 or (2 * rest == quantity_e8 and price_e8 % 2):
        price_e8 += 1
    return f"{price_e8 // 10**8}.{price_e8 % 10**8:08d}"


def _doubling(count: int) -> Iterator[int]:
    index = 0
    while index < count:
        yield index
        index = 2 * index + 1
