"""From log records to rows: the Confluent frame, one decoder per writer schema, one verdict per record.

A record that cannot be decoded never spoils its neighbours: it becomes a `Dead` with its reason. Decoders are handed
in, so that this room needs no Avro library and a faster one can take the place of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2_core.bodies import Bodies, Decoder
from k2_core.contracts import Table
from k2_core.frames import Framed, Frames, Longs, schema_id_of, unframe
from k2_core.quality import Reason
from k2_core.records import Records

SLICE_RECORDS = 1 << 14
"""Records decoded at a time: enough that a millisecond of calls is shared by many, few enough that all they touch stays
in a processor's last cache."""
SLICE_BYTES_MAX = 1 << 28
"""Joined bytes of one slice, well inside what 32-bit offsets reach; a slice of larger records is halved."""


@dataclass(frozen=True)
class Dead:
    """Why one record is a dead letter. index: its place among the records given."""

    index: int
    reason: Reason
    detail: str
    schema_id: int | None = None


@dataclass(frozen=True)
class Decoded:
    """Rows of one topic: feed columns, in record order, with the index of the record each came from."""

    rows: pa.Table
    source: npt.NDArray[np.int64]
    dead: tuple[Dead, ...]
    schema_ids: tuple[int, ...]


def decode(records: Records, table: Table, decoder_of: Callable[[int], Decoder | None]) -> Decoded:
    """Decode every record it can. decoder_of: schema id -> decoder, or None for an id that does not exist.

    Rows come in one chunk per slice. Whatever decoder_of raises (an unreachable registry) passes through: nothing is
    decided about the batch.
    """
    decoders: dict[int, Decoder | None] = {}
    tables, sources = [table.arrow_schema(origins=("feed",)).empty_table()], [np.empty(0, np.int64)]
    dead: list[Dead] = []
    for first, framed in _slices(records):
        for schema_id in framed.by_schema.keys() - decoders.keys():
            decoders[schema_id] = decoder_of(schema_id)
        rows, source, rejected = _rows(framed, decoders)
        tables += rows
        sources.append(source + first)
        dead += [Dead(d.index + first, d.reason, d.detail, d.schema_id) for d in rejected]
    return Decoded(pa.concat_tables(tables), np.concatenate(sources), tuple(dead), tuple(sorted(decoders)))


def with_lineage(decoded: Decoded, records: Records, epoch: int) -> pa.Table:
    """Rows with the columns that say which record each came from. decoded: what was made of these records."""
    n, at = len(decoded.rows), decoded.source
    rows = decoded.rows.append_column("kafka_topic", pa.repeat(records.topic, n))
    rows = rows.append_column("kafka_epoch", pa.array(np.full(n, epoch, np.int32)))
    rows = rows.append_column("kafka_partition", pa.array(records.kafka_partitions[at], pa.int32()))
    return rows.append_column("kafka_offset", pa.array(records.offsets[at], pa.int64()))


def schema_ids_by_partition(records: Records) -> dict[int, set[int]]:
    """Which writer schemas the records of each Kafka partition name."""
    found: dict[int, set[int]] = {}
    for first, framed in _slices(records):
        for schema_id, at in framed.by_schema.items():
            for kafka_partition in np.flatnonzero(np.bincount(records.kafka_partitions[at + first])).tolist():
                found.setdefault(kafka_partition, set()).add(schema_id)
    return found


def _slices(records: Records) -> Iterator[tuple[int, Framed]]:
    """First index and records of each slice."""
    first, values = 0, records.values
    for frames in records.joined or _joined(values):
        yield from _framed(first, frames, values[first : first + len(frames)])
        first += len(frames)
    assert first == len(records), "what was joined are all values"


def _joined(values: Sequence[bytes | None]) -> Iterator[Frames]:
    for first in range(0, len(values), SLICE_RECORDS):
        yield Frames.of(values[first : first + SLICE_RECORDS])


def _framed(first: int, frames: Frames, values: Sequence[bytes | None]) -> Iterator[tuple[int, Framed]]:
    if len(values) > 1 and len(frames.data) > SLICE_BYTES_MAX:
        middle = len(values) // 2
        for at, some in ((0, values[:middle]), (middle, values[middle:])):
            yield from _framed(first + at, Frames.of(some), some)
    else:
        yield first, unframe(frames, values)


def _rows(framed: Framed, decoders: dict[int, Decoder | None]) -> tuple[list[pa.Table], Longs, list[Dead]]:
    """Tables of one slice in record order, the place of each row, and the dead in that order too."""
    dead = [Dead(b.index, b.reason, b.detail) for b in framed.bad]
    tables, sources = [], [np.empty(0, np.int64)]
    for schema_id, at in framed.by_schema.items():
        if (decoder := decoders[schema_id]) is None:
            detail = f"schema id {schema_id} is not registered"
            dead += [Dead(i, Reason.UNKNOWN_SCHEMA, detail, schema_id) for i in at.tolist()]
            continue
        bodies = decoder(framed.bodies if len(at) == len(framed.bodies) else framed.bodies.some(at))
        dead += [Dead(int(at[i]), reason, detail, schema_id) for i, (reason, detail) in bodies.dead.items()]
        tables.append(bodies.rows)
        sources.append(np.delete(at, list(bodies.dead)) if bodies.dead else at)
        assert len(sources[-1]) == bodies.rows.num_rows, "a decoder returns one row for each body it did not reject"
    source = np.concatenate(sources)
    if len(tables) > 1:
        order = np.argsort(source, kind="stable")
        tables, source = [pa.concat_tables(tables).take(pa.array(order)).combine_chunks()], source[order]
    return tables, source, sorted(dead, key=lambda d: d.index)


__all__ = [
    "Bodies",
    "Dead",
    "Decoded",
    "Decoder",
    "decode",
    "schema_id_of",
    "schema_ids_by_partition",
    "with_lineage",
]
