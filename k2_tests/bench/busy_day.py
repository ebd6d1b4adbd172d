"""One busy day of trades for benches: 100 symbols of Zipf popularity, seeded, in a real lake by the real protocol."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.contracts import TRADES
from k2_core.protocol.ports import Change
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_core.tables import PRICE
from k2_core.wide import decimals_from
from k2_resources.lake.catalog import Lake
from k2_tests.lakes import FEED, TOPIC, collect, commit

SYMBOLS = 100
ZIPF = 1.1
"""The busiest of 100 symbols has a fifth of the rows, as on a spot exchange."""
DAY = date(2024, 8, 8)
_START = datetime(2024, 8, 8, tzinfo=UTC)
_DAY_US = 86_400_000_000


def batch(start: int, end: int, rows: int) -> pa.Table:
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


def put(lake: Lake, rows: pa.Table) -> None:
    """Commit rows as one batch, and collect it."""
    at = lake.head(TRADES)
    start, count = at.offsets.positions[TOPIC, 0].next, len(rows)
    counted = RangeCount(TOPIC, 0, 0, start, start + count, count, count)
    receipt = Receipt(TRADES.name, "batch", "bench", "0", "1", (counted,), dates=(DateRows(DAY, FEED.name, count),))
    commit(lake, at, Change(receipt, rows=rows))
    collect(lake, TRADES)
