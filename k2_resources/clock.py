"""The only reader of wall time. What measures durations uses time.monotonic where it stands."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """Tell the time, in UTC."""
    return datetime.now(UTC)
