"""How far an exchange was heard on a date that is not over: what tells whether a window may still change."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date, datetime

from cachetools import LRUCache

from k2_api.pinning import Pinned
from k2_api.questions import Ticks
from k2_api.reads import Reads
from k2_core.bars import GRACE_US, Basis
from k2_core.exchange_dates import day_bounds
from k2_core.windows import MINUTE_US, to_us

_KEPT = 1_024
"""Answers kept, by C: of the few dates that are open, at the newest few hundred commits."""
_NEAR_US = 5 * MINUTE_US
"""Behind the newest row of a date: what its exchange printed last is nearly always in there."""


class Hearing:
    """What exchanges were heard of the trades. Safe to share between requests."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._heard: LRUCache[tuple[str, str, date], int] = LRUCache(_KEPT)

    async def of(
        self, pinned: Pinned, basis: Basis, exchanges: Iterable[str], dates: Iterable[date]
    ) -> dict[tuple[str, date], int]:
        """Newest event time, in µs, by exchange and date, of those dates that are not long over."""
        days, commit_us, heard = list(dates), to_us(basis.commit_time), {}
        for exchange in exchanges:
            for day in days:
                start, end = day_bounds(day, basis.zones.get(exchange, "UTC"))
                if to_us(end) + GRACE_US > commit_us:
                    heard[exchange, day] = await self._newest(pinned, exchange, day, (to_us(start), to_us(end)))
        return heard

    async def _newest(self, pinned: Pinned, exchange: str, day: date, span: tuple[int, int]) -> int:
        """Newest event time of an exchange on a date, which is [start, end); its start where nothing printed."""
        key = (pinned.version, exchange, day)
        if (known := self._heard.get(key)) is not None:
            return known
        newest = [f.timestamp_max for f in pinned.files if f.exchange_date == day and f.timestamp_max is not None]
        near_us = max(to_us(max(newest)) - _NEAR_US, span[0]) if newest else span[0]
        found = span[0]
        for since_us in dict.fromkeys((near_us, span[0])):
            ticks = Ticks(exchanges=(exchange,), start_us=since_us, end_us=span[1], limit=1, fields=("timestamp",))
            page = await self._reads.page(pinned, ticks, None)
            if page.rows:
                found = to_us(datetime.fromisoformat(json.loads(page.rows[0])["timestamp"]))
                break
        self._heard[key] = found
        return found
