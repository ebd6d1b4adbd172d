"""The Avro resolution rules: how bytes of a writer's schema are read as a reader's.

Fields match by name or by an alias of the reader; enum symbols by name, whatever the enums are called; records and
fixed by name without namespace. A decimal has the reader's scale; every long may be a timestamp in microseconds.
"""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Any

import pyarrow as pa

from k2_core.lockstep.leaves import DECIMAL_BYTES_MAX, Boolean, Choice, Exact, FixedBytes, Number, Text
from k2_core.lockstep.nodes import Default, LeafNode, Listing, Node, Optional, RecordNode, Step
from k2_core.lockstep.skips import check_skippable
from k2_core.lockstep.types import (
    NULL,
    Array,
    Enum,
    Field,
    Fixed,
    Map,
    Primitive,
    Record,
    Type,
    Uncovered,
    Union,
    bytes_min,
)

TIMESTAMP = pa.timestamp("us", tz="UTC")
_UNITS_US = {"timestamp-micros": 1, "timestamp-millis": 1_000}
_DECIMAL_DIGITS_MAX = 38
_EXACT = Context(prec=100)
_ARROW = {
    ("null", None): pa.null(),
    ("boolean", None): pa.bool_(),
    ("int", None): pa.int32(),
    ("int", "date"): pa.date32(),
    ("long", None): pa.int64(),
    ("long", "timestamp-micros"): TIMESTAMP,
    ("long", "timestamp-millis"): TIMESTAMP,
    ("float", None): pa.float32(),
    ("double", None): pa.float64(),
    ("string", None): pa.string(),
    ("string", "uuid"): pa.string(),
    ("bytes", None): pa.binary(),
}
"""What a reader's type becomes; a uuid is its text."""
_PROMOTIONS = {
    "int": ("int", "long", "float", "double"),
    "long": ("long", "float", "double"),
    "float": ("float", "double"),
    "double": ("double",),
    "string": ("string", "bytes"),
    "bytes": ("string", "bytes"),
    "boolean": ("boolean",),
}


def resolve(writer: Type, reader: Type) -> RecordNode:
    """Plan how records of one schema are read as another. Raises Uncovered."""
    if not (isinstance(writer, Record) and isinstance(reader, Record)):
        raise Uncovered("both schemas must be records")
    return _record(writer, reader, "")


def arrow_type(reader: Type, name: str = "") -> pa.DataType:
    """The Arrow type of a reader's type, null or not. Raises Uncovered."""
    found: pa.DataType | None = None
    if isinstance(reader, Primitive):
        found = _decimal(reader) if reader.logical == "decimal" else _ARROW.get((reader.kind, reader.logical))
    elif isinstance(reader, Fixed):
        found = _decimal(reader) if reader.logical == "decimal" else pa.binary(reader.size)
    elif isinstance(reader, Enum):
        found = pa.string()
    elif isinstance(reader, Union):
        return arrow_type(_value_of(reader, name), name)
    elif isinstance(reader, Array):
        found = pa.list_(pa.field("element", arrow_type(reader.items, name), nullable=_has_null(reader.items)))
    elif isinstance(reader, Map):
        found = pa.map_(pa.string(), arrow_type(reader.values, name))
    else:
        found = pa.struct(arrow_schema(reader))
    if found is None:
        raise Uncovered(f"{name}: a reader's type that is not covered: {reader}")
    return found


def arrow_schema(reader: Record) -> pa.Schema:
    """The columns of a reader's record. Raises Uncovered."""
    return pa.schema(pa.field(f.name, arrow_type(f.type, f.name), nullable=_has_null(f.type)) for f in reader.fields)


def _has_null(reader: Type) -> bool:
    return reader == NULL or (isinstance(reader, Union) and NULL in reader.branches)


def _decimal(type_: Primitive | Fixed) -> pa.DataType | None:
    """None for a decimal on what cannot carry one, or with more digits than decimal128 has."""
    carries = isinstance(type_, Fixed) or type_.kind == "bytes"
    return pa.decimal128(type_.precision, type_.scale) if carries and type_.precision <= _DECIMAL_DIGITS_MAX else None


def _record(writer: Record, reader: Record, name: str) -> RecordNode:
    if name and writer.name != reader.name and writer.name not in reader.aliases:
        raise Uncovered(f"{name}: record {writer.name} is not {reader.name}")
    taken = _matches(writer, reader, name)
    steps, defaults = [], {}
    for field in writer.fields:
        path = f"{name}.{field.name}".lstrip(".")
        place = taken.get(field.name)
        if place is None:
            check_skippable(field.type, path)
            steps.append(Step(path, field.type))
        else:
            steps.append(Step(path, field.type, _node(field.type, reader.fields[place].type, path), place))
    for place, field in enumerate(reader.fields):
        if place not in taken.values():
            defaults[place] = _default(field, f"{name}.{field.name}".lstrip("."))
    return RecordNode(pa.struct(arrow_schema(reader)), tuple(steps), defaults)


def _matches(writer: Record, reader: Record, name: str) -> dict[str, int]:
    """Writer's field -> place of the reader's field it fills."""
    taken: dict[str, int] = {}
    names = [field.name for field in writer.fields]
    for place, field in enumerate(reader.fields):
        found = [n for n in names if n == field.name or n in field.aliases]
        if len(found) > 1 or any(n in taken for n in found):
            raise Uncovered(f"{name}.{field.name}: more than one field goes by its names")
        taken.update(dict.fromkeys(found, place))
    return taken


def _node(writer: Type, reader: Type, name: str) -> Node:
    if isinstance(writer, Union):
        return _from_union(writer, reader, name)
    inner = _value_of(reader, name) if isinstance(reader, Union) else reader
    if writer == NULL:
        if not _has_null(reader):
            raise Uncovered(f"{name} is always null")
        return Default(pa.nulls(1, arrow_type(reader, name)))
    if isinstance(writer, Record) and isinstance(inner, Record):
        return _record(writer, inner, name)
    if isinstance(writer, Array) and isinstance(inner, Array):
        if bytes_min(writer.items) < 1:
            raise Uncovered(f"{name} is an array whose items take no bytes")
        item = _item(writer.items, inner.items, name)
        return Listing(name, arrow_type(inner, name), writer.items, item)
    if isinstance(writer, Map) and isinstance(inner, Map):
        item = _item(writer.values, inner.values, name)
        return Listing(name, arrow_type(inner, name), writer.values, item, Text(f"a key of {name}", pa.string()))
    return _leaf(writer, inner, name)


def _from_union(writer: Union, reader: Type, name: str) -> Node:
    values = [branch for branch in writer.branches if branch != NULL]
    if len(values) > 1 or len(writer.branches) > len(values) + 1:
        raise Uncovered(f"{name} is a union of several types")
    if not values:
        raise Uncovered(f"{name} is a union of null alone")
    null_index = writer.branches.index(NULL) if NULL in writer.branches else -1
    inner = _node(values[0], _value_of(reader, name) if isinstance(reader, Union) else reader, name)
    return Optional(name, inner, null_index, len(writer.branches), is_required=not _has_null(reader))


def _value_of(union: Union, name: str) -> Type:
    """The type of a reader's union that is not null."""
    values = [branch for branch in union.branches if branch != NULL]
    if len(values) != 1 or len(union.branches) > 2 or isinstance(values[0], Union):
        raise Uncovered(f"{name}: a reader's union of several types")
    return values[0]


def _item(writer: Type, reader: Type, name: str) -> LeafNode | Optional:
    found = _node(writer, reader, f"an item of {name}")
    inner = found.inner if isinstance(found, Optional) else found
    if not isinstance(inner, LeafNode):
        raise Uncovered(f"{name}: items that have parts of their own")
    assert isinstance(found, LeafNode | Optional)
    return found


def _leaf(writer: Type, reader: Type, name: str) -> LeafNode:
    if isinstance(writer, Enum) and isinstance(reader, Enum):
        return _choice(writer, reader, name)
    if isinstance(writer, Primitive | Fixed) and isinstance(reader, Primitive | Fixed):
        if "decimal" in (writer.logical, reader.logical):
            return _exact(writer, reader, name)
        if isinstance(writer, Fixed) and isinstance(reader, Fixed) and _same_fixed(writer, reader):
            return FixedBytes(name, writer.size)
        if isinstance(writer, Primitive) and isinstance(reader, Primitive):
            return _primitive(writer, reader, name)
    raise Uncovered(f"{name}: {_said(writer)} cannot be read as {_said(reader)}")


def _primitive(writer: Primitive, reader: Primitive, name: str) -> LeafNode:
    type_ = arrow_type(reader, name)
    in_millis = writer.logical == "timestamp-millis" and reader.logical == "timestamp-micros"
    if reader.kind not in _PROMOTIONS.get(writer.kind, ()) or not (
        writer.logical in (None, reader.logical) or in_millis
    ):
        raise Uncovered(f"{name}: {_said(writer)} cannot be read as {_said(reader)}")
    if writer.kind == "boolean":
        return Boolean(name)
    if writer.kind in ("string", "bytes"):
        return Text(name, type_)
    said = writer.logical or reader.logical or ""
    return Number(name, writer.kind, type_, _UNITS_US.get(said, 1))


def _exact(writer: Primitive | Fixed, reader: Primitive | Fixed, name: str) -> Exact:
    alike = writer.logical == reader.logical and writer.scale == reader.scale
    if isinstance(writer, Fixed) and isinstance(reader, Fixed):
        alike = alike and _same_fixed(writer, reader) and 1 <= writer.size <= DECIMAL_BYTES_MAX
        size: int | None = writer.size
    else:
        alike = alike and isinstance(writer, Primitive) and isinstance(reader, Primitive)
        alike = (
            alike
            and _decimal(reader) is not None
            and writer == Primitive("bytes", "decimal", writer.precision, writer.scale)
        )
        size = None
    if not alike or _decimal(reader) is None:
        raise Uncovered(f"{name}: {_said(writer)} cannot be read as {_said(reader)}")
    return Exact(name, reader.precision, reader.scale, size)


def _same_fixed(writer: Fixed, reader: Fixed) -> bool:
    return (writer.name, writer.size) == (reader.name, reader.size)


def _choice(writer: Enum, reader: Enum, name: str) -> Choice:
    code = {symbol: i for i, symbol in enumerate(reader.symbols)}
    other = code.get(reader.default, -1) if reader.default is not None else -1
    return Choice(name, writer.symbols, reader.symbols, tuple(code.get(symbol, other) for symbol in writer.symbols))


def _said(type_: Type) -> str:
    if isinstance(type_, Primitive):
        said = type_.logical or type_.kind
        return f"{said}({type_.precision},{type_.scale})" if said == "decimal" else said
    return type_.__class__.__name__.lower()


def _default(field: Field, name: str) -> Default:
    if not field.default:
        raise Uncovered(f"{name} is not written and has no default")
    return Default(pa.array([_value(field.default[0], field.type, name)], arrow_type(field.type, name)))


def _value(stated: Any, type_: Type, name: str) -> Any:
    """A default as the schema document states it, as a value."""
    if stated is None:
        return None
    if isinstance(type_, Union):
        return _value(stated, _value_of(type_, name), name)
    if isinstance(type_, Array):
        return [_value(item, type_.items, name) for item in stated]
    if isinstance(type_, Map):
        return [(key, _value(item, type_.values, name)) for key, item in stated.items()]
    if isinstance(type_, Record):
        return {f.name: _value(stated.get(f.name, *f.default), f.type, name) for f in type_.fields}
    return _leaf_value(stated, type_)


def _leaf_value(stated: Any, type_: Primitive | Fixed | Enum) -> Any:
    if isinstance(type_, Fixed) or (isinstance(type_, Primitive) and type_.kind == "bytes"):
        content = str(stated).encode("latin-1")
        if type_.logical != "decimal":
            return content
        return Decimal(int.from_bytes(content, "big", signed=True)).scaleb(-type_.scale, _EXACT)
    if isinstance(type_, Primitive) and type_.kind == "long":
        return int(stated) * _UNITS_US.get(type_.logical or "", 1)
    return stated
