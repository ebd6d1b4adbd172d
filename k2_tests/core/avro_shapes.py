"""Strategies: pairs of schemas lockstep covers, with values of the writer's, and what a reader makes of them."""

from __future__ import annotations

import copy
import io
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import fastavro
from hypothesis import strategies as st

INT, LONG = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
EXACT_IN_DOUBLE = st.integers(-(2**53), 2**53)
FLOAT = st.floats(width=32, allow_nan=False)
DOUBLE = st.floats(allow_nan=False)
TEXT = st.text(st.characters(codec="utf-8"), max_size=90)
MICROS = st.integers(-(2**53), 2**53)


@dataclass(frozen=True)
class Shape:
    """One type on both sides. raw: values as they are on the wire, logical types undone; seen: raw -> what is read."""

    writer: Any
    reader: Any
    raw: st.SearchStrategy[Any]
    seen: Any = field(default=lambda raw: raw)


def same(type_, raw, seen=lambda raw: raw):
    return Shape(type_, type_, raw, seen)


def decimal(content, scale):
    return Decimal(int.from_bytes(content, "big", signed=True)).scaleb(-scale, Context(prec=100))


def double(value):
    return float(value)


def single(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def decimals(draw, number):
    precision = draw(st.integers(1, 38))
    scale = draw(st.integers(0, precision))
    logical = {"logicalType": "decimal", "precision": precision, "scale": scale}
    limit = 10**precision - 1
    values = st.integers(-limit, limit)

    def seen(raw):
        return decimal(raw, scale)

    if draw(st.booleans()):
        size = draw(st.integers(limit.bit_length() // 8 + 1, 16))
        fixed = {"type": "fixed", "name": f"Amount{number}", "size": size, **logical}
        return same(fixed, values.map(lambda v: v.to_bytes(size, "big", signed=True)), seen)
    more = draw(st.integers(0, 3))
    padded = values.map(lambda v: v.to_bytes(min(16, v.bit_length() // 8 + 1 + more), "big", signed=True))
    return same({"type": "bytes", **logical}, padded, seen)


def enums(draw, number):
    symbols = draw(st.lists(st.sampled_from("ABCDEFGH"), min_size=1, unique=True))
    known = draw(st.permutations([*symbols, "Z"])) if draw(st.booleans()) else ["Z", *symbols[: len(symbols) // 2]]
    writer = {"type": "enum", "name": f"Choice{number}", "symbols": symbols}
    reader = {"type": "enum", "name": f"Choice{number}", "symbols": known, "default": "Z"}
    return Shape(writer, reader, st.sampled_from(symbols), lambda raw: raw if raw in known else "Z")


def fixed(draw, number):
    size = draw(st.integers(1, 20))
    return same({"type": "fixed", "name": f"Fixed{number}", "size": size}, st.binary(min_size=size, max_size=size))


TIMES = {"type": "long", "logicalType": "timestamp-micros"}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
PLAIN = (
    same("boolean", st.booleans()),
    same("int", INT),
    same("long", LONG),
    same("float", FLOAT),
    same("double", DOUBLE),
    same("string", TEXT),
    same("bytes", st.binary(max_size=90)),
    same(TIMES, MICROS),
    same({"type": "int", "logicalType": "date"}, INT),
    same({"type": "string", "logicalType": "uuid"}, st.uuids().map(str)),
    Shape("int", "long", INT),
    Shape("int", "float", INT, single),
    Shape("int", "double", INT, double),
    Shape("long", "float", EXACT_IN_DOUBLE, single),
    Shape("long", "double", LONG, double),
    Shape("float", "double", FLOAT),
    Shape("string", "bytes", TEXT, str.encode),
    Shape("bytes", "string", TEXT.map(str.encode), bytes.decode),
    Shape("long", TIMES, MICROS),
    Shape(MILLIS, TIMES, st.integers(-(2**43), 2**43), lambda raw: raw * 1_000),
    Shape(MILLIS, MILLIS, st.integers(-(2**43), 2**43), lambda raw: raw * 1_000),
)


@st.composite
def leaves(draw, number):
    made = draw(st.sampled_from([*PLAIN, decimals, enums, fixed]))
    return made if isinstance(made, Shape) else made(draw, number)


def maybe(seen):
    return lambda raw: None if raw is None else seen(raw)


@st.composite
def nullable(draw, inner):
    """Null on one side or on both, first or last."""

    def union(type_):
        return ["null", type_] if draw(st.booleans()) else [type_, "null"]

    kind = draw(st.sampled_from(["both", "reader", "required", "alone"]))
    if kind == "both":
        return Shape(union(inner.writer), union(inner.reader), st.none() | inner.raw, maybe(inner.seen))
    if kind == "reader":
        return Shape(inner.writer, union(inner.reader), inner.raw, inner.seen)
    if kind == "alone":
        return Shape([inner.writer], union(inner.reader), inner.raw, inner.seen)
    return Shape(union(inner.writer), inner.reader, inner.raw, inner.seen)


@st.composite
def lists(draw, inner):
    sizes = {"max_size": draw(st.sampled_from([0, 1, 3, 40]))}
    if draw(st.booleans()):
        writer, reader = ({"type": "array", "items": side} for side in (inner.writer, inner.reader))
        return Shape(writer, reader, st.lists(inner.raw, **sizes), lambda raw: [inner.seen(v) for v in raw])
    writer, reader = ({"type": "map", "values": side} for side in (inner.writer, inner.reader))
    values = st.dictionaries(TEXT, inner.raw, **sizes)
    return Shape(writer, reader, values, lambda raw: [(k, inner.seen(v)) for k, v in raw.items()])


@st.composite
def shapes(draw, number, depth=2):
    """Any covered type."""
    inner = draw(leaves(number))
    kind = draw(st.sampled_from(["leaf", "leaf", "list", "record"] if depth else ["leaf", "list"]))
    if kind == "list":
        if draw(st.booleans()):
            inner = draw(nullable(inner))
        inner = draw(lists(inner))
    elif kind == "record":
        inner = draw(records(number, depth - 1))
    return draw(nullable(inner)) if draw(st.booleans()) else inner


DEFAULTS = (
    ("int", 7, 7),
    ("string", "é", "é"),
    (["null", "long"], None, None),
    (TIMES, 5, 5),
    ("boolean", True, True),
    ({"type": "array", "items": "string"}, [], []),
    ({"type": "array", "items": "int"}, [1, 2], [1, 2]),
    ({"type": "map", "values": "long"}, {}, []),
    ("double", 1.5, 1.5),
)


@st.composite
def strangers(draw, number):
    """A field only the writer has, of types also beyond what a reader may ask for."""
    plain = draw(shapes(number, depth=0))
    node = {"type": "record", "name": f"Inner{number}", "fields": [{"name": "a", "type": plain.writer}]}
    inside = st.fixed_dictionaries({"a": plain.raw})
    odd = Shape(
        {"type": "array", "items": {"type": "map", "values": node}},
        None,
        st.lists(st.dictionaries(TEXT, inside, max_size=2), max_size=3),
    )
    several = Shape(["string", "null", "long", node], None, TEXT | st.none() | LONG | inside)
    return draw(st.sampled_from([plain, odd, several, Shape("null", None, st.none())]))


@st.composite
def records(draw, number=0, depth=2):
    """A record: fields both have, in another order, some by an alias; some only one of the two has."""
    n = draw(st.integers(1, 4))
    kept = [draw(shapes(number * 10 + i + 1, depth)) for i in range(n)]
    extra = [draw(strangers(number * 10 + 6 + i)) for i in range(draw(st.integers(0, 2)))]
    added = draw(st.lists(st.sampled_from(DEFAULTS), max_size=2))
    names = [f"f{i}" for i in range(n)]
    written = [draw(st.sampled_from([name, f"old_{name}"])) for name in names]
    fields = [{"name": w, "type": s.writer} for w, s in zip(written, kept, strict=True)]
    fields += [{"name": f"only{i}", "type": s.writer} for i, s in enumerate(extra)]
    asked = [
        {"name": name, "type": s.reader} | ({} if w == name else {"aliases": [w]})
        for name, w, s in zip(names, written, kept, strict=True)
    ]
    asked += [{"name": f"new{i}", "type": t, "default": stated} for i, (t, stated, _) in enumerate(added)]
    writer = {"type": "record", "name": f"R{number}", "fields": draw(st.permutations(fields))}
    reader = {"type": "record", "name": f"R{number}", "fields": draw(st.permutations(asked))}
    raws = dict(zip(written, (s.raw for s in kept), strict=True))
    raws |= {f"only{i}": s.raw for i, s in enumerate(extra)}

    def seen(raw):
        values = {name: s.seen(raw[w]) for name, w, s in zip(names, written, kept, strict=True)}
        values |= {f"new{i}": value for i, (_, _, value) in enumerate(added)}
        return {f["name"]: values[f["name"]] for f in reader["fields"]}

    return Shape(writer, reader, st.fixed_dictionaries(raws), seen)


def fastavro_reads(content, shape):
    """What fastavro makes of a record, logical types put on afterwards: exact where Python's own types end."""
    writer, reader = (fastavro.parse_schema(bare(side)) for side in (shape.writer, shape.reader))
    return dressed(fastavro.schemaless_reader(io.BytesIO(content), writer, reader), shape.reader)


def written(raw, shape):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(copy.deepcopy(shape.writer)), raw)
    return out.getvalue()


def bare(schema):
    """A schema without logical types but for instants, which fastavro brings to one unit."""
    if isinstance(schema, list):
        return [bare(branch) for branch in schema]
    if not isinstance(schema, dict) or schema.get("logicalType", "").startswith("timestamp"):
        return schema
    kept = {k: v for k, v in schema.items() if k not in ("logicalType", "precision", "scale")}
    if "fields" in kept:
        kept["fields"] = [{**f, "type": bare(f["type"])} for f in kept["fields"]]
    return {k: bare(v) if k in ("items", "values") else v for k, v in kept.items()}


def dressed(value, schema):
    if value is None:
        return None
    if isinstance(schema, list):
        return dressed(value, next(branch for branch in schema if branch != "null"))
    if isinstance(value, datetime):
        return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    if schema == "float":
        return single(value)
    if not isinstance(schema, dict):
        return value
    if schema.get("logicalType") == "decimal":
        return decimal(value, schema["scale"])
    if schema["type"] == "record":
        return {f["name"]: dressed(value[f["name"]], f["type"]) for f in schema["fields"]}
    if schema["type"] == "array":
        return [dressed(item, schema["items"]) for item in value]
    if schema["type"] == "map":
        return [(key, dressed(item, schema["values"])) for key, item in value.items()]
    return value
