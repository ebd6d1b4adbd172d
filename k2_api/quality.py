"""How good the rows of an answer are, told in headers: what is known to be missing may change while the rows do not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from fastapi import Request, Response

from k2_api.ledgers import GapLedger, Ledgers, Row
from k2_api.questions import Ticks
from k2_core.contracts import Table
from k2_core.errors import K2Error
from k2_core.exchange_dates import day_bounds
from k2_core.feeds import Feed
from k2_core.gap_states import is_settled
from k2_core.windows import to_us

STALE_SECONDS = 1.0
"""How old what is told may be; an answer does not wait for a newer look."""
_UNKNOWN = {"K2-Quality": "unknown"}


@dataclass(frozen=True)
class Hole:
    """An open gap, and the time [start, end) in µs of the exchange date on which it was seen."""

    exchange: str
    symbol: str
    start_us: int
    end_us: int


class Quality:
    """Tells of open gaps inside what was asked. Safe to share between requests of one event loop."""

    def __init__(self, ledgers: Ledgers, feeds: Iterable[Feed]) -> None:
        self._ledgers = ledgers
        self._feeds = {feed.name: feed for feed in feeds}
        self._holes: Mapping[str, Mapping[str, Sequence[Hole]]] | None = None
        self._ledger: GapLedger | None = None
        self._looked = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def headers(self, table: Table, ticks: Ticks) -> dict[str, str]:
        """K2-Gaps and K2-Quality of a question: open gaps on dates it touches; unknown where the ledger cannot be read.

        available: none is open. degraded: ids are missing that nobody has explained or accepted.
        """
        if time.monotonic() - self._looked > STALE_SECONDS and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look())
        if self._holes is None and self._looking is not None:
            await asyncio.shield(self._looking)
        if self._holes is None:
            return _UNKNOWN
        by_symbol = self._holes.get(table.name, {})
        asked = [by_symbol.get(symbol, ()) for symbol in ticks.symbols] if ticks.symbols else by_symbol.values()
        count = sum(_touches(ticks, hole) for some in asked for hole in some)
        return {"K2-Gaps": str(count), "K2-Quality": "degraded" if count else "available"}

    async def _look(self) -> None:
        try:
            ledger = await self._ledgers.gaps()
        except K2Error:  # rows can be served while the ledger cannot be read
            self._holes = self._ledger = None
        else:
            if ledger is not self._ledger:
                self._holes, self._ledger = self._by_table(ledger.unfilled), ledger
        self._looked = time.monotonic()

    def _by_table(self, gaps: Iterable[Row]) -> dict[str, dict[str, list[Hole]]]:
        found: dict[str, dict[str, list[Hole]]] = {}
        for gap in gaps:
            feed = self._feeds.get(gap["feed"])
            if feed is not None and not is_settled(gap):
                bounds = _bounds(gap["exchange_date"], feed.timezone)
                hole = Hole(gap["exchange"], gap["scope"], *bounds)
                found.setdefault(feed.table.name, {}).setdefault(hole.symbol, []).append(hole)
        return found


async def with_quality(request: Request, answer: Response, table: Table, ticks: Ticks) -> Response:
    """The same answer, with headers that say what is known to be missing of what was asked for."""
    quality: Quality = request.app.state.quality
    answer.headers.update(await quality.headers(table, ticks))
    return answer


def _touches(ticks: Ticks, hole: Hole) -> bool:
    if ticks.exchanges and hole.exchange not in ticks.exchanges:
        return False
    return ticks.start_us < hole.end_us and hole.start_us < ticks.end_us


@lru_cache(maxsize=4_096)
def _bounds(day: date, timezone: str) -> tuple[int, int]:
    start, end = day_bounds(day, timezone)
    return to_us(start), to_us(end)
