"""Reads of the lake: pin one snapshot, prune its files, ask DuckDB, hand back a page.

Every answer comes from one snapshot of one table. The newest revision of each message is decided first, over all
files of the symbol; only then are rows filtered, paged and aggregated.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Protocol

import pyarrow as pa
from cachetools import LRUCache, TTLCache

from k2_api.bars import Bar, bars_of, ordered
from k2_api.models import BarsQuestion, Question, QuotesQuestion, TradesQuestion
from k2_api.plans import Span, first_instants, holding, last_instants, within
from k2_api.problems import Problem
from k2_core.contracts import INGESTED, Table
from k2_core.errors import NotFound
from k2_core.offsets import Offsets
from k2_core.quality import Flag
from k2_core.windows import LAST_US, Timeframe, ceil_us, floor_us, from_us, strides
from k2_resources.duck import Duck, Statement, parquet_paths, statement
from k2_resources.lake.catalog import SnapshotEntry, TableState
from k2_resources.lake.files import DataFileEntry, Extent

SNAPSHOTS_KEPT = 64
"""Snapshots whose file lists stay in memory: more than the pages in flight pin at a time."""
FILES_SECONDS = 300.0
"""How long a file list is trusted: files that were rewritten go a while after that (K2_DELETION_GRACE_SECONDS)."""


class LakeView(Protocol):
    """What the API needs of the lake."""

    def state(self, table: Table, snapshot_id: int | None = None) -> TableState | None: ...
    def pointer(self, table: Table) -> str: ...
    def files(self, table: Table, snapshot_id: int) -> tuple[DataFileEntry, ...]: ...
    def extent(self, table: Table, snapshot_id: int) -> Extent: ...
    def snapshots(self, table: Table, limit: int) -> list[SnapshotEntry]: ...


@dataclass(frozen=True)
class Pinned:
    """One table at one snapshot. state: None while nothing was ever committed.

    below: the files hold later rows, too; only those below this C are of the snapshot.
    """

    table: Table
    state: TableState | None
    files: tuple[DataFileEntry, ...]
    below: Offsets | None = None

    @property
    def version(self) -> str:
        """Digest of C: what the answer contains, whatever the files look like."""
        return (self.state.offsets if self.state else Offsets()).version


@dataclass(frozen=True)
class Page:
    """Rows as JSON texts in reading order, and the sort key of the last one when more follow."""

    rows: list[str]
    next_key: tuple[int | str, ...] | None
    total: int | None = None


class Reads:
    """All reads of the API. Safe to share between requests."""

    def __init__(self, lake: LakeView, duck: Duck, zones: Mapping[str, str]) -> None:
        self.lake = lake
        self.duck = duck
        self._zones = zones
        self._heads: dict[str, TableState] = {}
        self._states: LRUCache[tuple[str, int], TableState | None] = LRUCache(SNAPSHOTS_KEPT)
        self._extents: TTLCache[tuple[str, int], Extent] = TTLCache(SNAPSHOTS_KEPT, FILES_SECONDS)
        self._symbols: dict[str, tuple[str, frozenset[str], frozenset[tuple[str, str]]]] = {}
        self._locks = {table.name: asyncio.Lock() for table in INGESTED}

    async def pin(self, table: Table, snapshot_id: int | None = None) -> Pinned:
        """Resolve the head, or an older snapshot, once per request. Raises Problem 410 for one that is gone."""
        async with self._locks[table.name]:  # one reader plans a new snapshot, the others find it planned
            state = await asyncio.to_thread(self._state, table, snapshot_id)
            if state is None or state.snapshot_id is None:
                return Pinned(table, state, ())
            key = (state.table_uuid, state.snapshot_id)
            extent = self._extents.get(key)
            if extent is None:
                self._extents[key] = extent = await asyncio.to_thread(self.lake.extent, table, state.snapshot_id)
            return Pinned(table, state, extent.files, extent.below)

    async def trades(self, pinned: Pinned, question: TradesQuestion, after: tuple[Any, ...] | None) -> Page:
        """One page of trades in total order."""
        excluded = Flag.VENDOR_EXCLUDED if question.view == "eligible" else Flag(0)
        return await self._ticks(pinned, question, after, excluded)

    async def quotes(self, pinned: Pinned, question: QuotesQuestion, after: tuple[Any, ...] | None) -> Page:
        """One page of quotes in total order."""
        return await self._ticks(pinned, question, after, Flag(0))

    async def bars(self, pinned: Pinned, question: BarsQuestion, after: Any, *, timeframe: Timeframe) -> Page:
        """One page of bars; each is computed from all prints of its window, wherever the page is cut."""
        excluded = Flag.VENDOR_EXCLUDED if question.view == "eligible" else Flag(0)
        bars: list[Bar] = []
        page: list[Bar] = []
        async for chunk in self._bar_chunks(pinned, question, timeframe, _Filter(question, excluded), after):
            bars += (bar for bar in chunk if _asks_for(question, bar))
            page = ordered(bars, descending=question.descending, after=after)
            if len(page) > question.limit and not question.count:
                break
        shown = page[: question.limit]
        texts = await asyncio.to_thread(_bar_texts, shown, question, timeframe)
        return Page(texts, shown[-1].key if len(page) > len(shown) else None, len(bars) if question.count else None)

    async def symbols(self, pinned: Iterable[Pinned], exchange: str | None) -> list[str]:
        """Symbols of the given tables, sorted by code point."""
        found = [await self._symbols_in(p) for p in pinned]
        return sorted({s for pairs in found for e, s in pairs if exchange is None or e == exchange})

    async def snapshots(self, table: Table, limit: int) -> list[SnapshotEntry]:
        """The newest snapshots of a table, newest first; none for a table that does not exist."""
        try:
            return await asyncio.to_thread(self.lake.snapshots, table, limit)
        except NotFound:
            return []

    def _state(self, table: Table, snapshot_id: int | None) -> TableState | None:
        try:
            if snapshot_id is not None:
                return self._older(table, snapshot_id)
            location = self.lake.pointer(table)
        except NotFound:
            if snapshot_id is None:
                return None
            raise Problem(410, "SNAPSHOT_EXPIRED", "the snapshot of this cursor is gone; start again") from None
        head = self._heads.get(table.name)
        if head is None or head.metadata_location != location:
            fresh = self.lake.state(table)
            if fresh is None:
                return None
            self._heads[table.name] = head = fresh
        return head

    def _older(self, table: Table, snapshot_id: int) -> TableState | None:
        if (table.name, snapshot_id) not in self._states:
            self._states[table.name, snapshot_id] = self.lake.state(table, snapshot_id)
        return self._states[table.name, snapshot_id]

    async def _ticks(self, pinned: Pinned, question: Any, after: tuple[Any, ...] | None, excluded: Flag) -> Page:
        asked = _Filter(question, excluded)
        source = _Source(holding(pinned.files, question.symbol), pinned.below)
        page = "newest_first" if question.descending else "oldest_first"
        shown = "as_numbers" if question.decimals == "number" else f"{pinned.table.short_name}_exact"
        sql = source.over(pinned.table.short_name, selected="selected", page=page, shown=shown)
        values = {**asked.values(), **_after(after), **source.values()}
        span = Span(question.start_us, question.end_us)
        chunks: list[pa.Table] = []
        missing = question.limit + 1
        for part in _walk(source.files, _beyond(span, after, question.descending), descending=question.descending):
            rows = await self._query(sql, within(source.files, part), part, {**values, "limit": missing})
            if rows is not None:
                chunks.append(rows)
                missing -= rows.num_rows
            if missing <= 0:
                break
        total = await self._count(source, asked, span) if question.count else None
        return _page(chunks, question.limit, total)

    async def _count(self, source: _Source, asked: _Filter, span: Span) -> int:
        sql = source.over("row_count", selected="selected")
        rows = await self._query(sql, within(source.files, span), span, {**asked.values(), **source.values()})
        return 0 if rows is None else int(rows["total"][0].as_py())

    async def _bar_chunks(
        self, pinned: Pinned, question: BarsQuestion, timeframe: Timeframe, asked: _Filter, after: Any
    ) -> AsyncIterator[list[Bar]]:
        source = _Source(holding(pinned.files, question.symbol), pinned.below)
        sql = source.over("bars", selected="selected")
        values = {
            **asked.values(),
            **source.values(),
            "daily": timeframe.width_us is None,
            "width_us": timeframe.width_us or 1,
        }
        for part in _bar_walk(source.files, question, timeframe, after):
            rows = await self._query(sql, within(source.files, part), part, values)
            if rows is not None:
                yield await asyncio.to_thread(bars_of, rows, timeframe, self._zones)

    async def _symbols_in(self, pinned: Pinned) -> frozenset[tuple[str, str]]:
        if pinned.state is None:
            return frozenset()
        uuid, seen, pairs = self._symbols.get(pinned.table.name, ("", frozenset(), frozenset()))
        paths = frozenset(f.path for f in pinned.files)
        if uuid != pinned.state.table_uuid or not seen <= paths:  # files went away: what they held is no longer known
            seen, pairs = frozenset(), frozenset()
        if fresh := parquet_paths(sorted(paths - seen)):
            rows = await self.duck.query(statement("symbols"), {"files": fresh})
            pairs |= frozenset(zip(rows["exchange"].to_pylist(), rows["symbol"].to_pylist(), strict=True))
        self._symbols[pinned.table.name] = (pinned.state.table_uuid, paths, pairs)
        return pairs

    async def _query(
        self, sql: Statement, files: tuple[DataFileEntry, ...], span: Span, values: Mapping[str, Any]
    ) -> pa.Table | None:
        if not files:
            return None
        bound = {
            **values,
            "files": parquet_paths(f.path for f in files),
            "start": from_us(span.start_us),
            "end": from_us(span.end_us),
            "date_start": span.date_start,
            "date_end": span.date_end,
        }
        return await self.duck.query(sql, bound)


@dataclass(frozen=True)
class _Filter:
    """Which rows a question is about, apart from time."""

    question: Question
    excluded: Flag

    def values(self) -> dict[str, Any]:
        symbol = getattr(self.question, "symbol", None)
        return {"symbol": symbol, "exchange": self.question.exchange, "excluded_flags": int(self.excluded)}


@dataclass(frozen=True)
class _Source:
    """What a question reads: the files that may hold its symbol, and the C their rows must be below, if any."""

    files: tuple[DataFileEntry, ...]
    below: Offsets | None

    def over(self, body: str, **steps: str) -> Statement:
        """A statement over the newest revisions; only files that hold a correction make it look for one."""
        rows = "newest_rows" if any(f.revised for f in self.files) else "rows"
        if self.below is None:
            return statement(body, rows=rows, **steps)
        return statement(body, below="below", rows=f"{rows}_below", **steps)

    def values(self) -> dict[str, Any]:
        positions = sorted(self.below.positions.items()) if self.below else []
        return {
            "corrected_files": parquet_paths(f.path for f in self.files if f.revised),
            "topics": [topic for (topic, _), _ in positions],
            "kafka_partitions": [partition for (_, partition), _ in positions],
            "epochs": [at.epoch for _, at in positions],
            "nexts": [at.next for _, at in positions],
        }


def _after(key: tuple[Any, ...] | None) -> dict[str, Any]:
    at_us, source, platform, message_id = key or (None, None, None, None)
    return {"after_us": at_us, "after_source": source, "after_platform": platform, "after_id": message_id}


def _beyond(span: Span, after: tuple[Any, ...] | None, descending: bool) -> Span:
    if after is None:
        return span
    return replace(span, end_us=after[0] + 1) if descending else replace(span, start_us=after[0])


def _walk(files: tuple[DataFileEntry, ...], span: Span, *, descending: bool, width_us: int = 1) -> Iterable[Span]:
    """Disjoint parts of a span in reading order, cut between exchange dates and never inside a window of width_us."""
    near = within(files, span)
    if descending:
        edges = [floor_us(edge, width_us) for edge in first_instants(near)]
    else:
        edges = [ceil_us(edge, width_us) for edge in last_instants(near)]
    return (span.between(a, b) for a, b in strides(edges, span.start_us, span.end_us, descending=descending))


def _bar_walk(
    files: tuple[DataFileEntry, ...], question: BarsQuestion, timeframe: Timeframe, after: Any
) -> Iterable[Span]:
    resume = None if after is None or question.count else after[0]
    if timeframe.width_us is None:
        return _day_walk(files, question, resume)
    start, end = (ceil_us(us, timeframe.width_us) for us in (question.start_us, question.end_us))
    if resume is not None and question.descending:
        end = min(end, resume + timeframe.width_us)
    elif resume is not None:
        start = max(start, resume)
    span = Span(start, min(end, LAST_US))
    if span.start_us >= span.end_us:
        return ()
    return _walk(files, span, descending=question.descending, width_us=timeframe.width_us)


def _day_walk(files: tuple[DataFileEntry, ...], question: BarsQuestion, resume: int | None) -> Iterable[Span]:
    """Parts by exchange date. A local day begins at most a day from the UTC day of its date, whatever the zone."""
    first, last = date.min.toordinal(), date.max.toordinal()
    low = max(from_us(question.start_us).toordinal() - 1, first)
    high = min(from_us(question.end_us).toordinal() + 2, last)
    if resume is not None:
        day = from_us(resume).toordinal()
        low, high = (low, min(high, day + 1)) if question.descending else (max(low, day), high)
    dates = {f.exchange_date.toordinal() for f in files if f.exchange_date is not None}
    edges = dates if question.descending else {day + 1 for day in dates}
    return (Span().dates(a, b) for a, b in strides(edges, low, high, descending=question.descending))


def _page(chunks: list[pa.Table], limit: int, total: int | None) -> Page:
    texts = list(itertools.chain.from_iterable(chunk["json"].to_pylist() for chunk in chunks))
    if len(texts) <= limit:
        return Page(texts, None, total)
    rows = pa.concat_tables(chunks).slice(limit - 1, 1).to_pylist()[0]
    key = (rows["at_us"], rows["source_order"], rows["platform_order"], rows["message_id"])
    return Page(texts[:limit], key, total)


def _asks_for(question: BarsQuestion, bar: Bar) -> bool:
    return question.start_us <= bar.key[1] < question.end_us


def _bar_texts(page: list[Bar], question: BarsQuestion, timeframe: Timeframe) -> list[str]:
    return [b.json(question.symbol, timeframe.name, numbers=question.decimals == "number") for b in page]
