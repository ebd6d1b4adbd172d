"""How fresh bars are. They are computed from the trades, so their newest window is that of the newest trade."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from k2_api.bar_shapes import OhlcvHealth, TimeframeHealth
from k2_api.pinning import Pinned
from k2_api.questions import Ticks
from k2_api.reads import Reads
from k2_core.exchange_dates import day_bounds
from k2_core.windows import TIMEFRAMES, floor_us, from_us, iso, to_us
from k2_resources.clock import now

THRESHOLD_MINUTES = {"1m": 10, "5m": 20, "30m": 60, "1h": 120, "1d": 1_500}
"""How old the newest window of each length may be, as on the original platform: it is old by its length at least."""
_FIELDS = ("symbol", "exchange", "timestamp", "exchange_date")


async def health_of(reads: Reads, pinned: Pinned, zones: Mapping[str, str]) -> OhlcvHealth:
    """The freshness of bars of each length the original platform has. zones: time zone by exchange."""
    newest = await reads.page(pinned, Ticks(limit=1, fields=_FIELDS), None)
    row = json.loads(newest.rows[0]) if newest.rows else None
    at = now()
    tables = {name: _health(name, row, zones, at) for name in THRESHOLD_MINUTES}
    healthy = sum(table.status == "healthy" for table in tables.values())
    overall = "healthy" if healthy == len(tables) else "degraded" if healthy else "unhealthy"
    return OhlcvHealth(overall_status=overall, tables=tables, timestamp=iso(at), checks_performed=len(tables))


def _health(name: str, row: Mapping[str, Any] | None, zones: Mapping[str, str], at: datetime) -> TimeframeHealth:
    threshold = THRESHOLD_MINUTES[name]
    if row is None:
        return TimeframeHealth(
            status="no_data",
            last_update=None,
            age_minutes=None,
            threshold_minutes=threshold,
            symbol=None,
            exchange=None,
        )
    began = _window_start(name, row, zones)
    age = (at - began) / timedelta(minutes=1)
    return TimeframeHealth(
        status="healthy" if age <= threshold else "stale",
        last_update=iso(began),
        age_minutes=round(age, 3),
        threshold_minutes=threshold,
        symbol=row["symbol"],
        exchange=row["exchange"],
    )


def _window_start(name: str, row: Mapping[str, Any], zones: Mapping[str, str]) -> datetime:
    width_us = TIMEFRAMES[name].width_us
    if width_us is None:
        day = date.fromisoformat(row["exchange_date"])
        return day_bounds(day, zones.get(row["exchange"], "UTC"))[0]
    return from_us(floor_us(to_us(datetime.fromisoformat(row["timestamp"]).astimezone(UTC)), width_us))
