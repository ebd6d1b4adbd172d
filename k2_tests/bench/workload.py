"""Trades as a busy exchange sends them, for benches: seeded, about 155 bytes each, ids without holes per symbol."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import fastavro
import numpy as np
from confluent_kafka import Producer

from k2_core.avro import avro_schema
from k2_core.contracts import TRADES
from k2_tests.ticks import NOON, trade

SYMBOLS = 100
_ZIPF = 0.5
"""Some symbols trade ten times as much as others; none so much that the embedded broker cannot hold it."""
_WITH_VENDOR_DATA = 0.5
_GAP_US_MAX = 20_000


def trades(count: int, seed: int = 7) -> Iterator[tuple[int, bytes, bytes]]:
    """Number of the symbol, key and Avro body (no frame) of each record, in event time."""
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, SYMBOLS + 1) ** _ZIPF
    symbols = random.choice(SYMBOLS, count, p=weights / weights.sum()).tolist()
    cents = random.integers(1_000_000, 9_000_000, count).tolist()
    lots = random.integers(1, 10**9, count).tolist()
    gaps = random.integers(0, _GAP_US_MAX, count).cumsum().tolist()
    told = (random.random(count) < _WITH_VENDOR_DATA).tolist()
    ids = dict.fromkeys(range(SYMBOLS), 3_000_000_000)
    schema = fastavro.parse_schema(avro_schema(TRADES))
    for i, s in enumerate(symbols):
        ids[s] += 1
        name, body = f"COIN{s:02d}USDT", io.BytesIO()
        record = trade(
            ids[s],
            symbol=name,
            timestamp=NOON + timedelta(microseconds=gaps[i]),
            ingestion_timestamp=NOON + timedelta(microseconds=gaps[i] + 40_000),
            price=Decimal(cents[i]).scaleb(-2),
            quantity=Decimal(lots[i]).scaleb(-8),
            side=("BUY", "SELL")[lots[i] & 1],
            vendor_data={"m": "true", "t": str(gaps[i])} if told[i] else None,
        )
        fastavro.schemaless_writer(body, schema, record)
        yield s, f"BINANCE.{name}".encode(), body.getvalue()


def produce(bootstrap: str, topic: str, schema_id: int, count: int, partitions: int) -> None:
    """Send that many trades to a topic, each symbol in one Kafka partition; returns when all are acknowledged."""
    frame = b"\0" + schema_id.to_bytes(4, "big")
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": "lz4",
            "linger.ms": 50,
            "queue.buffering.max.messages": 1_000_000,
            "enable.idempotence": True,
        }
    )
    for symbol, key, body in trades(count):
        while True:
            try:
                producer.produce(topic, frame + body, key, partition=symbol % partitions)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise RuntimeError("the broker did not take every record")
