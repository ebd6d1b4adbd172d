"""Rows of a contract as Confluent Avro: one record with fastavro, or many from their columns at once.

The second is the mirror of k2_core.lockstep: every field of all rows is written before the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa

from k2_core.avro import avro_schema
from k2_core.frames import HEADER_BYTES, MAGIC, Bytes, Longs, words_of
from k2_core.tables import Table
from k2_feeds.batches import records_of
from k2_feeds.values import unscaled
from k2_feeds.wire_fields import GAP_BYTES, Field, Mask, field_of, is_long


class Encoder:
    """Writes one record of a contract as Confluent Avro. schema_id: what the registry gave to that schema."""

    def __init__(self, table: Table, schema_id: int) -> None:
        self._schema = fastavro.parse_schema(avro_schema(table))
        self._prefix = _prefix(schema_id)
        self._decimals = tuple(c.name for c in table.feed_columns if pa.types.is_decimal(c.type))

    def __call__(self, record: Mapping[str, Any]) -> bytes:
        """Encode one record. Decimals go as the shortest two's complement of the unscaled value."""
        fields = dict(record)
        for name in self._decimals:
            if fields[name] is not None:
                whole = unscaled(fields[name])
                fields[name] = whole.to_bytes(whole.bit_length() // 8 + 1, "big", signed=True)
        out = BytesIO()
        out.write(self._prefix)
        fastavro.schemaless_writer(out, self._schema, fields)
        return out.getvalue()


class ColumnEncoder:
    """Writes many rows of a contract from columns, byte for byte as Encoder writes them one by one."""

    def __init__(self, table: Table, schema_id: int) -> None:
        self._columns = table.feed_columns
        self._prefix = np.frombuffer(_prefix(schema_id).ljust(8, b"\0"), np.uint64)
        self._one = Encoder(table, schema_id)

    def __call__(self, rows: pa.RecordBatch) -> list[bytes]:
        """Encode every row. rows: the feed columns of the contract; text may be dictionary-encoded.

        Raises ValueError for a null where none may be, and for a word that is none of a column's choices.
        """
        alone = np.zeros(rows.num_rows, np.bool_)
        for values in rows.columns:
            alone |= is_long(values)
        return self._mixed(rows, alone) if alone.any() else self._in_step(rows)

    def _in_step(self, rows: pa.RecordBatch) -> list[bytes]:
        if not rows.num_rows:
            return []
        fields = [field_of(column, rows.column(column.name)) for column in self._columns]
        sizes = np.full(rows.num_rows, HEADER_BYTES)
        for field in fields:
            sizes += field.sizes
        ends = np.cumsum(sizes + GAP_BYTES) - GAP_BYTES
        starts = ends - sizes
        out = np.empty(int(ends[-1]) + GAP_BYTES, np.uint8)
        self._write(out, starts, fields)
        content = out.tobytes()
        return [content[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def _write(self, out: Bytes, at: Longs, fields: Sequence[Field]) -> None:
        words = words_of(out)
        words[at] = self._prefix
        at = at + HEADER_BYTES
        for field in fields:
            field.write(words, at)
            at = at + field.sizes

    def _mixed(self, rows: pa.RecordBatch, alone: Mask) -> list[bytes]:
        """Rows with something long one by one, all others in step."""
        plain = iter(self._in_step(rows.filter(pa.array(~alone))))
        long = map(self._one, records_of(rows.filter(pa.array(alone))))
        return [next(long if is_alone else plain) for is_alone in alone.tolist()]


def _prefix(schema_id: int) -> bytes:
    return bytes([MAGIC]) + schema_id.to_bytes(HEADER_BYTES - 1, "big")
