"""A home with ledgers to ask for: two batches with letters and gaps, a replay, statements, and a day closed twice."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from k2_assets.closing import Stamp, judge_day, publish
from k2_core.contracts import COVERAGE, GAPS, INGESTED, TRADES
from k2_core.keys import topic_key
from k2_core.letters import REPLAYED, Place
from k2_core.protocol.ports import Change
from k2_core.receipts import RangeCount, Receipt
from k2_resources.lake.catalog import Lake
from k2_resources.settings import Settings
from k2_tests.api.homes import Row, store
from k2_tests.lakes import DAY, FEED, TOPIC, Batch, collect, commit, gap_rows, new_lake, put, register, set_property
from k2_tests.ticks import FEEDS, NOON

CLOSED = datetime(2024, 8, 9, 1, tzinfo=UTC)
QUOTES_FEED = FEEDS["binance-quotes"]


def ledger_home(home: Path) -> Lake:
    """Trades 1, 2, 5, 6, 9; ids 3, 4, 7, 8 missing, 7 accepted, 4 filled; letters at offsets 3, 4, 7, 8, 10.

    Letter 3 was sent again and read at offset 5, letter 7 died again at 10, letter 8 waits at 99.
    """
    lake = new_lake(home)
    register(lake)
    set_property(lake, TRADES, topic_key(TOPIC), '{"epoch": 0, "cluster": "cluster", "topic": "topic"}')
    put(lake, Batch([1, 2, 5], letters=[b"junk", b""], gaps=[(3, 3), (4, 4)]))
    put(lake, Batch([6, 9], letters=[b"junk", b"\xff\0"], gaps=[(7, 7), (8, 8)]))
    collect(lake, TRADES)
    close(lake, hours=0)
    put(lake, Batch([4], letters=[b"again"]))
    tell(lake, gap_event("filled", 4), gap_event("accepted", 7, actor="desk", stated=NOON, evidence='{"why":"late"}'))
    collect(lake, TRADES)
    store(lake, COVERAGE, [replay(3, 5), replay(7, 10), replay(8, 99)])
    for table in INGESTED:
        collect(lake, table)
    close(lake, hours=1)
    return lake


def close(lake: Lake, hours: int) -> None:
    """Close the date of trades and of quotes, which have no row."""
    stamp = Stamp("run", CLOSED + timedelta(hours=hours), "0")
    for feed in (FEED, QUOTES_FEED):
        publish(lake, judge_day(lake, feed, DAY, Settings().config), stamp)


def tell(lake: Lake, *events: Row) -> None:
    """Commit gap events and nothing else."""
    at = lake.head(TRADES)
    start = at.offsets.positions[TOPIC, 0].next
    counted = RangeCount(TOPIC, 0, 0, start, start + 1, 1, 0, 1)
    receipt = Receipt(TRADES.name, "batch", "run", "0", "1", (counted,))
    commit(lake, at, Change(receipt, gaps=pa.Table.from_pylist(list(events), schema=GAPS.arrow_schema())))


def gap_event(state: str, number: int, **changes: Any) -> Row:
    """An event about one id."""
    (row,) = gap_rows([(number, number)]).to_pylist()
    return {**row, "state": state, **changes}


def replay(letter: int, delivered: int) -> Row:
    """The statement that a letter was sent again."""
    names = {name: str(Place(TOPIC, 0, 0, at)) for name, at in (("letter", letter), ("delivered", delivered))}
    return {
        "message_id": f"COVERAGE:c:*:{letter}",
        "revision": 0,
        "collection_id": "c",
        "event": REPLAYED,
        "feed": FEED.name,
        "source": "dead letters",
        "exchange": "K2",
        "symbol": "*",
        "timestamp": NOON,
        "rows": 1,
        "rejected": 0,
        "ingestion_timestamp": NOON,
        "exchange_date": DAY,
        **names,
    }


def plain(row: Any) -> Any:
    """A stored row as JSON would have it, by another way than the API's."""
    return json.loads(json.dumps(row, default=_text))


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return str(value)
