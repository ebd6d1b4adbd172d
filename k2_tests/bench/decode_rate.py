"""How fast records become columns: `python -m k2_tests.bench.decode_rate [--records N] [--json FILE]`.

The same records in one run through K2's whole `decode` (frames, lockstep, Arrow table of the feed columns), through
fastavro to the same table in three ways, and through Confluent's deserializer, which stops at dicts. CPU seconds of the
process, best of several rounds, each way's table proven equal to the others' before anything is timed.
"""

from __future__ import annotations

import gc
import io
import json
import random
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from k2_core.avro import avro_schema
from k2_core.contracts import TRADES
from k2_core.decode import decode
from k2_core.frames import HEADER_BYTES, Frames
from k2_core.records import Envelope, Records
from k2_resources.avro_codec import decoder, fastavro_decoder
from k2_tests.bench.command import bench

ROUNDS = 3
RECORDS = 200_000
SLOW_ONE_IN = 10
"""The ways that are many times slower get a tenth of the records, taken from all over; rates do not depend on it."""
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "ADAUSDT", "1000SATSUSDT", "LTCBTC")
VENDOR_DATA: tuple[dict[str, str] | None, ...] = (
    None,
    {},
    {"is_buyer_maker": "true"},
    {"is_buyer_maker": "false", "buyer_order_id": "28457120973"},
    {"is_buyer_maker": "true", "buyer_order_id": "28457120973", "seller_order_id": "28457120975"},
)
"""None to three entries, each as often as the others."""
CONDITIONS_ONE_IN = 50
"""Crypto trades rarely state a condition."""

_SCHEMA = avro_schema(TRADES)
_COLUMNS = TRADES.arrow_schema(origins=("feed",))
Way = Callable[[list[bytes]], Any]


def values(count: int, seed: int = 7) -> list[bytes]:
    """Trades of the contract in the Confluent frame, about 155 bytes each."""
    chance, schema = random.Random(seed), fastavro.parse_schema(avro_schema(TRADES))
    at, out = 1_723_118_400_000_000, []
    for number in range(count):
        symbol, source_id = chance.choice(SYMBOLS), 3_700_000_000 + number
        at += chance.randrange(1, 900)
        record = {
            "message_id": f"BINANCE:{symbol}:trade:{source_id}",
            "trade_id": f"BINANCE-{source_id}",
            "symbol": symbol,
            "exchange": "BINANCE",
            "asset_class": "crypto",
            "currency": "USDT",
            "timestamp": at,
            "price": Decimal(chance.randrange(10**8, 7 * 10**12)).scaleb(-8),
            "quantity": Decimal(chance.randrange(1, 10**9) * 100).scaleb(-8),
            "side": chance.choice(("BUY", "SELL")),
            "trade_conditions": [] if chance.randrange(CONDITIONS_ONE_IN) else ["XT"],
            "source_sequence": source_id,
            "platform_sequence": None,
            "ingestion_timestamp": at + chance.randrange(50_000),
            "vendor_data": chance.choice(VENDOR_DATA),
            "quality_flags": 0,
        }
        body = io.BytesIO()
        body.write(b"\0\0\0\0\1")
        fastavro.schemaless_writer(body, schema, record)
        out.append(body.getvalue())
    return out


def run(records: int = RECORDS) -> dict[str, Any]:
    """Measure every way. Records per CPU second, and how many times faster K2's decode is than each other way."""
    fast = values(records)
    slow = fast[::SLOW_ONE_IN]
    ways = {**_to_arrow(), "Confluent AvroDeserializer, dicts only": _confluent()}
    expected = _lockstep(slow)
    for name, way in _to_arrow().items():
        assert way(slow).equals(expected), f"{name} gives another table"
    rates = {name: _rate(way, fast if way is _lockstep else slow) for name, way in ways.items()}
    mine = rates["K2 decode"]
    return {
        "records": records,
        "bytes_mean": sum(map(len, fast)) / records,
        "records_per_cpu_second": rates,
        "times_slower_than_k2": {name: mine / rate for name, rate in rates.items()},
    }


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"{result['records']:,} trades of {result['bytes_mean']:.0f} bytes; CPU seconds of the process.",
        "",
        "| way | records per cpu-s | K2 is faster by |",
        "|---|---|---|",
    ]
    for name, rate in result["records_per_cpu_second"].items():
        lines.append(f"| {name} | {rate:,.0f} | {result['times_slower_than_k2'][name]:.1f} x |")
    return "\n".join(lines)


def _to_arrow() -> dict[str, Way]:
    return {
        "K2 decode": _lockstep,
        "fastavro, Table.from_pylist": _from_pylist,
        "fastavro, a list per column": _column_lists,
        "fastavro, logical types undone (K2's fallback)": _fallback,
    }


def _lockstep(frames: list[bytes]) -> pa.Table:
    n = len(frames)
    records = Records("t", np.zeros(n, np.int32), np.arange(n), list(frames), [Envelope(None, (), -1)] * n)
    decoded = decode(records, TRADES, lambda _: decoder(_SCHEMA, TRADES))
    assert decoded.dead == ()
    return decoded.rows


def _dicts(frames: list[bytes]) -> list[dict[str, Any]]:
    schema = fastavro.parse_schema(avro_schema(TRADES))
    rows = [fastavro.schemaless_reader(io.BytesIO(frame[HEADER_BYTES:]), schema, None) for frame in frames]
    for row in rows:
        if row["vendor_data"] is not None:
            row["vendor_data"] = list(row["vendor_data"].items())
    return rows


def _from_pylist(frames: list[bytes]) -> pa.Table:
    return pa.Table.from_pylist(_dicts(frames), schema=_COLUMNS)


def _column_lists(frames: list[bytes]) -> pa.Table:
    rows = _dicts(frames)
    return pa.table([pa.array([row[f.name] for row in rows], f.type) for f in _COLUMNS], schema=_COLUMNS)


def _fallback(frames: list[bytes]) -> pa.Table:
    read = fastavro_decoder(_SCHEMA, _SCHEMA, _COLUMNS)
    return read(Frames.of([frame[HEADER_BYTES:] for frame in frames])).rows


def _confluent() -> Way:
    registry = SchemaRegistryClient.new_client({"url": "mock://decode-rate"})
    registry.register_schema("t-value", Schema(json.dumps(_SCHEMA), "AVRO"))
    deserialize, context = AvroDeserializer(registry), SerializationContext("t", MessageField.VALUE)
    return lambda frames: [deserialize(frame, context) for frame in frames]


def _rate(way: Way, frames: list[bytes]) -> float:
    """Records per CPU second, the collector of garbage off, as it is none of any decoder's doing."""
    spent = []
    for _ in range(ROUNDS):
        gc.collect()
        gc.disable()
        start = time.process_time()
        made = way(frames)
        spent.append(time.process_time() - start)
        gc.enable()
        del made
    return len(frames) / min(spent)


if __name__ == "__main__":
    bench(__doc__, run, table, records=RECORDS)
