"""What bars cost: `python -m k2_tests.bench.bars_rate [--rows N] [--json]`.

One day of 100 symbols of Zipf popularity in a real lake, stored in batches of 100,000 as ingestion stores them. Prints
CPU seconds per million trades of each step, best of the rounds: `read` and `compute` by themselves, `build` all of it
with the commit, `day` the daily bars, `minute` a refresh after one more minute of the same pace (not per million).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.bars import bars_of
from k2_core.builds import built_in
from k2_core.contracts import TRADES
from k2_core.derived_tables import BARS_1M
from k2_core.protocol.ports import Change
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_core.tables import PRICE
from k2_core.wide import decimals_from
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived import build_day, build_minutes, ensure
from k2_resources.lake.derived_reads import Rules, source_of, trades_of
from k2_tests.bench.command import bench
from k2_tests.lakes import FEED, TOPIC, collect, commit, new_lake, register

BATCH_ROWS = 100_000
SYMBOLS = 100
ZIPF = 1.1
"""The busiest of 100 symbols has a fifth of the rows, as on a spot exchange."""
ROUNDS = 3
DAY = date(2024, 8, 8)
_START = datetime(2024, 8, 8, tzinfo=UTC)
_DAY_US = 86_400_000_000
RULES = Rules({}, {"BINANCE": "UTC"})


def run(rows: int = 1_000_000) -> dict[str, Any]:
    """CPU seconds per million trades of each step, and of one refresh in seconds."""
    with tempfile.TemporaryDirectory() as home:
        lake = new_lake(Path(home) / "k2")
        ensure(lake)
        register(lake)
        for start in range(0, rows, BATCH_ROWS):
            _put(lake, _batch(start, min(start + BATCH_ROWS, rows), rows))
        return {"rows": rows, **_steps(lake, rows)}


def _steps(lake: Lake, rows: int) -> dict[str, Any]:
    source = source_of(lake)
    assert source is not None
    trades = trades_of(source, DAY)
    steps: dict[str, Callable[[], Any]] = {
        "read": lambda: trades_of(source, DAY),
        "compute": lambda: bars_of(trades, source.basis(RULES)),
        "build": lambda: build_minutes(lake, source, RULES, DAY, is_whole=True),
        "day": lambda: build_day(lake, RULES, DAY),
    }
    costs = {name: round(min(_cpu(step) for _ in range(ROUNDS)) / rows * 1e6, 4) for name, step in steps.items()}
    bars = lake.load(BARS_1M).scan().count()
    return {**costs, "bars": bars, "minute": round(min(_refresh(lake, rows, n) for n in range(ROUNDS)), 4)}


def _refresh(lake: Lake, rows: int, number: int) -> float:
    """CPU seconds of a refresh after one more minute of trades."""
    start = rows + number * rows // 1440
    _put(lake, _batch(start, start + rows // 1440, rows))
    source = source_of(lake)
    assert source is not None
    cpu = _cpu(lambda: build_minutes(lake, source, RULES, DAY))
    assert built_in(lake.head(BARS_1M).properties)[DAY].sequence_number == source.sequence_number
    return cpu


def _cpu(step: Callable[[], Any]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def _batch(start: int, end: int, rows: int) -> pa.Table:
    """Trades [start, end) of a day that has that many, the minutes after it squeezed into its last hour."""
    count, random = end - start, np.random.default_rng(start)
    shares = 1 / np.arange(1, SYMBOLS + 1) ** ZIPF
    which = random.choice(SYMBOLS, count, p=shares / shares.sum())
    at_us = np.arange(start, end) * (_DAY_US * 23 // 24 // rows)
    ids = np.arange(start, end)
    names = [f"COIN{i:02d}USDT" for i in range(SYMBOLS)]
    keys = [f"BINANCE:{names[w]}:trade:{i}" for w, i in zip(which.tolist(), ids.tolist(), strict=True)]
    told: dict[str, Any] = {
        "message_id": keys,
        "trade_id": [f"BINANCE-{i}" for i in ids.tolist()],
        "symbol": pa.array(names).take(pa.array(which)),
        "timestamp": pa.array(at_us + int(_START.timestamp()) * 1_000_000),
        "ingestion_timestamp": pa.array(at_us + int(_START.timestamp()) * 1_000_000),
        "price": _decimals(random, count, 10**12),
        "quantity": _decimals(random, count, 10**10),
        "source_sequence": pa.array(ids),
        "kafka_offset": pa.array(ids),
        "trade_conditions": pa.array([[]] * count, pa.list_(pa.string())),
    }
    same: dict[str, Any] = {
        "exchange": "BINANCE",
        "asset_class": "crypto",
        "currency": "USDT",
        "side": "BUY",
        "kafka_topic": TOPIC,
        "exchange_date": DAY,
    }
    schema = TRADES.arrow_schema()
    columns = [_column(field, told, same, count) for field in schema]
    rows_ = pa.table(columns, schema=schema)
    return rows_.take(pc.sort_indices(rows_, [(name, "ascending") for name in TRADES.sort]))


def _column(field: pa.Field, told: Mapping[str, Any], same: Mapping[str, Any], count: int) -> pa.Array:
    if field.name in told:
        return pa.array(told[field.name]).cast(field.type)
    if field.name in same:
        return pa.repeat(pa.scalar(same[field.name], field.type), count)
    return pa.nulls(count, field.type) if field.nullable else pa.repeat(pa.scalar(0, field.type), count)


def _decimals(random: np.random.Generator, count: int, most: int) -> pa.Array:
    return decimals_from(random.integers(1, most, count), PRICE)


def _put(lake: Lake, rows: pa.Table) -> None:
    at = lake.head(TRADES)
    start, count = at.offsets.positions[TOPIC, 0].next, len(rows)
    counted = RangeCount(TOPIC, 0, 0, start, start + count, count, count)
    receipt = Receipt(TRADES.name, "batch", "bench", "0", "1", (counted,), dates=(DateRows(DAY, FEED.name, count),))
    commit(lake, at, Change(receipt, rows=rows))
    collect(lake, TRADES)


def table(result: Mapping[str, Any]) -> str:
    """The figures as a table of Markdown."""
    steps = ("read", "compute", "build", "day")
    head = f"| trades | bars | {' | '.join(steps)} | minute |"
    row = f"| {result['rows']:,} | {result['bars']:,} | {' | '.join(f'{result[s]:.2f}' for s in steps)} | {result['minute']:.2f} s |"
    return "\n".join([head, "|---" * (len(steps) + 3) + "|", row])


if __name__ == "__main__":
    bench(__doc__, run, table, rows=1_000_000)
