"""Days of a feed as the lake holds them, and audit.days, to which closings are appended and never changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    EqualTo,
    GreaterThanOrEqual,
    In,
    LessThan,
    LessThanOrEqual,
)

from k2_core.contracts import COVERAGE, DEAD_LETTERS
from k2_core.day_tables import ALL_SYMBOLS, DAYS
from k2_core.exchange_dates import day_bounds
from k2_core.feeds import Feed
from k2_core.keys import CLOSES_KEY, SWEPT_KEY
from k2_core.protocol.ports import Head
from k2_core.protocol.retain import trim
from k2_core.tables import LINEAGE_NAMES
from k2_resources.lake.catalog import Lake
from k2_resources.lake.copies import Copies
from k2_resources.lake.ledger import IcebergLedger

ROWS_AT_ONCE = 2_000_000
"""Rows of whole symbols in memory: some 700 MB with their keys. A larger symbol is read by itself."""
_ENDED = ("closed", "failed")
"""Events of a collection that say what it sent of a symbol."""


@dataclass(frozen=True)
class Collected:
    """What feeds say they collected of a symbol on a date."""

    collections: int = 0
    start: datetime | None = None
    end: datetime | None = None


def sequence_number_of(at: Head) -> int:
    """The commit a head is at; 0 before the first."""
    snapshot = at.loaded.current_snapshot()
    return 0 if snapshot is None else int(snapshot.sequence_number or 0)


def symbols_of(at: Head, feed: Feed, day: date) -> dict[str, int]:
    """Stored rows of each symbol of a feed on one exchange date, every revision, by symbol."""
    counted = _scan(at, _of_day(feed, day), ("symbol",)).group_by("symbol").aggregate([([], "count_all")])
    return dict(sorted(zip(counted["symbol"].to_pylist(), counted["count_all"].to_pylist(), strict=True)))


def day_ticks(at: Head, feed: Feed, day: date, symbols: Mapping[str, int]) -> Iterator[pa.Table]:
    """All stored rows of a feed on one exchange date, whole symbols at a time, no order within.

    symbols: how many rows each has, in order. Columns: key, content, both sequences and lineage.
    """
    names = ("message_id", "revision", *at.table.content, "source_sequence", "platform_sequence", *LINEAGE_NAMES)
    for _, some in groupby(_shares(symbols), key=lambda share: share[0]):
        own = [symbol for _, symbol in some]
        within = And(GreaterThanOrEqual("symbol", own[0]), LessThanOrEqual("symbol", own[-1]))
        yield _scan(at, And(_of_day(feed, day), within), names)


def revised_keys(at: Head, feed: Feed) -> pa.Table:
    """Key and revision of every row of a feed that replaced another, of all dates: few."""
    where = And(EqualTo("kafka_topic", feed.topic), GreaterThanOrEqual("revision", 1))
    return _scan(at, where, ("message_id", "revision"))


def letters_of(lake: Lake, feed: Feed) -> dict[str, list[tuple[int, int, int]]]:
    """Where the dead letters of a feed were, by the symbol their key names: (epoch, Kafka partition, offset)."""
    scanned = lake.load(DEAD_LETTERS).scan(
        EqualTo("kafka_topic", feed.topic), selected_fields=("key", *LINEAGE_NAMES[1:])
    )
    found: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    prefix = f"{feed.exchange}.".encode()
    for row in scanned.to_arrow().to_pylist():
        if (row["key"] or b"").startswith(prefix):
            symbol = row["key"][len(prefix) :].decode(errors="replace")
            found[symbol].append(tuple(row[name] for name in LINEAGE_NAMES[1:]))
    return found


def collected_of(lake: Lake, feed: Feed, day: date) -> dict[str, Collected]:
    """What collections that have ended say of one exchange date, by symbol. Their event times are what they sent."""
    start, end = day_bounds(day, feed.timezone)
    times = And(LessThan("opened", end.isoformat()), GreaterThanOrEqual("closed", start.isoformat()))
    stated = And(EqualTo("feed", feed.name), In("event", _ENDED), times)
    columns = ("symbol", "collection_id", "opened", "closed")
    rows = lake.load(COVERAGE).scan(stated, selected_fields=columns).to_arrow()
    told = rows.filter(pc.not_equal(rows["symbol"], ALL_SYMBOLS)).group_by("symbol")
    sums = told.aggregate([("collection_id", "count_distinct"), ("opened", "min"), ("closed", "max")])
    return {
        row["symbol"]: Collected(row["collection_id_count_distinct"], row["opened_min"], row["closed_max"])
        for row in sums.to_pylist()
    }


def closings(
    lake: Lake, *, feed: str | None = None, symbol: str | None = None, day: date | None = None
) -> list[dict[str, Any]]:
    """Rows of audit.days, by feed, symbol, exchange date and version; all that a None does not narrow down."""
    asked = {"feed": feed, "symbol": symbol, "exchange_date": day and day.isoformat()}
    where: BooleanExpression = AlwaysTrue()
    for name, value in asked.items():
        where = where if value is None else And(where, EqualTo(name, value))
    rows: list[dict[str, Any]] = lake.load(DAYS).scan(where).to_arrow().to_pylist()
    return sorted(rows, key=lambda row: tuple(row[name] for name in DAYS.key))


def latest(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, date], Mapping[str, Any]]:
    """The largest version of each feed, symbol and exchange date. rows: of audit.days, by version."""
    return {(row["feed"], row["symbol"], row["exchange_date"]): row for row in rows}


def append_closings(lake: Lake, at: Head, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to audit.days, if nobody did since this head was loaded. Raises FencedOut, Outpaced, Unreachable."""
    ledger = IcebergLedger(lake)
    number = int(at.property(CLOSES_KEY) or 0) + 1
    expected = {key: at.property(key) for key in (CLOSES_KEY, SWEPT_KEY)}
    copies = Copies(pa.Table.from_pylist(list(rows), schema=DAYS.arrow_schema()))
    ledger.append(at, copies, {CLOSES_KEY: str(number)}, expected)
    trim(ledger, lake.head(DAYS))


def files_of(lake: Lake, feed: Feed, day: date) -> list[str]:
    """The data files that hold a day now: those of its date, and those with revisions, of whatever date."""
    state = lake.state(feed.table)
    if state is None or state.snapshot_id is None:
        return []
    found = lake.files(feed.table, state.snapshot_id)
    return sorted(file.path for file in found if file.exchange_date == day or file.revised)


def _of_day(feed: Feed, day: date) -> BooleanExpression:
    return And(EqualTo("exchange_date", day.isoformat()), EqualTo("kafka_topic", feed.topic))


def _shares(symbols: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    """Each symbol with the number of the share it is read in."""
    share, rows = 0, 0
    for symbol, count in symbols.items():
        if rows and rows + count > ROWS_AT_ONCE:
            share, rows = share + 1, 0
        rows += count
        yield share, symbol


def _scan(at: Head, where: BooleanExpression, names: Sequence[str]) -> pa.Table:
    """Some columns of a table as it was when loaded, in types of the contract."""
    schema = pa.schema([at.table.arrow_schema().field(name) for name in names])
    rows = at.loaded.scan(where, selected_fields=tuple(names)).to_arrow()
    return rows.select(names).cast(schema).combine_chunks()
