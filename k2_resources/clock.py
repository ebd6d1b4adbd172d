"""The only reader of wall time. What measures durations uses time.monotonic where it stands."""

from __future__ import annotations

from datetime import UTC, datetime

from k2_core.windows import to_us


def now() -> datetime:
    """Tell the time, in UTC."""
    return datetime.now(UTC)


def now_us() -> int:
    """Tell the time in µs since 1970."""
    return to_us(now())
