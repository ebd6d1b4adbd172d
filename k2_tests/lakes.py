"""A lake without a log, for tests: commits as the engine would make them, and rows rewritten as it never would."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from k2_core.contracts import DEAD_LETTERS, GAPS, TABLES, TRADES, Table
from k2_core.keys import topic_key
from k2_core.protocol import collect as collecting
from k2_core.protocol import commit as committing
from k2_core.protocol.ports import Change, Head
from k2_core.receipts import Committed, DateRows, RangeCount, Receipt
from k2_core.sequences import Intervals, ScopeState
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.settings import Settings
from k2_tests.ticks import FEEDS, table_of, trade

FEED = FEEDS["binance-trades"]
TOPIC = FEED.topic
DAY = date(2024, 8, 8)


def new_lake(home: Path) -> Lake:
    """The lake of a home, all tables made."""
    settings = Settings(home=home)
    home.mkdir(exist_ok=True)
    lake = Lake(settings.catalog(), settings.warehouse_path())
    lake.ensure(TABLES)
    return lake


def commit(lake: Lake, at: Head, change: Change) -> Committed:
    """Commit a change by the protocol."""
    return committing.commit(IcebergLedger(lake), at, change).committed


def collect(lake: Lake, table: Table) -> int:
    """Collect what is not collected yet, by the protocol."""
    return collecting.collect(IcebergLedger(lake), table, reach)


def full_lake(home: Path) -> Lake:
    """A healthy lake, collected: two batches, each with rows, two letters, two gap events and a state."""
    lake = new_lake(home)
    register(lake)
    put(lake, Batch([1, 2, 5], letters=[b"junk", b""], gaps=[(3, 3), (4, 4)]))
    put(lake, Batch([6, 9], letters=[b"junk", b"more junk"], gaps=[(7, 7), (8, 8)]))
    collect(lake, TRADES)
    return lake


@dataclass(frozen=True)
class Batch:
    """What the next commit stores of each kind, from the next offset on: trades by id, then letters.

    counts, dates and places are what the receipt and the rows shall say instead of the truth.
    """

    trades: Sequence[int] = ()
    revisions: Sequence[int] = ()
    letters: Sequence[bytes] = ()
    gaps: Sequence[tuple[int, int]] = ()
    counts: Mapping[str, Any] = field(default_factory=dict)
    dates: Sequence[DateRows] | None = None
    places: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    keeps_state: bool = True


def register(lake: Lake, at: int = 0, end: int | None = None) -> Committed:
    """Accept an offset as the start of the topic."""
    counted = RangeCount(TOPIC, 0, 0, at, at if end is None else end)
    receipt = Receipt(TRADES.name, "register", "run", "0", "1", (counted,))
    return commit(lake, lake.head(TRADES), Change(receipt, properties={topic_key(TOPIC): "{}"}))


def put(lake: Lake, batch: Batch) -> Committed:
    """Commit one batch."""
    at = lake.head(TRADES)
    start = at.offsets.positions[TOPIC, 0].next
    stored = [*batch.trades, *batch.revisions]
    read = len(stored) + len(batch.letters)
    counted = RangeCount(
        TOPIC, 0, 0, start, start + read, read, len(batch.trades), 0, len(batch.revisions), len(batch.letters)
    )
    dates = (DateRows(DAY, FEED.name, len(stored)),) if batch.dates is None else batch.dates
    receipt = Receipt(
        TRADES.name, "batch", "run", "0", "1", (replace(counted, **batch.counts),), (1,), dates=tuple(dates)
    )
    seen = ScopeState(Intervals.of(np.arange(start + read, dtype=np.int64)), high=None)
    change = Change(
        receipt,
        rows=_rows(batch, start) if stored else None,
        dead_letters=letter_rows(start + len(stored), batch.letters),
        gaps=gap_rows(batch.gaps),
        states={TOPIC: {"BTCUSDT": seen}} if batch.keeps_state else {},
    )
    return commit(lake, at, change)


def _rows(batch: Batch, start: int) -> pa.Table:
    sent = table_of(FEED, [trade(n) for n in (*batch.trades, *batch.revisions)])
    columns = {
        **{name: sent[name] for name in sent.column_names},
        "kafka_offset": range(start, start + len(sent)),
        "revision": [0] * len(batch.trades) + [1] * len(batch.revisions),
        "exchange_date": [DAY] * len(sent),
        **batch.places,
    }
    schema = TRADES.arrow_schema()
    return pa.table([columns[name] for name in schema.names], schema=schema)


def letter_rows(start: int, values: Iterable[bytes]) -> pa.Table:
    """Dead letters at consecutive offsets."""
    rows = [
        {
            "table_name": TRADES.name,
            "kafka_topic": TOPIC,
            "kafka_epoch": 0,
            "kafka_partition": 0,
            "kafka_offset": offset,
            "kafka_timestamp": trade(0)["timestamp"],
            "key": b"BINANCE.BTCUSDT",
            "value": value,
            "headers": "[]",
            "reason": "bad_magic",
            "detail": "no magic byte",
        }
        for offset, value in enumerate(values, start=start)
    ]
    return pa.Table.from_pylist(rows, schema=DEAD_LETTERS.arrow_schema())


def gap_rows(gaps: Iterable[tuple[int, int]]) -> pa.Table:
    """Gaps as the judge saw them open, by first and last id."""
    rows = [
        {
            "gap_id": f"{FEED.name}:BTCUSDT:0:{first}-{last}",
            "event_number": 0,
            "state": "open",
            "feed": FEED.name,
            "exchange": "BINANCE",
            "scope": "BTCUSDT",
            "session": 0,
            "first_id": first,
            "last_id": last,
            "size": last - first + 1,
            "severity": "warn",
            "exchange_date": DAY,
            "actor": "judge",
        }
        for first, last in gaps
    ]
    return pa.Table.from_pylist(rows, schema=GAPS.arrow_schema())


def rewrite(lake: Lake, table: Table, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Replace the rows of an audit table behind K2's back; its properties stay."""
    loaded = lake.load(table)
    rows = loaded.scan().to_arrow().to_pylist()
    change(rows)
    loaded.overwrite(pa.Table.from_pylist(rows, schema=table.arrow_schema()))


def set_property(lake: Lake, table: Table, key: str, value: str) -> None:
    """Set a property of a table behind K2's back."""
    with lake.load(table).transaction() as transaction:
        transaction.set_properties({key: value})


def expire(lake: Lake) -> None:
    """Expire every snapshot but the head."""
    loaded = lake.load(TRADES)
    head = loaded.current_snapshot()
    old = [s.snapshot_id for s in loaded.metadata.snapshots if head is None or s.snapshot_id != head.snapshot_id]
    loaded.maintenance.expire_snapshots().by_ids(old).commit()
