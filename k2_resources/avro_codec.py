"""Avro bodies to Arrow columns with fastavro: the oracle for valid records, and the only importer that decodes.

fastavro is lenient with malformed bytes, so what it accepts is checked here: leftover bytes, enum indices, decimals out
of range. A writer schema that no record of the table can be read with makes every record of it a dead letter.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
from fastavro.read import SchemaResolutionError

from k2_core.avro import avro_schema
from k2_core.contracts import Column, Table
from k2_core.decode import Bodies, Decoder
from k2_core.quality import Reason
from k2_resources.writer_schemas import branch, hazard, is_as_expected, without_logical_types

_DECIMAL_BYTES_MAX = 16
_UNSCALED_MAX = 10**18
"""decimal(18,8): the unscaled value has at most eighteen digits."""
_EXACT = Context(prec=100)
"""No decimal of sixteen bytes has more than 39 digits, so nothing is ever rounded."""
_DETAIL_CHARACTERS_MAX = 300
"""Enough to see what is wrong; a hostile record can make a message of any length."""

Read = Callable[[bytes], dict[str, Any]]


def decoder(writer_schema: Mapping[str, Any], table: Table) -> Decoder:
    """Make a decoder of bodies written with one schema, read as the contract of one table."""
    problem = hazard(writer_schema, table)
    if problem is None:
        try:
            read = _plain_read(writer_schema, table) or _resolving_read(writer_schema, table)
        except Exception as error:  # whatever fastavro cannot parse is the writer's schema, not our failure
            problem = f"{error.__class__.__name__}: {error}"
        else:
            return lambda bodies: _decode(bodies, read, table)
    detail = f"its schema: {problem}"[:_DETAIL_CHARACTERS_MAX]
    empty = table.arrow_schema(origins=("feed",)).empty_table()
    return lambda bodies: Bodies(empty, dict.fromkeys(range(len(bodies)), (Reason.WRONG_RECORD, detail)))


def _plain_read(writer_schema: Mapping[str, Any], table: Table) -> Read | None:
    """Read with logical types and enums as what they are on the wire, exact and three times faster.

    None where the writer's fields are not of the contract's types; fastavro then resolves them by the Avro rules.
    """
    if not is_as_expected(writer_schema, avro_schema(table)):
        return None
    writer = fastavro.parse_schema(without_logical_types(writer_schema))
    reader = fastavro.parse_schema(without_logical_types(avro_schema(table)))
    enums = [
        _Enum(column, tuple(branch(field["type"])["symbols"]))
        for column in table.feed_columns
        for field in writer_schema["fields"]
        if field["name"] == column.name and column.choices
    ]

    def read(body: bytes) -> dict[str, Any]:
        record = _record(body, writer, reader)
        for enum in enums:
            record[enum.column.name] = enum.symbol(record[enum.column.name])
        return record

    return read


def _resolving_read(writer_schema: Mapping[str, Any], table: Table) -> Read:
    writer = fastavro.parse_schema(dict(writer_schema))
    reader = fastavro.parse_schema(avro_schema(table))
    return lambda body: _record(body, writer, reader)


def _record(body: bytes, writer: Any, reader: Any) -> dict[str, Any]:
    stream = io.BytesIO(body)
    record = fastavro.schemaless_reader(stream, writer, reader)
    if stream.tell() != len(body):
        raise _Leftover(f"{len(body) - stream.tell()} bytes after the record")
    assert isinstance(record, dict)
    return record


@dataclass(frozen=True)
class _Enum:
    """An enum of the writer, decoded from its index: fastavro takes a negative one from the end."""

    column: Column
    symbols: tuple[str, ...]

    def symbol(self, index: int) -> str:
        """The reader's symbol, or its default for one only the writer has. Raises ValueError."""
        if not 0 <= index < len(self.symbols):
            raise ValueError(f"{self.column.name} is symbol {index} of {len(self.symbols)}")
        if self.symbols[index] in self.column.choices:
            return self.symbols[index]
        if "UNKNOWN" in self.column.choices:
            return "UNKNOWN"
        raise ValueError(f"{self.column.name} {self.symbols[index]!r} is none of {self.column.choices}")


class _Leftover(ValueError):
    pass


class _Overflow(ValueError):
    pass


def _decode(bodies: Sequence[bytes], read: Read, table: Table) -> Bodies:
    schema = table.arrow_schema(origins=("feed",))
    decimals = [c.name for c in table.feed_columns if pa.types.is_decimal(c.type)]
    times = [c.name for c in table.feed_columns if pa.types.is_timestamp(c.type)]
    bits = {c.name: c.type.bit_width for c in table.feed_columns if pa.types.is_integer(c.type) or c.name in times}
    records: list[dict[str, Any]] = []
    dead: dict[int, tuple[Reason, str]] = {}
    for i, body in enumerate(bodies):
        try:
            record = read(body)
            for name in decimals:
                record[name] = _unscaled(name, record[name])
            for name in times:
                record[name] = _microseconds(record[name])
            for name, width in bits.items():
                _check_width(name, record[name], width)
        except Exception as error:  # the bytes are somebody else's: whatever they provoke is their verdict, not ours
            dead[i] = _reason(error)
        else:
            records.append(record)
    return Bodies(pa.table([_column(c, records) for c in table.feed_columns], schema=schema), dead)


def _reason(error: Exception) -> tuple[Reason, str]:
    detail = f"{error.__class__.__name__}: {error}".strip(": ")[:_DETAIL_CHARACTERS_MAX]
    if isinstance(error, _Leftover):
        return Reason.TRAILING_BYTES, str(error)
    if isinstance(error, _Overflow):
        return Reason.DECIMAL_OVERFLOW, str(error)[:_DETAIL_CHARACTERS_MAX]
    if isinstance(error, SchemaResolutionError):
        return Reason.WRONG_RECORD, detail
    if isinstance(error, EOFError | IndexError):
        return Reason.TRUNCATED, detail
    return Reason.UNDECODABLE, detail


def _unscaled(name: str, value: bytes | Decimal | None) -> int | None:
    """A decimal as its unscaled integer at scale 8."""
    if value is None:
        return None
    if isinstance(value, Decimal):
        scaled = value.scaleb(8, _EXACT)
        unscaled = int(scaled)
        if scaled != unscaled:
            raise _Overflow(f"{name} {value} has more than 8 decimals")
    else:
        if not 1 <= len(value) <= _DECIMAL_BYTES_MAX:
            raise _Overflow(f"{name} is a decimal of {len(value)} bytes; expected 1 to {_DECIMAL_BYTES_MAX}")
        unscaled = int.from_bytes(value, "big", signed=True)
    if abs(unscaled) >= _UNSCALED_MAX:
        raise _Overflow(f"{name} {Decimal(unscaled).scaleb(-8, _EXACT)} does not fit decimal(18,8)")
    return unscaled


def _microseconds(value: Any) -> int | None:
    if value is None or isinstance(value, int):
        return value
    instant = np.datetime64(value.replace(tzinfo=None), "us")
    return int(instant.astype(np.int64))


def _check_width(name: str, value: int | None, bits: int) -> None:
    if value is not None and not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise ValueError(f"{name} {value} does not fit {bits} bits")


def _column(column: Column, records: list[dict[str, Any]]) -> pa.Array:
    values = [record[column.name] for record in records]
    if pa.types.is_decimal(column.type):
        return _decimal_array(values, column.type)
    if pa.types.is_timestamp(column.type):
        return pa.array(values, pa.int64()).cast(column.type)
    if pa.types.is_map(column.type):
        return pa.array([None if v is None else list(v.items()) for v in values], column.type)
    return pa.array(values, column.type)


def _decimal_array(values: list[int | None], type_: pa.DataType) -> pa.Array:
    """Unscaled integers as decimals: sixteen little-endian bytes each, the upper eight the sign."""
    low = np.array([0 if v is None else v for v in values], np.int64)
    words = np.empty((len(values), 2), np.int64)
    words[:, 0], words[:, 1] = low, low >> 63
    valid = pa.array([v is not None for v in values], pa.bool_())
    return pa.Array.from_buffers(type_, len(values), [valid.buffers()[1], pa.py_buffer(words)])
