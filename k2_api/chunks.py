"""Rows cut into chunks of one size and one form, and a file that hands on what is written to it.

For formats whose bytes would show otherwise how the rows came: in which batches, out of which files.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


class Chunks:
    """Cuts rows into chunks of one size, whatever batches they come in. schema: the columns kept, and their types."""

    def __init__(self, schema: pa.Schema, rows: int) -> None:
        self._schema = schema
        self._rows = rows
        self._held: list[pa.RecordBatch] = []
        self._count = 0

    def full(self, batch: pa.RecordBatch) -> Iterator[pa.Table]:
        """The chunks that are full with these rows, each one contiguous."""
        self._held.append(batch.select(self._schema.names).cast(self._schema))
        self._count += batch.num_rows
        if self._count < self._rows:
            return
        table = pa.Table.from_batches(self._held)
        whole = table.num_rows - table.num_rows % self._rows
        for start in range(0, whole, self._rows):
            yield _plain(table.slice(start, self._rows))
        self._held, self._count = table.slice(whole).combine_chunks().to_batches(), table.num_rows - whole

    def rest(self) -> Iterator[pa.Table]:
        """The rows that filled no chunk."""
        held, self._held = self._held, []
        if any(batch.num_rows for batch in held):
            yield _plain(pa.Table.from_batches(held))


class Sink(io.RawIOBase):
    """A file whose bytes are taken out as they are written."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._written.append(bytes(content))
        return len(content)

    def drained(self) -> bytes:
        """Everything written since the last time."""
        taken, self._written = b"".join(self._written), []
        return taken


def _plain(table: pa.Table) -> pa.Table:
    """One contiguous chunk whose bytes depend on its values alone: under a null there may be anything else."""
    columns = [_without_remains(column.combine_chunks()) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _without_remains(column: pa.Array) -> pa.Array:
    if not column.null_count or pa.types.is_nested(column.type) or pa.types.is_string(column.type):
        return column
    valid = pc.is_valid(column).buffers()[1]
    return pa.Array.from_buffers(column.type, len(column), [valid, column.fill_null(_zero(column.type)).buffers()[1]])


def _zero(kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_decimal(kind):
        return pa.scalar(Decimal(0), kind)
    return pa.scalar(0, pa.int32()).cast(kind)
