"""Avro bodies to Arrow columns: in lockstep where the schemas allow it, else one by one with fastavro.

fastavro is the oracle for valid records, and lenient with malformed bytes, so what it accepts is checked here: leftover
bytes, enum indices, decimals out of range. A writer schema that no record of the table can be read with makes every
record of it a dead letter. V1 records of the original platform are read as such, then lifted.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import structlog
from fastavro.read import SchemaResolutionError

from k2_core.avro import avro_schema
from k2_core.bodies import Bodies, Decoder
from k2_core.contracts import Table
from k2_core.frames import Frames
from k2_core.lockstep.reader import lockstep
from k2_core.lockstep.resolve import arrow_schema
from k2_core.lockstep.types import Record, Uncovered, parse
from k2_core.quality import Reason
from k2_core.v1 import is_v1, lifted, v1_schema
from k2_resources.writer_schemas import branch, hazard, is_as_expected, without_logical_types

log = structlog.get_logger(__name__)

_DECIMAL_BYTES_MAX = 16
_EXACT = Context(prec=100)
"""No decimal of sixteen bytes has more than 39 digits, so nothing is ever rounded."""
_DETAIL_CHARACTERS_MAX = 300
"""Enough to see what is wrong; a hostile record can make a message of any length."""
_SAID_MAX = 1_024
"""Schemas remembered as already said to be slow; a process meets some dozens."""

Read = Callable[[bytes], dict[str, Any]]


def decoder(writer_schema: Mapping[str, Any], table: Table) -> Decoder:
    """Make a decoder of bodies written with one schema, read as the contract of one table."""
    if is_v1(writer_schema, table):
        reader = v1_schema(table)
        read = parse(reader)
        assert isinstance(read, Record), "V1 is a record"
        decode = _decoder(writer_schema, reader, arrow_schema(read))
        return lambda bodies: lifted(decode(bodies), table)
    return _decoder(writer_schema, avro_schema(table), table.arrow_schema(origins=("feed",)))


def _decoder(writer_schema: Mapping[str, Any], reader: Mapping[str, Any], columns: pa.Schema) -> Decoder:
    try:
        problem = hazard(writer_schema, reader)
        if problem is None:
            try:
                return lockstep(writer_schema, reader, columns)
            except Uncovered as uncovered:
                _say_once(str(writer_schema.get("name")), str(uncovered))
            return fastavro_decoder(writer_schema, reader, columns)
    except Exception as error:  # whatever cannot be parsed is the writer's schema, not our failure
        problem = f"{error.__class__.__name__}: {error}"
    detail = f"its schema: {problem}"[:_DETAIL_CHARACTERS_MAX]
    return lambda bodies: Bodies(
        columns.empty_table(), dict.fromkeys(range(len(bodies)), (Reason.WRONG_RECORD, detail))
    )


@lru_cache(maxsize=_SAID_MAX)
def _say_once(record: str, why: str) -> None:
    log.info("decoded_one_by_one", record=record, why=why[:_DETAIL_CHARACTERS_MAX])


def fastavro_decoder(writer_schema: Mapping[str, Any], reader: Mapping[str, Any], columns: pa.Schema) -> Decoder:
    """Make a decoder that reads one record after the other. Raises whatever a schema fastavro cannot parse provokes."""
    read = _plain_read(writer_schema, reader) or _resolving_read(writer_schema, reader)
    return lambda bodies: _decode(bodies, read, columns)


def _plain_read(writer_schema: Mapping[str, Any], reader_schema: Mapping[str, Any]) -> Read | None:
    """Read with logical types and enums as what they are on the wire, exact and three times faster.

    None where the writer's fields are not of the reader's types; fastavro then resolves them by the Avro rules.
    """
    if not is_as_expected(writer_schema, reader_schema):
        return None
    writer = fastavro.parse_schema(without_logical_types(writer_schema))
    reader = fastavro.parse_schema(without_logical_types(reader_schema))
    enums = [_enum(field, writer_schema) for field in reader_schema["fields"] if _is(field, "type", "enum")]
    millis = [f["name"] for f in reader_schema["fields"] if _is(f, "logicalType", "timestamp-millis")]

    def read(body: bytes) -> dict[str, Any]:
        record = _record(body, writer, reader)
        for enum in enums:
            if enum is not None:
                record[enum.name] = enum.symbol(record[enum.name])
        for name in millis:
            record[name] *= 1_000
        return record

    return read


def _is(field: Mapping[str, Any], key: str, value: str) -> bool:
    type_ = branch(field["type"])
    return isinstance(type_, Mapping) and type_.get(key) == value


def _resolving_read(writer_schema: Mapping[str, Any], reader_schema: Mapping[str, Any]) -> Read:
    writer = fastavro.parse_schema(dict(writer_schema))
    reader = fastavro.parse_schema(dict(reader_schema))
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

    name: str
    symbols: tuple[str, ...]
    known: tuple[str, ...]
    default: str | None

    def symbol(self, index: int) -> str:
        """The reader's symbol, or its default for one only the writer has. Raises ValueError."""
        if not 0 <= index < len(self.symbols):
            raise ValueError(f"{self.name} is symbol {index} of {len(self.symbols)}")
        if self.symbols[index] in self.known:
            return self.symbols[index]
        if self.default is not None:
            return self.default
        raise ValueError(f"{self.name} {self.symbols[index]!r} is none of {self.known}")


def _enum(field: Mapping[str, Any], writer_schema: Mapping[str, Any]) -> _Enum | None:
    """None where the writer does not have the field."""
    reader = branch(field["type"])
    written = [branch(f["type"]) for f in writer_schema["fields"] if f["name"] == field["name"]]
    if not written:
        return None
    return _Enum(field["name"], tuple(written[0]["symbols"]), tuple(reader["symbols"]), reader.get("default"))


class _Leftover(ValueError):
    pass


class _Overflow(ValueError):
    pass


def _decode(bodies: Frames, read: Read, columns: pa.Schema) -> Bodies:
    decimals = [f for f in columns if pa.types.is_decimal(f.type)]
    times = [f.name for f in columns if pa.types.is_timestamp(f.type)]
    bits = {f.name: f.type.bit_width for f in columns if pa.types.is_integer(f.type) or f.name in times}
    records: list[dict[str, Any]] = []
    dead: dict[int, tuple[Reason, str]] = {}
    for i in range(len(bodies)):
        try:
            record = read(bodies[i])
            for field in decimals:
                record[field.name] = _unscaled(field, record[field.name])
            for name in times:
                record[name] = _microseconds(record[name])
            for name, width in bits.items():
                _check_width(name, record[name], width)
        except Exception as error:  # the bytes are somebody else's: whatever they provoke is their verdict, not ours
            dead[i] = _reason(error)
        else:
            records.append(record)
    return Bodies(pa.table([_column(field, records) for field in columns], schema=columns), dead)


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


def _unscaled(field: pa.Field, value: bytes | Decimal | None) -> int | None:
    """A decimal as its unscaled integer at the scale of its column."""
    if value is None:
        return None
    scale = field.type.scale
    if isinstance(value, Decimal):
        scaled = value.scaleb(scale, _EXACT)
        unscaled = int(scaled)
        if scaled != unscaled:
            raise _Overflow(f"{field.name} {value} has more than {scale} decimals")
    else:
        if not 1 <= len(value) <= _DECIMAL_BYTES_MAX:
            raise _Overflow(f"{field.name} is a decimal of {len(value)} bytes; expected 1 to {_DECIMAL_BYTES_MAX}")
        unscaled = int.from_bytes(value, "big", signed=True)
    if abs(unscaled) >= 10**field.type.precision:
        value = Decimal(unscaled).scaleb(-scale, _EXACT)
        raise _Overflow(f"{field.name} {value} does not fit decimal({field.type.precision},{scale})")
    return unscaled


def _microseconds(value: Any) -> int | None:
    if value is None or isinstance(value, int):
        return value
    instant = np.datetime64(value.replace(tzinfo=None), "us")
    return int(instant.astype(np.int64))


def _check_width(name: str, value: int | None, bits: int) -> None:
    if value is not None and not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise ValueError(f"{name} {value} does not fit {bits} bits")


def _column(field: pa.Field, records: list[dict[str, Any]]) -> pa.Array:
    values = [record[field.name] for record in records]
    if pa.types.is_decimal(field.type):
        return _decimal_array(values, field.type)
    if pa.types.is_timestamp(field.type):
        return pa.array(values, pa.int64()).cast(field.type)
    if pa.types.is_map(field.type):
        return pa.array([None if v is None else list(v.items()) for v in values], field.type)
    return pa.array(values, field.type)


def _decimal_array(values: list[int | None], type_: pa.DataType) -> pa.Array:
    """Unscaled integers as decimals: sixteen little-endian bytes each, the upper eight the sign."""
    low = np.array([0 if v is None else v for v in values], np.int64)
    words = np.empty((len(values), 2), np.int64)
    words[:, 0], words[:, 1] = low, low >> 63
    valid = pa.array([v is not None for v in values], pa.bool_())
    return pa.Array.from_buffers(type_, len(values), [valid.buffers()[1], pa.py_buffer(words)])
