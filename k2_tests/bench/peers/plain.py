"""What one writes first in Python: consume, decode record by record, `Table.from_pylist`, append.

`python -m k2_tests.bench.peers.plain DECODER TOLD`, DECODER being fastavro or confluent.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from k2_tests.bench.peers.ground import IDENTIFIER, Ground, Started, catalog, columns, make_table

_ROWS_PER_APPEND = 100_000
"""What K2 commits at once."""
_FRAME_BYTES = 5
Decode = Callable[[bytes], dict[str, Any]]


def start(decoder: str, ground: Ground) -> Started:
    """A loop over one decoder and pyiceberg's append."""
    file = make_table(ground.home / decoder, columns())
    told = json.dumps({**asdict(ground), "home": str(file.parent)})
    return Started([sys.executable, "-m", "k2_tests.bench.peers.plain", decoder, told], file)


def main(decoder: str, told: str) -> None:
    """Consume every Kafka partition to its end, appending as it goes."""
    ground = Ground(**json.loads(told))
    decode = {"fastavro": _fastavro, "confluent": _confluent}[decoder](ground)
    table, schema = catalog(Path(ground.home) / "catalog.db").load_table(IDENTIFIER), columns()
    consumer = Consumer({"bootstrap.servers": ground.bootstrap, "group.id": decoder, "enable.auto.commit": False})
    consumer.assign([TopicPartition(ground.topic, p, 0) for p in range(ground.partitions)])
    rows: list[dict[str, Any]] = []
    stored = 0
    while stored < ground.records:
        rows += [_row(decode(message.value())) for message in consumer.consume(10_000, 1.0)]
        if len(rows) >= _ROWS_PER_APPEND or stored + len(rows) >= ground.records:
            table.append(pa.Table.from_pylist(rows, schema))
            stored, rows = stored + len(rows), []
    consumer.close()


def _row(record: dict[str, Any]) -> dict[str, Any]:
    vendor_data = record["vendor_data"]
    return {**record, "vendor_data": None if vendor_data is None else list(vendor_data.items())}


def _fastavro(ground: Ground) -> Decode:
    schema = fastavro.parse_schema(ground.schema)
    return lambda value: fastavro.schemaless_reader(io.BytesIO(value[_FRAME_BYTES:]), schema, None)  # type: ignore


def _confluent(ground: Ground) -> Decode:
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": ground.registry_url}))
    return partial(deserialize, ctx=SerializationContext(ground.topic, MessageField.VALUE))


if __name__ == "__main__":
    main(*sys.argv[1:])
