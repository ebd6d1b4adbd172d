"""Derived tables: the bars of a date, stored by replacing the whole date at once.

One overwrite snapshot a date, fenced on `k2.built.<exchange_date>`: readers see the date before or after, and of two
who build it at once only one does. What a build goes by and when it is due is core's (`builds`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table as IcebergTable

from k2_core.bars import MAX_CARRY_US, Basis, bars_of
from k2_core.builds import Built, Due, Touch, built_in, built_key, due
from k2_core.contracts import RECEIPTS, TRADES, Table
from k2_core.derived_tables import BARS, BARS_1D, BARS_1M
from k2_core.errors import FencedOut, NotFound
from k2_core.keys import CONTRACT_KEY, SWEPT_KEY, collected_key
from k2_core.protocol.collected import collected_until
from k2_core.protocol.ports import Head, Outpaced
from k2_core.protocol.retain import trim
from k2_core.refresh import spliced
from k2_core.rollups import rolled_up
from k2_core.windows import TIMEFRAMES
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived_reads import (
    Rules,
    Source,
    day_bars,
    holes_of,
    on,
    source_of,
    stored_on,
    trades_of,
    unchanged_before,
)
from k2_resources.lake.durable import delete
from k2_resources.lake.fence import Fence
from k2_resources.lake.history import copied_offsets
from k2_resources.lake.layout import data_file
from k2_resources.lake.ledger import IcebergLedger, transact
from k2_resources.lake.receipts import ordered_snapshots, summary_of
from k2_resources.lake.scans import receipt_rows
from k2_resources.lake.staging import write_data

BUILD_SUMMARY = "k2.build"
"""Summary entry of a snapshot that replaced a date: what runs report."""
ROWS_MAX = 5_000_000
"""Trades that the dates of one run hold: some ten seconds, so that the open date is never left for long."""
ATTEMPTS_MAX = 5
"""Builds of a date lost in a row to others, who built the same."""


@dataclass(frozen=True)
class Build:
    """One date of one table as it was built. facts: what is told of it, as the summary of its snapshot has it.

    snapshot_id: None where there was nothing to store.
    """

    table: Table
    exchange_date: date
    snapshot_id: int | None
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class _Change:
    """What replaces a date. is_worth: storing at all. marks: further properties to set with it."""

    day: date
    rows: pa.Table
    built: Built
    is_partial: bool = False
    is_worth: bool = True
    marks: Mapping[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What is told of it, in few bytes: snapshots keep it."""
        sums = {n: pc.sum(self.rows[n]).as_py() or 0 for n in ("trade_count", "excluded_count", "gap_count")}
        return {
            "exchange_date": self.day.isoformat(),
            "rows": len(self.rows),
            "symbols": pc.count_distinct(self.rows["symbol"]).as_py(),
            **sums,
            "build": self.built.number,
            "trades_commit": self.built.sequence_number,
            "version": self.rows["version"][0].as_py() if len(self.rows) else None,
            "is_open": self.built.is_open,
            "is_partial": self.is_partial,
        }


def ensure(lake: Lake) -> None:
    """Make the tables of bars where they are not there."""
    lake.ensure(BARS)


def due_minutes(lake: Lake, source: Source, rules: Rules, rows_max: int = ROWS_MAX) -> Due:
    """The dates whose minute bars are due, the newest first, as many as hold rows_max trades and one at least."""
    bars = lake.head(BARS_1M)
    after = collected_until(bars, source.at)
    rows = receipt_rows(lake, TRADES, after=after, columns=("sequence_number", "dates"))
    touches = [
        Touch(row["sequence_number"], frozenset(d["exchange_date"] for d in row["dates"]))
        for row in rows.to_pylist()
        if row["sequence_number"] <= source.sequence_number
    ]
    return due(
        built_in(bars.properties),
        [*touches, Touch(source.sequence_number, frozenset())],
        rules.digest(source.at.table_uuid),
        is_over=lambda day: rules.is_over(day, source.commit_time),
        fits=_fitting(lake, source, rows_max),
    )


def due_days(lake: Lake) -> list[date]:
    """The dates whose minute bars are others now than when their daily bars were built, the newest first."""
    minutes, days = (built_in(lake.head(table).properties) for table in BARS)
    return sorted((day for day, built in minutes.items() if not built.is_same(days.get(day))), reverse=True)


def build_minutes(
    lake: Lake, source: Source, rules: Rules, day: date, *, until: int | None = None, is_whole: bool = False
) -> Build:
    """Bring the minute bars of one date to the C of the source.

    until: every receipt up to this commit is in with this date. is_whole: compute all of it, whatever is stored, and
    store nothing where there never was anything. Raises FencedOut when others keep building it.
    """
    by = rules.digest(source.at.table_uuid)
    marks = {} if until is None else {collected_key(TRADES.name): f"{source.at.table_uuid}:{until}"}

    def change(at: Head) -> _Change:
        before = built_in(at.properties).get(day)
        now = source if before is None or before.sequence_number <= source.sequence_number else source_of(lake)
        assert now is not None, "what was built from is still there"  # and a date never goes back to an older C
        kept = None if is_whole or before is None or before.by != by else (at, before)
        rows, is_partial = _minutes(lake, now, now.basis(rules), day, kept)
        is_open = not pc.all(rows["is_final"], min_count=0).as_py()
        number = (before.number if before else 0) + 1
        is_worth = bool(len(rows) or before or not is_whole)
        return _Change(day, rows, Built(number, now.sequence_number, is_open, by), is_partial, is_worth, marks)

    return _replaced(lake, BARS_1M, change)


def build_day(lake: Lake, rules: Rules, day: date) -> Build:
    """Bring the daily bars of one date to its minute bars. Raises NotFound where trades wait for those; FencedOut."""

    def change(at: Head) -> _Change:
        minutes = lake.head(BARS_1M)
        own, before = built_in(minutes.properties).get(day), built_in(at.properties).get(day)
        if own is None and any(lake.head(TRADES).loaded.scan(on(day)).plan_files()):
            raise NotFound(f"{BARS_1M.name} has nothing of {day} yet: build its minute bars first")
        rows = rolled_up(stored_on(minutes, day), TIMEFRAMES["1d"], rules.zones)
        own, number = own or Built(0, 0, False, ""), (before.number if before else 0) + 1
        built = Built(number, own.sequence_number, own.is_open, own.by)
        return _Change(day, rows, built, is_worth=bool(own.number or before))

    return _replaced(lake, BARS_1D, change)


def recomputed_minutes(lake: Lake, rules: Rules, day: date) -> pa.Table | None:
    """The minute bars of one date computed again from the trades below the C they were built of.

    They equal the stored ones, whatever came or was rewritten since. None where nothing is stored of the date.
    """
    kept, source = day_bars(lake, BARS_1M, day), source_of(lake)
    if not len(kept) or source is None:
        return None
    version, number, time = (kept[n][0].as_py() for n in ("version", "sequence_number", "commit_time"))
    offsets, _ = copied_offsets(lake.load(RECEIPTS), TRADES, source.at.table_uuid, number)
    basis = Basis(version, number, time, rules.conditions, rules.zones)
    return bars_of(trades_of(source, day, below_c=offsets), basis, holes_of(lake, day, number))


def builds_told(lake: Lake, table: Table) -> list[Build]:
    """The retained builds of a table, oldest first."""
    found = []
    for snapshot in ordered_snapshots(lake.load(table)):
        if (text := summary_of(snapshot).get(BUILD_SUMMARY)) is not None:
            facts = json.loads(text)
            day = date.fromisoformat(facts["exchange_date"])
            found.append(Build(table, day, snapshot.snapshot_id, facts))
    return found


def _fitting(lake: Lake, source: Source, rows_max: int) -> Callable[[Sequence[date]], int]:
    def fits(days: Sequence[date]) -> int:
        if len(days) <= 1:
            return len(days)
        rows: Counter[date | None] = Counter()
        for file in lake.files(TRADES, source.snapshot_id):
            rows[file.exchange_date] += file.rows
        total = 0
        for count, day in enumerate(days):
            total += rows[day]
            if total > rows_max:
                return max(count, 1)
        return len(days)

    return fits


def _minutes(
    lake: Lake, source: Source, basis: Basis, day: date, kept: tuple[Head, Built] | None
) -> tuple[pa.Table, bool]:
    """The bars of a date, and whether only the last of them were computed. kept: what is stored, to go on from."""
    holes = holes_of(lake, day, source.sequence_number)
    since = None if kept is None or holes else unchanged_before(lake, source, day, kept[1].sequence_number)
    if kept is None or since is None:
        return bars_of(trades_of(source, day), basis, holes), False
    fresh = bars_of(trades_of(source, day, since=since - timedelta(microseconds=MAX_CARRY_US)), basis)
    return spliced(stored_on(kept[0], day), fresh, since, basis), True


def _replaced(lake: Lake, table: Table, change: Callable[[Head], _Change]) -> Build:
    for _ in range(ATTEMPTS_MAX):
        at = lake.head(table)
        try:
            build = _replace(at, change(at))
        except (FencedOut, Outpaced):
            continue
        trim(IcebergLedger(lake), lake.head(table))
        return build
    raise FencedOut(f"{table.name}: {ATTEMPTS_MAX} builds in a row lost to others; plan again")


def _replace(at: Head, change: _Change) -> Build:
    """Put rows in the place of a date: all of them, in one snapshot. Raises FencedOut, Outpaced; then nothing of it."""
    key, facts = built_key(change.day), change.facts()
    if not change.is_worth:
        return Build(at.table, change.day, None, facts)
    replaced = [task.file for task in at.loaded.scan(on(change.day)).plan_files()]
    expected = {k: at.property(k) for k in (key, CONTRACT_KEY, SWEPT_KEY, *change.marks)}
    written = write_data(at, change.rows)
    reach("data_written")
    properties = {key: str(change.built), **change.marks}
    summary = {BUILD_SUMMARY: json.dumps(facts, separators=(",", ":"))}
    fence, files = Fence(table=at.table.name, expected=expected), [data_file(at.loaded, w) for w in written]
    reach("committing")
    try:
        after = transact(at.loaded, files, properties, fence, summary, replaced=replaced)
    except (FencedOut, Outpaced):
        delete(w.path for w in written)  # nobody was told of them
        raise
    return Build(at.table, change.day, _snapshot_of(after, change), facts)


def _snapshot_of(after: IcebergTable, change: _Change) -> int:
    """The snapshot a change made; others may have committed since."""
    told = json.dumps(change.facts(), separators=(",", ":"))
    return next(s.snapshot_id for s in reversed(ordered_snapshots(after)) if summary_of(s).get(BUILD_SUMMARY) == told)
