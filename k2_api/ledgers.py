"""Reads of the audit tables: gaps, closings, receipts, dead letters, dates. Nothing here writes.

Audit tables read no topic, so the version of an answer is that of their snapshot. They only grow.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import Any, TypeVar

from fastapi import Request

from k2_api.pinning import Pinned
from k2_api.reads import Reads
from k2_core.contracts import DAYS, GAPS, INGESTED, RECEIPTS, Table
from k2_core.day_tables import ALL_SYMBOLS
from k2_core.gap_ids import FILLED, GapId
from k2_core.gap_states import filled, history, unfilled
from k2_core.protocol.collected import collected_until
from k2_core.protocol.ports import Head
from k2_resources.duck import parquet_paths, statement

Made = TypeVar("Made")
Row = dict[str, Any]
"""One row of an audit table, by column name; null where the file is older than the column."""


@dataclass(frozen=True)
class LedgerState(Pinned):
    """An audit table as it was at one look."""

    @property
    def version(self) -> str:
        """Digest of the snapshot: what the table holds, whatever topic it is about."""
        at = (self.state.table_uuid, self.state.snapshot_id) if self.state else ("", None)
        return hashlib.sha256("{}:{}".format(*at).encode()).hexdigest()


@dataclass(frozen=True)
class GapLedger:
    """Every event about gaps, and how each gap stands. unfilled, filled: by feed, scope and first id."""

    at: LedgerState
    events: Sequence[Row]
    unfilled: Sequence[Row]
    filled: Sequence[Row]

    def of(self, state: str | None) -> list[Row]:
        """Gaps in one state; every hole there is now for None."""
        if state is None:
            return list(self.unfilled)
        return [gap for gap in (self.filled if state == FILLED else self.unfilled) if gap["state"] == state]

    def state_of(self, gap: GapId) -> str | None:
        """How one gap stands; None for ids that are no gap of their own."""
        named = str(gap)
        return next((g["state"] for g in (*self.unfilled, *self.filled) if g["gap_id"] == named), None)

    def history(self, gap: GapId) -> list[Row]:
        """What was seen and stated of one gap."""
        return [dict(event) for event in history(gap, self.events)]


class Ledgers:
    """All reads of the audit tables. Safe to share between requests."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._states: dict[str, tuple[Pinned, LedgerState]] = {}
        self._made: dict[str, tuple[tuple[str, ...], Any]] = {}

    async def pin(self, table: Table) -> LedgerState:
        """Resolve the head of an audit table once per request."""
        pinned, known = await self._reads.pin(table), self._states.get(table.name)
        if known is None or known[0] is not pinned:
            told = {field.name: getattr(pinned, field.name) for field in fields(pinned)}
            self._states[table.name] = known = (pinned, LedgerState(**told))
        return known[1]

    async def rows(self, at: Pinned, sql: str, values: Mapping[str, Any]) -> list[Row]:
        """Rows of one of k2_core/sql over the files of a table; none where nothing was ever committed."""
        if not at.files:
            return []
        found = await self._reads.duck.query(statement(sql), {**values, "files": paths_of(at)})
        return list(found.to_pylist())

    async def gaps(self) -> GapLedger:
        """The gap ledger now, worked out once per snapshot."""
        at = await self.pin(GAPS)

        async def made() -> GapLedger:
            names = [column.name for column in GAPS.columns]
            events = [{n: row.get(n) for n in names} for row in await self.rows(at, "ledger_rows", {})]
            return await asyncio.to_thread(_gap_ledger, at, events)

        return await self.once("gaps", (at,), made)

    async def once(self, name: str, states: tuple[Pinned, ...], make: Callable[[], Awaitable[Made]]) -> Made:
        """What follows from some states, made again only when one of them is another."""
        held, key = self._made.get(name), tuple(at.version for at in states)
        if held is None or held[0] != key:
            self._made[name] = held = (key, await make())
        made: Made = held[1]
        return made

    async def closings_of(
        self, at: LedgerState, exchange: str, symbol: str, day: date, feed: str | None
    ) -> dict[str, list[Row]]:
        """Everything that was said of one date of one symbol, by feed, each in order of its versions."""
        values = {"exchange": exchange, "symbol": symbol, "date": day, "feed": feed, "all_symbols": ALL_SYMBOLS}
        found: dict[str, list[Row]] = {}
        for row in await self.rows(at, "day_closings", values):
            found.setdefault(row["feed"], []).append(row)
        return found

    async def touched_dates(self, table: Table, feed: str) -> tuple[LedgerState, dict[date, Row]]:
        """Exchange dates of which commits stored rows of a feed: rows, and when a commit named it last."""
        at, state = await self.pin(RECEIPTS), await asyncio.to_thread(self._reads.lake.state, table)
        if state is None:
            return at, {}
        rows = await self.rows(at, "touched_dates", {"table": table.name, "uuid": state.table_uuid})
        return at, {row["exchange_date"]: row for row in rows if row["feed"] == feed}

    async def verdicts(self, feed: str, start: date, end: date) -> tuple[LedgerState, dict[date, list[Row]]]:
        """What was said last of the days of a feed, by exchange date; one row per verdict."""
        at = await self.pin(DAYS)
        found: dict[date, list[Row]] = {}
        for row in await self.rows(at, "day_verdicts", {"feed": feed, "date_start": start, "date_end": end}):
            found.setdefault(row["exchange_date"], []).append(row)
        return at, found

    def collected(self, audit: LedgerState) -> dict[str, list[Any]]:
        """How far an audit table is, per table it is collected from: names, identities and last sequence numbers."""
        found = [(audit.state, self._reads.lake.state(table), table) for table in INGESTED]
        heads = [
            (Head(audit.table, here.table_uuid, here.properties, None), Head(t, s.table_uuid, s.properties, None))
            for here, s, t in found
            if here is not None and s is not None
        ]
        return {
            "tables": [source.table.name for _, source in heads],
            "uuids": [source.table_uuid for _, source in heads],
            "untils": [collected_until(here, source) for here, source in heads],
        }


def ledgers(request: Request) -> Ledgers:
    """The ledgers of the app a request came to."""
    found: Ledgers = request.app.state.ledgers
    return found


def paths_of(*pinned: Pinned) -> list[str]:
    """The files of tables, as DuckDB takes them."""
    return parquet_paths(file.path for at in pinned for file in at.files)


def newest_first(gaps: Iterable[Row]) -> list[Row]:
    """Gaps by exchange date, then by name, newest first: the order of the list."""
    return sorted(gaps, key=gap_key, reverse=True)


def gap_key(gap: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Where a gap stands in the list."""
    return gap["exchange_date"].isoformat(), gap["feed"], gap["scope"], gap["session"], gap["first_id"]


def _gap_ledger(at: LedgerState, events: list[Row]) -> GapLedger:
    return GapLedger(at, events, unfilled(events), filled(events))
