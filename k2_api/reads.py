"""Reads of the lake: pin one state, prune its files, ask DuckDB, hand back rows.

Every answer comes from one state of one table. Which revision of a message counts is decided first, over all files of
the symbols; only then are rows filtered, paged and aggregated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from k2_api.pinning import Pinned, Pinner
from k2_api.questions import HEAD, At, Ticks
from k2_api.ticks import Key, Part, TickRead
from k2_core.contracts import Table
from k2_core.errors import NotFound
from k2_core.projections import KEY, KEY_PREFIX, Shape
from k2_resources.duck import Duck, parquet_paths, statement
from k2_resources.lake.catalog import Lake, SnapshotEntry
from k2_resources.lake.pins import Pins
from k2_resources.lake.tags import tags

__all__ = ["Page", "Part", "Pinned", "Reads"]

SNAPSHOTS_MAX = 100_000
"""More than any table keeps."""


@dataclass(frozen=True)
class Page:
    """Rows as JSON texts in reading order, and the sort key of the last one when more follow."""

    rows: list[str]
    next_key: Key | None


@dataclass(frozen=True)
class Sheet:
    """The rows of a page in columns, and the sort key of the last one when more follow."""

    rows: pa.Table
    next_key: Key | None


class Reads:
    """All reads of the API. Safe to share between requests."""

    def __init__(self, lake: Lake, duck: Duck) -> None:
        self.lake = lake
        self.duck = duck
        self._pinner = Pinner(Pins(lake))
        self._symbols: dict[str, tuple[str, frozenset[str], frozenset[tuple[str, str]]]] = {}

    async def pin(self, table: Table, at: At = HEAD) -> Pinned:
        """Resolve a state, once per request. Raises Problem 404 for one that never was, 410 for one gone for good."""
        return await self._pinner.pin(table, at)

    def at_hand(self, table: Table, at: At = HEAD) -> Pinned | None:
        """The state without waiting, where it was resolved just now; None where it has to be looked up."""
        return self._pinner.at_hand(table, at)

    async def page(self, pinned: Pinned, ticks: Ticks, after: Key | None) -> Page:
        """The next rows of a question as JSON, its limit at most. after: the sort key of the last row seen."""
        rows, next_key = await self._next(pinned, ticks, after, "json", "")
        return Page(rows["json"].to_pylist() if rows is not None else [], next_key)

    async def sheet(self, pinned: Pinned, ticks: Ticks, after: Key | None, shape: Shape) -> Sheet:
        """The next rows of a question in columns, its limit at most; none at all where the state has no file."""
        rows, next_key = await self._next(pinned, ticks, after, shape, KEY_PREFIX)
        keys = [f"{KEY_PREFIX}{name}" for name in KEY]
        return Sheet(pa.table({}) if rows is None else rows.drop_columns(keys), next_key)

    def parts(self, pinned: Pinned, ticks: Ticks, shape: Shape, after: Key | None = None) -> Iterator[Part]:
        """Statements whose results, one after the other, are all rows of a question in reading order.

        The limit of the question is the caller's to keep. after: only rows past this sort key. JSON rows carry their
        keys; a state without files has no part.
        """
        return TickRead(pinned, ticks, after).parts(shape)

    async def count(self, pinned: Pinned, ticks: Ticks) -> int:
        """How many rows a question has in all."""
        part = TickRead(pinned, ticks).count()
        if not part.files:
            return 0
        return int((await self.duck.query(part.statement, part.values))["total"][0].as_py())

    def estimate(self, pinned: Pinned, ticks: Ticks) -> tuple[int, int, int]:
        """Rows, bytes and files that a question reads at most, from the plan alone."""
        return TickRead(pinned, ticks).estimate()

    async def _next(
        self, pinned: Pinned, ticks: Ticks, after: Key | None, shape: Shape, prefix: str
    ) -> tuple[pa.Table | None, Key | None]:
        """Rows up to the limit with their keys, and the key of the last when more follow."""
        assert ticks.limit is not None, "a page has an end"
        missing, chunks = ticks.limit + 1, []
        for part in TickRead(pinned, ticks, after).pages(shape):
            if part.files:
                rows = await self.duck.query(part.statement, {**part.values, "limit": missing})
                chunks.append(rows)
                missing -= rows.num_rows
            if missing <= 0:
                break
        if not chunks:
            return None, None
        found = pa.concat_tables(chunks)
        if len(found) <= ticks.limit:
            return found, None
        last = found.slice(ticks.limit - 1, 1).to_pylist()[0]
        return found.slice(0, ticks.limit), tuple(last[f"{prefix}{name}"] for name in KEY)

    async def symbols(self, pinned: Iterable[Pinned], exchange: str | None) -> list[str]:
        """Symbols of the given tables, sorted by code point."""
        found = [await self._symbols_in(p) for p in pinned]
        return sorted({s for pairs in found for e, s in pairs if exchange is None or e == exchange})

    async def listings(self, pinned: Pinned) -> frozenset[tuple[str, str]]:
        """Exchange and symbol of everything a table holds rows of."""
        return await self._symbols_in(pinned)

    async def snapshots(self, table: Table, limit: int) -> list[SnapshotEntry]:
        """The newest snapshots of a table, newest first; none for a table that does not exist."""
        try:
            return await asyncio.to_thread(self.lake.snapshots, table, limit)
        except NotFound:
            return []

    async def tags(self, table: Table) -> dict[str, int]:
        """The names of states of a table and the snapshots they stand for."""
        return {tag.name: tag.snapshot_id for tag in await asyncio.to_thread(tags, self.lake, table)}

    async def retained(self, table: Table) -> set[int]:
        """The snapshots a table still keeps."""
        return {entry.snapshot_id for entry in await self.snapshots(table, SNAPSHOTS_MAX)}

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
