"""What derived tables are computed from, as of one load of the trades, and what is stored of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.expressions import And, BooleanExpression, EqualTo, GreaterThan, GreaterThanOrEqual, LessThan
from pyiceberg.manifest import DataFile

from k2_core.bars import DEFINITION, GRACE_US, Basis, Hole
from k2_core.builds import digest_of
from k2_core.certificates import below, newest
from k2_core.conditions import Conditions
from k2_core.contracts import GAPS, TRADES, Table
from k2_core.derived_tables import BARS_1D, BARS_1M
from k2_core.errors import Damaged
from k2_core.exchange_dates import day_bounds
from k2_core.feeds import Feed, feeds_of
from k2_core.gap_ids import FILLED, STATED
from k2_core.offsets import Offsets
from k2_core.prints import COLUMNS
from k2_core.protocol.ports import Head
from k2_core.rollups import LOOKBACK_US, rolled_up
from k2_core.tables import LINEAGE_NAMES, fitted
from k2_core.windows import LAST_US, MINUTE_US, Timeframe, ceil_us, floor_us, from_us, to_us
from k2_resources.lake.catalog import Lake, commit_time
from k2_resources.lake.copies import EVENTS_PER_COMMIT
from k2_resources.lake.files import file_entry
from k2_resources.lake.scans import receipt_rows
from k2_resources.rule_sets import all_conditions

GAP_COLUMNS = ("gap_id", "event_number", "state", "exchange", "scope", "exchange_date", "last_id")
"""What of a gap event tells where a hole is."""
GapEvent = Mapping[str, Any]
"""A row of audit.gaps, or as much of it as GAP_COLUMNS."""


@dataclass(frozen=True)
class Rules:
    """What bars go by, beside the trades: update rules and time zone by exchange."""

    conditions: Mapping[str, Conditions]
    zones: Mapping[str, str]

    def digest(self, source_uuid: str) -> str:
        """What a build goes by: these rules, the definition of a bar, the table read."""
        rules = [f"{name}={matrix.version}" for name, matrix in sorted(self.conditions.items())]
        zones = [f"{name}={zone}" for name, zone in sorted(self.zones.items())]
        return digest_of(source_uuid, DEFINITION, *rules, *zones)

    def is_over(self, day: date, at: datetime) -> bool:
        """Whether a date has ended everywhere by an instant, late reports included."""
        zones = {"UTC", *self.zones.values()}
        return all(to_us(day_bounds(day, zone)[1]) + GRACE_US <= to_us(at) for zone in zones)


def bar_rules(config: Path, feeds: tuple[Feed, ...]) -> Rules:
    """What bars of these feeds go by. config: folder of the update rules. Raises Misconfigured."""
    zones = {feed.exchange: feed.timezone for feed in feeds_of(TRADES, feeds)}
    return Rules(all_conditions(config, zones), zones)


@dataclass(frozen=True)
class Source:
    """The trades as one load found them."""

    at: Head

    @cached_property
    def snapshot_id(self) -> int:
        return int(self.at.loaded.current_snapshot().snapshot_id)

    @cached_property
    def sequence_number(self) -> int:
        """The commit that was the head then."""
        return int(self.at.loaded.current_snapshot().sequence_number)

    @cached_property
    def commit_time(self) -> datetime:
        return commit_time(self.at.loaded, self.at.loaded.current_snapshot())

    def basis(self, rules: Rules) -> Basis:
        """What bars of these trades are computed by."""
        version = self.at.offsets.version
        return Basis(version, self.sequence_number, self.commit_time, rules.conditions, rules.zones)


def source_of(lake: Lake) -> Source | None:
    """The trades now; None before the first commit."""
    at = lake.head(TRADES)
    return None if at.loaded.current_snapshot() is None else Source(at)


def trades_of(source: Source, day: date, *, since: datetime | None = None, below_c: Offsets | None = None) -> pa.Table:
    """The newest revisions of one date, decided over all dates before anything else. Raises Damaged.

    since: leave out earlier event times. below_c: as of an older C.
    """
    lineage = () if below_c is None else LINEAGE_NAMES
    rows = _read(_files(source.at, on(day)), ("revision", *COLUMNS, *lineage), since)
    revised = _read(_files(source.at, GreaterThan("revision", 0)), ("message_id", "revision", *lineage), None)
    revised = revised.filter(pc.greater(revised["revision"], 0))
    if below_c is not None:
        rows, revised = (some.filter(pa.array(below(some, below_c))) for some in (rows, revised))
    return rows.filter(pa.array(newest(rows, revised))) if len(revised) and len(rows) else rows


def holes_of(lake: Lake, day: date, sequence_number: int) -> list[Hole]:
    """Holes in the ids of the trades of a date, as the judge saw them up to one commit, whoever explained them."""
    until = LessThan("event_number", (sequence_number + 1) * EVENTS_PER_COMMIT)
    scan = lake.load(GAPS).scan(And(EqualTo("table_name", TRADES.name), until), selected_fields=GAP_COLUMNS)
    return holes_among(scan.to_arrow().to_pylist(), day)


def holes_among(events: Iterable[GapEvent], day: date) -> list[Hole]:
    """Holes of a date that some events leave. events: GAP_COLUMNS, any order, of any dates."""
    seen: dict[str, list[GapEvent]] = {}
    for event in sorted(events, key=lambda e: int(e["event_number"])):
        if event["state"] not in STATED:
            seen.setdefault(event["gap_id"], []).append(event)
    there = (told[0] for told in seen.values() if told[-1]["state"] != FILLED)
    return [Hole(e["exchange"], e["scope"], day, e["last_id"]) for e in there if e["exchange_date"] == day]


def unchanged_before(lake: Lake, source: Source, day: date, sequence_number: int) -> datetime | None:
    """The whole minute before which nothing of a date changed since a commit; None where that cannot be told.

    It can where only rows came: no revision, no gap event, and the files of the receipts are still those of the date.
    """
    columns = ["sequence_number", "kind", "ranges", "files", "dates"]
    rows = receipt_rows(lake, TRADES, after=sequence_number, columns=columns).to_pylist()
    told = [r for r in rows if r["sequence_number"] <= source.sequence_number and _rows_of(r, day)]
    if any(_is_more_than_rows(r, day) for r in told):
        return None
    paths = {f["path"] for r in told for f in r["files"] if f["kind"] == "data"}
    stored_files = (file_entry(source.at.loaded, file) for file in _files(source.at, on(day)))
    came = [file for file in stored_files if file.path in paths]
    starts_us = [to_us(f.timestamp_min) for f in came if f.timestamp_min is not None]
    if len(starts_us) < len(came) or sum(f.rows for f in came) != sum(n for r in told for n in _rows_of(r, day)):
        return None
    return from_us(floor_us(min(starts_us, default=LAST_US), MINUTE_US))


def _rows_of(receipt: Mapping[str, Any], day: date) -> list[int]:
    """Rows a receipt stored of a date, by feed; none where it does not name it."""
    return [d["rows"] for d in receipt["dates"] if d["exchange_date"] == day]


def _is_more_than_rows(receipt: Mapping[str, Any], day: date) -> bool:
    """Whether a receipt may have changed bars of minutes in which it stored nothing."""
    return (
        receipt["kind"] != "batch"
        or any(r["revisions"] for r in receipt["ranges"])
        or any(f["kind"] == "gaps" and f["rows"] for f in receipt["files"])
        or 0 in _rows_of(receipt, day)
    )


def stored_bars(
    lake: Lake, timeframe: Timeframe, symbol: str, span: tuple[datetime, datetime], zones: Mapping[str, str]
) -> pa.Table:
    """Bars of one symbol whose windows begin in [start, end), from what is stored, by exchange and window."""
    start_us, end_us = map(to_us, span)
    if timeframe.width_us is None:
        rows = stored(lake.head(BARS_1D), And(EqualTo("symbol", symbol), _between(start_us, end_us)))
    else:
        first_us, last_us = (ceil_us(us, timeframe.width_us) for us in (start_us, end_us))
        near = And(EqualTo("symbol", symbol), _between(first_us - LOOKBACK_US, last_us))
        rows = rolled_up(stored(lake.head(BARS_1M), near), timeframe, zones)
    inside = pc.and_(pc.greater_equal(rows["window_start"], span[0]), pc.less(rows["window_start"], span[1]))
    return rows.filter(inside)


def day_bars(lake: Lake, table: Table, day: date) -> pa.Table:
    """The stored bars of one date, in table order."""
    return stored_on(lake.head(table), day)


def stored_on(at: Head, day: date) -> pa.Table:
    """Stored rows of one date, in table order: a date is one file, and it was written so."""
    return _scanned(at, on(day))


def stored(at: Head, where: BooleanExpression) -> pa.Table:
    """Stored rows of a derived table, in table order."""
    return _scanned(at, where).sort_by([(name, "ascending") for name in at.table.sort])


def _scanned(at: Head, where: BooleanExpression) -> pa.Table:
    schema = at.table.arrow_schema()
    return at.loaded.scan(where).to_arrow().select(schema.names).cast(schema)


def on(day: date) -> BooleanExpression:
    """The rows of one date."""
    return EqualTo("exchange_date", day.isoformat())


def _between(start_us: int, end_us: int) -> BooleanExpression:
    """Windows that begin in [start, end); by date, too, since that is what prunes: a local one is a day off at most."""
    start, end = from_us(start_us), from_us(end_us)
    first, last = (instant.astimezone(UTC).date() + timedelta(days=n) for instant, n in ((start, -1), (end, 1)))
    dates = And(
        GreaterThanOrEqual("exchange_date", first.isoformat()),
        LessThan("exchange_date", (last + timedelta(days=1)).isoformat()),
    )
    times = And(GreaterThanOrEqual("window_start", start.isoformat()), LessThan("window_start", end.isoformat()))
    return And(dates, times)


def _files(at: Head, where: BooleanExpression) -> list[DataFile]:
    return [task.file for task in at.loaded.scan(where).plan_files()]


def _read(files: Sequence[DataFile], columns: Sequence[str], since: datetime | None) -> pa.Table:
    schema = pa.schema([TRADES.arrow_schema().field(name) for name in columns])
    where = None if since is None else pc.field("timestamp") >= pa.scalar(since, schema.field("timestamp").type)
    try:
        parts = [pq.read_table(f.file_path, columns=list(columns), partitioning=None, filters=where) for f in files]
    except OSError as error:
        raise Damaged(f"{TRADES.name}: a file of what is stored cannot be read: {error}") from error
    return pa.concat_tables([schema.empty_table(), *(fitted(part, schema) for part in parts)]).combine_chunks()
