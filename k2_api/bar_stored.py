"""Stored bars: which dates of them say the same as the trades of a C, and their rows."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa

from k2_api.bar_questions import BarsAsked
from k2_api.reads import Reads
from k2_core.bars import Hole
from k2_core.builds import Built, built_in
from k2_core.contracts import Table
from k2_core.derived_tables import BARS_1D, BARS_1M
from k2_core.errors import NotFound
from k2_core.windows import from_us
from k2_resources.duck import parquet_paths, statement
from k2_resources.lake.bar_facts import BarFacts
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived_reads import Rules


@dataclass(frozen=True)
class Shelf:
    """One table of bars at one look: how each date was built, and the files that hold it."""

    location: str = ""
    built: Mapping[date, Built] = field(default_factory=dict)
    paths: Mapping[date, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Shelves:
    """Both tables of bars, for one C of the trades. by: what a build must go by to be of use."""

    minutes: Shelf
    days: Shelf
    table_uuid: str
    sequence_number: int
    by: str


class StoredBars:
    """The tables of bars of one lake as readers see them. Safe to share between requests."""

    def __init__(self, reads: Reads, lake: Lake, rules: Rules) -> None:
        self._reads = reads
        self._rules = rules
        self._facts = BarFacts(lake)
        self._shelves = {table.name: Shelf() for table in (BARS_1M, BARS_1D)}

    async def shelves(self, table_uuid: str, sequence_number: int) -> Shelves | None:
        """What is stored now, for readers of one commit of trades; None where the audit tables are not there."""
        try:
            await asyncio.to_thread(self._facts.reach, table_uuid, sequence_number)
        except NotFound:
            return None
        minutes, days = [await self._look(table) for table in (BARS_1M, BARS_1D)]
        # what was built since the look at the trades may be of a commit the facts do not know yet
        newest = max((b.sequence_number for b in minutes.built.values()), default=0)
        await asyncio.to_thread(self._facts.reach, table_uuid, newest)
        return Shelves(minutes, days, table_uuid, sequence_number, self._rules.digest(table_uuid))

    def holds(self, shelves: Shelves, day: date, *, daily: bool) -> bool:
        """Whether the stored bars of a date are those of the C of the readers."""
        minutes = shelves.minutes.built.get(day)
        if minutes is None or minutes.by != shelves.by:
            return False
        if daily and not minutes.is_same(shelves.days.built.get(day)):
            return False
        return self._facts.is_unchanged(day, minutes.sequence_number, shelves.sequence_number)

    def holes(self, day: date, symbol: str, sequence_number: int) -> list[Hole]:
        """Holes in the ids of a symbol on a date, as seen by a commit."""
        return self._facts.holes(day, symbol, sequence_number)

    async def rows(self, shelf: Shelf, dates: Iterable[date], asked: BarsAsked, span: tuple[int, int]) -> pa.Table:
        """Stored bars of a symbol on some dates whose windows begin in [start, end), in µs."""
        schema = BARS_1M.arrow_schema()
        paths = parquet_paths(path for day in dates for path in shelf.paths.get(day, ()))
        if not paths:
            return schema.empty_table()
        start, end = map(from_us, span)
        values = {"symbol": asked.symbol, "exchange": asked.exchange, "start": start, "end": end}
        found = await self._reads.duck.query(statement("stored_bars"), {**values, "files": paths})
        return found.select(schema.names).cast(schema)

    async def _look(self, table: Table) -> Shelf:
        pinned, known = await self._reads.pin(table), self._shelves[table.name]
        if pinned.state is None or pinned.state.metadata_location == known.location:
            return known
        paths = defaultdict(list)
        for file in pinned.files:
            if file.exchange_date is not None:
                paths[file.exchange_date].append(file.path)
        found = Shelf(
            pinned.state.metadata_location,
            built_in(pinned.state.properties),
            {day: tuple(there) for day, there in paths.items()},
        )
        self._shelves[table.name] = found
        if table is BARS_1M:
            for day, built in found.built.items():
                self._facts.forget(day, built.sequence_number)
        return found
