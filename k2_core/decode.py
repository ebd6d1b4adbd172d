"""From log records to rows: the Confluent frame, one decoder per writer schema, one verdict per record.

A record that cannot be decoded never spoils its neighbours: it becomes a `Dead` with its reason. Decoders are handed
in, so that this room needs no Avro library and a faster one can take the place of another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2_core.contracts import Table
from k2_core.quality import Reason
from k2_core.records import Records

MAGIC = 0
"""First byte of the Confluent wire format; four bytes of schema id follow, big-endian."""
HEADER_BYTES = 5


@dataclass(frozen=True)
class Dead:
    """Why one record is a dead letter. index: its place among the records given."""

    index: int
    reason: Reason
    detail: str
    schema_id: int | None = None


@dataclass(frozen=True)
class Bodies:
    """What one decoder made of its bodies: rows (feed columns) of those it could read, in order, and the others."""

    rows: pa.Table
    dead: Mapping[int, tuple[Reason, str]]


Decoder = Callable[[Sequence[bytes]], Bodies]


@dataclass(frozen=True)
class Decoded:
    """Rows of one topic: feed columns, in record order, with the index of the record each came from."""

    rows: pa.Table
    source: npt.NDArray[np.int64]
    dead: tuple[Dead, ...]
    schema_ids: tuple[int, ...]


def decode(records: Records, table: Table, decoder_of: Callable[[int], Decoder | None]) -> Decoded:
    """Decode every record it can. decoder_of: schema id -> decoder, or None for an id that does not exist.

    Whatever decoder_of raises (an unreachable registry) passes through: nothing is decided about the batch.
    """
    by_schema, dead = _unframed(records)
    tables, sources = [table.arrow_schema(origins=("feed",)).empty_table()], [np.empty(0, np.int64)]
    for schema_id, indices in by_schema.items():
        decoder = decoder_of(schema_id)
        if decoder is None:
            dead += [
                Dead(i, Reason.UNKNOWN_SCHEMA, f"schema id {schema_id} is not registered", schema_id) for i in indices
            ]
            continue
        bodies = decoder([_body(records.values[i]) for i in indices])
        dead += [Dead(indices[at], reason, detail, schema_id) for at, (reason, detail) in bodies.dead.items()]
        tables.append(bodies.rows)
        sources.append(np.array([i for at, i in enumerate(indices) if at not in bodies.dead], np.int64))
        assert len(sources[-1]) == bodies.rows.num_rows, "a decoder returns one row for each body it did not reject"
    source = np.concatenate(sources)
    order = np.argsort(source, kind="stable")
    rows = pa.concat_tables(tables).take(pa.array(order)).combine_chunks()
    return Decoded(rows, source[order], tuple(sorted(dead, key=lambda d: d.index)), tuple(sorted(by_schema)))


def _unframed(records: Records) -> tuple[dict[int, list[int]], list[Dead]]:
    by_schema: dict[int, list[int]] = {}
    dead: list[Dead] = []
    for i, value in enumerate(records.values):
        if value is None:
            dead.append(Dead(i, Reason.NULL_VALUE, "a tombstone; this topic holds events, nothing is deleted by key"))
        elif not value:
            dead.append(Dead(i, Reason.EMPTY, "no bytes; expected a Confluent frame"))
        elif value[0] != MAGIC:
            dead.append(Dead(i, Reason.BAD_MAGIC, f"first byte {value[0]:#04x}; expected {MAGIC:#04x}"))
        elif len(value) < HEADER_BYTES:
            dead.append(Dead(i, Reason.TRUNCATED, f"{len(value)} bytes; the frame alone has {HEADER_BYTES}"))
        elif (schema_id := schema_id_of(value)) is None:
            found = value[1:HEADER_BYTES].hex()
            dead.append(Dead(i, Reason.UNKNOWN_SCHEMA, f"schema id 0x{found} is negative; ids are positive int32"))
        else:
            by_schema.setdefault(schema_id, []).append(i)
    return by_schema, dead


def schema_id_of(value: bytes | None) -> int | None:
    """The writer schema id a frame names; None where there is no frame, or no id a registry could give."""
    if value is None or len(value) < HEADER_BYTES or value[0] != MAGIC or value[1] & 0x80:
        return None
    return int.from_bytes(value[1:HEADER_BYTES], "big")


def schema_ids_by_partition(records: Records) -> dict[int, set[int]]:
    """Which writer schemas the records of each Kafka partition name."""
    found: dict[int, set[int]] = {}
    for kafka_partition, value in zip(records.kafka_partitions.tolist(), records.values, strict=True):
        if (schema_id := schema_id_of(value)) is not None:
            found.setdefault(kafka_partition, set()).add(schema_id)
    return found


def _body(value: bytes | None) -> bytes:
    assert value is not None
    return value[HEADER_BYTES:]
