"""Exchange-local trading dates: the table partition, and the day of everything K2 says about completeness."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from k2_core.scopes import dense
from k2_core.windows import DAY_US

FIRST_DATE = date(2010, 1, 1)
"""No feed of K2 reaches further back; an older date is a wrong unit or a wrong clock."""
EFFECTIVE_DATES = (date(1900, 1, 1), date(2100, 1, 1))
"""[first, end) of the dates from which a description may hold: companies were listed long before they were recorded."""
DAYS_AHEAD_MAX = 1
"""Sydney is a day ahead of UTC; anything later has not happened."""

_QUARTER_HOUR_US = 15 * 60 * 1_000_000
"""Every offset since 1990 changes on a quarter of an hour and is a multiple of it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PLAUSIBLE_US = (int(datetime(1990, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000, 4_102_444_800 * 1_000_000)
"""[1990, 2100) in µs: outside, calendars may not even hold the instant; such rows are clamped and then rejected."""


def exchange_days(timestamps_us: npt.NDArray[np.int64], timezone: str) -> npt.NDArray[np.int32]:
    """Local dates of instants, as days since 1970-01-01. timestamps_us: UTC, microseconds, shape (n,).

    Instants outside 1990 to 2100 come back as the nearest day inside.
    """
    return (local_times(timestamps_us, timezone) // DAY_US).astype(np.int32)


def local_times(timestamps_us: npt.NDArray[np.int64], timezone: str) -> npt.NDArray[np.int64]:
    """What a local clock shows at instants, in µs since 1970-01-01 00:00 of that clock.

    timestamps_us: UTC, microseconds, shape (n,); instants outside 1990 to 2100 are taken as the nearest one inside.
    """
    clamped = np.clip(timestamps_us, PLAUSIBLE_US[0], PLAUSIBLE_US[1] - 1)
    if timezone == "UTC":
        return clamped
    quarters, which = dense(clamped // _QUARTER_HOUR_US)
    zone = ZoneInfo(timezone)
    offsets = np.array([_offset_us(int(q) * _QUARTER_HOUR_US, zone) for q in quarters], np.int64)
    out: npt.NDArray[np.int64] = clamped + offsets[which]
    return out


def day_bounds(day: date, timezone: str) -> tuple[datetime, datetime]:
    """[start, end) of one local date, in UTC; 23 or 25 hours where the clocks change."""
    zone = ZoneInfo(timezone)
    start = datetime(day.year, day.month, day.day, tzinfo=zone)
    after = day + timedelta(days=1)
    return start.astimezone(UTC), datetime(after.year, after.month, after.day, tzinfo=zone).astimezone(UTC)


def plausible_days(today: date) -> tuple[int, int]:
    """[first, end) of the dates a row may have, as days since 1970-01-01. today: the UTC date of the commit."""
    epoch = date(1970, 1, 1)
    return (FIRST_DATE - epoch).days, (today - epoch).days + DAYS_AHEAD_MAX + 1


def _offset_us(instant_us: int, zone: ZoneInfo) -> int:
    offset = (_EPOCH + timedelta(microseconds=instant_us)).astimezone(zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds()) * 1_000_000
