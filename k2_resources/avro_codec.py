"""Avro bodies to Arrow columns with fastavro: the oracle for valid records, and the only importer that decodes.

fastavro is lenient with malformed bytes, so what it accepts is checked here: leftover bytes, decimals out of range.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
from fastavro.read import SchemaResolutionError

from k2_core.avro import avro_schema
from k2_core.contracts import Column, Table
from k2_core.decode import Bodies, Decoder
from k2_core.quality import Reason

_DECIMAL_BYTES_MAX = 16
_UNSCALED_MAX = 10**18
"""decimal(18,8): the unscaled value has at most eighteen digits."""


def decoder(writer_schema: Mapping[str, Any], table: Table) -> Decoder:
    """Make a decoder of bodies written with one schema, read as the contract of one table.

    Where writer and contract agree, logical types are left to us (exact and three times faster); otherwise fastavro
    resolves them by the Avro rules.
    """
    reader_schema = avro_schema(table)
    plain = _without_logical_types(writer_schema) if _same_shape(writer_schema, reader_schema) else None
    writer = fastavro.parse_schema(plain if plain is not None else dict(writer_schema))
    reader = fastavro.parse_schema(_without_logical_types(reader_schema) if plain is not None else reader_schema)

    def read(body: bytes) -> dict[str, Any]:
        stream = io.BytesIO(body)
        record = fastavro.schemaless_reader(stream, writer, reader)
        if stream.tell() != len(body):
            raise _Leftover(f"{len(body) - stream.tell()} bytes after the record")
        assert isinstance(record, dict)
        return record

    def decode(bodies: Sequence[bytes]) -> Bodies:
        return _decode(bodies, read, table)

    return decode


class _Leftover(ValueError):
    pass


class _Overflow(ValueError):
    pass


def _decode(bodies: Sequence[bytes], read: Callable[[bytes], dict[str, Any]], table: Table) -> Bodies:
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
    detail = f"{error.__class__.__name__}: {error}".strip(": ")[:300]
    if isinstance(error, _Leftover):
        return Reason.TRAILING_BYTES, str(error)
    if isinstance(error, _Overflow):
        return Reason.DECIMAL_OVERFLOW, str(error)
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
        scaled = value.scaleb(8)
        unscaled = int(scaled)
        if scaled != unscaled:
            raise _Overflow(f"{name} {value} has more than 8 decimals")
    else:
        if not 1 <= len(value) <= _DECIMAL_BYTES_MAX:
            raise _Overflow(f"{name} is a decimal of {len(value)} bytes; expected 1 to {_DECIMAL_BYTES_MAX}")
        unscaled = int.from_bytes(value, "big", signed=True)
    if abs(unscaled) >= _UNSCALED_MAX:
        raise _Overflow(f"{name} {Decimal(unscaled).scaleb(-8)} does not fit decimal(18,8)")
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


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(branch) for branch in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "logicalType" in schema:
        return schema["type"]
    return {key: _without_logical_types(value) if key in _NESTED else value for key, value in schema.items()}


_NESTED = ("type", "fields", "items", "values")


def _same_shape(writer: Mapping[str, Any], reader: Mapping[str, Any]) -> bool:
    """Whether every field of the reader has the same logical type in the writer, or is not there at all."""
    fields = writer.get("fields", [])
    by_name = {field["name"]: _shape(field["type"]) for field in fields}
    return all(by_name.get(f["name"], _shape(f["type"])) == _shape(f["type"]) for f in reader["fields"])


def _shape(type_: Any) -> Any:
    """A type without names and docs, so that only what decides the bytes is compared."""
    if isinstance(type_, list):
        return [_shape(branch) for branch in type_]
    if isinstance(type_, Mapping):
        if type_.get("type") == "enum":
            return "enum"
        keys = ("type", "logicalType", "precision", "scale", "items", "values")
        return {key: _shape(type_[key]) for key in keys if key in type_} if len(type_) > 1 else _shape(type_["type"])
    return type_
