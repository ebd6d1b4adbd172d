"""Damaged records against the specification: the same verdict and the same values, and never a neighbour touched."""

from __future__ import annotations

import copy
import random
import tracemalloc
from decimal import Context, Decimal

import numpy as np
import pyarrow as pa
import pytest

from k2_core.avro import avro_schema
from k2_core.contracts import QUOTES, TRADES
from k2_core.frames import Frames
from k2_core.lockstep.reader import lockstep
from k2_core.quality import Reason
from k2_core.v1 import v1_schema
from k2_tests.core.avro_oracle import Malformed, record_of
from k2_tests.core.avro_shapes import Shape, written


def record(*types, name="R", **more):
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": f"f{i}", "type": t} for i, t in enumerate(types)],
        **more,
    }


def decimal(precision, **base):
    return {**(base or {"type": "bytes"}), "logicalType": "decimal", "precision": precision, "scale": 2}


SIDE = {"type": "enum", "name": "Side", "symbols": ["BUY", "SELL", "NONE"]}
TIME = {"type": "long", "logicalType": "timestamp-micros"}
LIST, MAP = {"type": "array", "items": "string"}, {"type": "map", "values": "string"}
INNER = record("int", ["null", "string"], name="Inner")
CASES = {
    "primitives": (
        record("boolean", "int", "long", "float", "double", "string", "bytes", "null"),
        {"f0": True, "f1": -70, "f2": 2**40, "f3": 1.5, "f4": -2.5, "f5": "né", "f6": b"\xff\0", "f7": None},
    ),
    "the ends of the numbers": (
        record("int", "int", "long", "long", "int", {"type": "int", "logicalType": "date"}, TIME),
        {"f0": 2**31 - 1, "f1": -(2**31), "f2": 2**63 - 1, "f3": -(2**63), "f4": 0, "f5": 64, "f6": 1 << 50},
    ),
    "enums, fixed and decimals": (
        record(
            SIDE,
            {"type": "fixed", "name": "Three", "size": 3},
            decimal(18),
            decimal(38),
            decimal(38, type="fixed", name="Wide", size=16),
            decimal(4, type="fixed", name="Narrow", size=2),
        ),
        {
            "f0": "SELL",
            "f1": b"abc",
            "f2": (10**18 - 1).to_bytes(8, "big"),
            "f3": (-(10**30)).to_bytes(13, "big", signed=True),
            "f4": (10**38 - 1).to_bytes(16, "big"),
            "f5": (-9_999).to_bytes(2, "big", signed=True),
        },
    ),
    "unions": (
        record(["null", "string"], ["long", "null"], ["null", decimal(18)], ["null", SIDE], ["string"], ["null", TIME]),
        {"f0": "a", "f1": None, "f2": b"\x07", "f3": "NONE", "f4": "b", "f5": None},
    ),
    "lists": (
        record(LIST, MAP, {"type": "array", "items": ["null", "long"]}, {"type": "map", "values": decimal(9)}),
        {"f0": ["", "xyz", "é"], "f1": {"a": "1", "bc": ""}, "f2": [None, 300, -1], "f3": {"k": b"\x01", "l": b"\xff"}},
    ),
    "lists of numbers": (
        record(*({"type": "array", "items": t} for t in ("int", "boolean", "bytes", "long", SIDE)), ["null", LIST]),
        {"f0": [1, 500], "f1": [True, False], "f2": [b"", b"z"], "f3": [-1, 2**62], "f4": ["BUY"], "f5": None},
    ),
    "records in records": (
        record(INNER, ["null", record("Inner", LIST, name="Outer")], "string"),
        {"f0": {"f0": 5, "f1": None}, "f1": {"f0": {"f0": 77, "f1": "z"}, "f1": ["q"]}, "f2": "end"},
    ),
}


def varint(value):
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def mutants(good):
    """Every small thing that can happen to a record, at every byte of it."""
    for at in range(len(good) + 1):
        yield good[:at]
        for byte in (0x00, 0x01, 0x02, 0x7F, 0x80, 0xFF):
            yield good[:at] + bytes([byte]) + good[at:]
        if at == len(good):
            break
        yield good[:at] + good[at + 1 :]
        for bit in range(8):
            yield good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :]
        for byte in (0x00, 0x03, 0x7F, 0x80, 0xFF):
            yield good[:at] + bytes([byte]) + good[at + 1 :]
        for value in (-1, 2**31, -(2**31) - 1, 2**60, -(2**63)):
            yield good[:at] + varint(value) + good[at + 1 :]
        yield good[:at] + b"\x80" * 8 + b"\x00" + good[at + 1 :]
        yield good[:at] + b"\xff" * 9 + b"\x02" + good[at + 1 :]
        yield good[:at] + b"\x80" * 10 + b"\x00" + good[at + 1 :]


def shown(value, type_):
    """A value of the oracle as Arrow's own constructors take it."""
    if value is None:
        return None
    if pa.types.is_decimal(type_):
        return Decimal(value).scaleb(-type_.scale, Context(prec=100))
    if pa.types.is_map(type_):
        return [(k, shown(v, type_.item_type)) for k, v in value.items()]
    if pa.types.is_list(type_):
        return [shown(v, type_.value_type) for v in value]
    if pa.types.is_struct(type_):
        return {f.name: shown(value[f.name], f.type) for f in type_}
    return value


def verdicts(contents, schema):
    """What the specification says of each: the record, or None."""
    for content in contents:
        try:
            yield record_of(content, schema)
        except Malformed:
            yield None


def defined_once(schema, names):
    """A schema as the oracle reads it: names replaced by what they stand for."""
    if isinstance(schema, str):
        return names.get(schema, schema)
    if isinstance(schema, list):
        return [defined_once(branch, names) for branch in schema]
    made = dict(schema)
    if "fields" in made:
        made["fields"] = [{**f, "type": defined_once(f["type"], names)} for f in made["fields"]]
    for key in ("items", "values"):
        if key in made:
            made[key] = defined_once(made[key], names)
    if "name" in made:
        names[made["name"]] = made
    return made


def check(decoded, expected):
    assert decoded.dead.keys() == {i for i, row in enumerate(expected) if row is None}
    kept = [row for row in expected if row is not None]
    decoded.rows.validate(full=True)
    for f in decoded.rows.schema:
        found = decoded.rows[f.name].combine_chunks()
        stated = pa.array([shown(row[f.name], f.type) for row in kept], f.type)
        if pa.types.is_floating(f.type):
            np.testing.assert_array_equal(found.to_numpy(), stated.to_numpy())
        else:
            assert found.equals(stated), f.name


def compare(schema, value, table=None):
    good = written(value, Shape(schema, None, None))
    contents = [c for mutant in mutants(good) for c in (mutant, good)]
    decoded = lockstep(schema, schema)(Frames.of(contents))
    expected = list(verdicts(contents, defined_once(copy.deepcopy(schema), {})))
    assert sum(row is None for row in expected) > len(contents) / 8
    assert all(row is not None for row in expected[1::2])
    check(decoded, expected)


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_record_is_judged_as_the_specification_does_and_its_neighbours_are_whole(name):
    compare(*CASES[name])


TRADE = {
    "message_id": "BINANCE:X:trade:1", "trade_id": "BINANCE-1", "symbol": "X", "exchange": "BINANCE",
    "asset_class": "crypto", "currency": "USDT", "timestamp": 1_723_118_400_000_000, "price": b"\x05\x00", "quantity": b"\x01",
    "side": "SELL", "trade_conditions": ["XT"], "source_sequence": 1, "platform_sequence": None,
    "ingestion_timestamp": 1_723_118_400_000_009, "vendor_data": {"a": "1", "b": ""}, "quality_flags": 0,
}  # fmt: skip


def test_a_damaged_trade_is_judged_as_the_specification_does():
    compare(avro_schema(TRADES), TRADE)


def test_bytes_at_random_are_judged_as_the_specification_does():
    chance = random.Random(11)
    for schema, value in CASES.values():
        good = written(value, Shape(schema, None, None))
        contents = []
        for _ in range(1_500):
            content = bytearray(good)
            for _ in range(chance.randint(1, 5)):
                content[chance.randrange(len(content))] = chance.choice((0, 1, 2, 3, 4, 0x80, chance.randrange(256)))
            contents.append(bytes(content[chance.choice((0, 0, 0, 1)) :]))
        decoded = lockstep(schema, schema)(Frames.of(contents))
        expected = list(verdicts(contents, defined_once(copy.deepcopy(schema), {})))
        check(decoded, expected)


@pytest.mark.parametrize("name", ["unions", "lists", "lists of numbers", "records in records", "primitives"])
def test_damage_in_a_field_that_is_passed_over_is_found_where_the_encoding_tells(name):
    """Text and digits of a field nobody asks for are bytes, whatever they say."""
    schema, value = CASES[name]
    inner = {**copy.deepcopy(schema), "name": "Skipped"}
    writer = record(inner, "int", name="W")
    reader = {**record(name="W"), "fields": [{"name": "f1", "type": "int"}]}
    good = written({"f0": value, "f1": 9}, Shape(writer, None, None))
    contents = [c for mutant in mutants(good) for c in (mutant, good)]
    decoded = lockstep(writer, reader)(Frames.of(contents))
    expected = list(verdicts(contents, bytes_only(defined_once(copy.deepcopy(writer), {}))))
    check(decoded, expected)


def bytes_only(schema):
    if isinstance(schema, list):
        return [bytes_only(branch) for branch in schema]
    if not isinstance(schema, dict):
        return "bytes" if schema == "string" else schema
    made = {k: v for k, v in schema.items() if k != "logicalType"}
    if "fields" in made:
        made["fields"] = [{**f, "type": bytes_only(f["type"])} for f in made["fields"]]
    if "values" in made:
        made["keys"] = "bytes"
    return {k: bytes_only(v) if k in ("items", "values") else v for k, v in made.items()}


def block(*items, sized=False):
    content = b"".join(items)
    return varint(-len(items)) + varint(len(content)) + content if sized else varint(len(items)) + content


def text(value):
    return varint(len(value)) + value.encode()


A, B, C = text("a"), text("b"), text("cc")


@pytest.mark.parametrize(
    ("content", "items"),
    [
        (block(A, B) + block(C) + b"\0", ["a", "b", "cc"]),
        (block(A, B, sized=True) + b"\0", ["a", "b"]),
        (block(A) + block(B, C, sized=True) + block(A) + b"\0", ["a", "b", "cc", "a"]),
        (varint(-1) + varint(3) + A + b"\0", None),
        (varint(-1) + varint(1) + A + b"\0", None),
        (varint(-1) + varint(-2) + A + b"\0", None),
        (varint(-1) + varint(2**62) + A + b"\0", None),
        (varint(-(2**63)) + varint(2) + A + b"\0", None),
        (varint(2**62) + A + b"\0", None),
        (block(A) + block(B), None),
        (b"\0\0", None),
    ],
)
def test_blocks_may_be_many_and_may_say_their_size_which_must_be_true(content, items):
    plain = block(A) + b"\0"
    decoded = lockstep(record(LIST), record(LIST))(Frames.of([plain, content, plain]))
    expected = [["a"], ["a"]] if items is None else [["a"], items, ["a"]]
    assert decoded.rows["f0"].to_pylist() == expected
    skipped = lockstep(record(LIST), {**record(), "fields": []})(Frames.of([plain, content, plain]))
    assert skipped.dead.keys() == decoded.dead.keys() == ({1} if items is None else set())


@pytest.mark.parametrize("count", [15, 17, 90, 3_000])
@pytest.mark.parametrize("others", [0, 200])
def test_a_list_much_longer_than_the_others_is_read_like_them(count, others):
    schema = record({"type": "map", "values": ["null", "long"]}, "int")
    value = {"f0": {f"key {i}": i if i % 3 else None for i in range(count)}, "f1": 3}
    short = {"f0": {"k": 1}, "f1": 4}
    long, plain = (written(v, Shape(schema, None, None)) for v in (value, short))
    damaged = [long[:-1], long + b"\0", long[: len(long) // 2], long[:-4] + b"\x09" + long[-3:]]
    contents = [*[plain] * others, long, *damaged, long, plain]
    decoded = lockstep(schema, schema)(Frames.of(contents))
    check(decoded, list(verdicts(contents, schema)))
    reader = {**schema, "fields": schema["fields"][1:]}
    skipped = lockstep(schema, reader)(Frames.of(contents))
    assert skipped.dead.keys() == decoded.dead.keys()


@pytest.mark.parametrize("others", [1, 100])
def test_a_list_of_many_small_blocks_is_read_like_one_of_a_large_one(others):
    items = [text(str(i)) for i in range(400)]
    contents = [
        b"".join(block(item) for item in items) + b"\0",
        b"".join(block(*items[i : i + 3], sized=i % 2 == 0) for i in range(0, 399, 3)) + b"\0",
        block(*items[:20]) + block(*items[20:], sized=True) + b"\0",
        block(*items[:20]) + varint(-380) + varint(9) + b"".join(items[20:]) + b"\0",
    ] * others
    decoded = lockstep(record(LIST), record(LIST))(Frames.of(contents))
    check(decoded, list(verdicts(contents, record(LIST))))
    assert len(decoded.dead) == others


def test_the_last_of_equal_keys_holds_at_the_place_of_the_first():
    def entry(key, value):
        return text(key) + text(value)

    long = "a key that is longer than a word"
    contents = [
        block(entry("a", "1"), entry("b", "2"), entry("a", "3")) + b"\0",
        block(entry("a", "1"), entry("b", "2")) + b"\0",
        block(entry(long, "1")) + block(entry(long, "2"), entry(f"{long}!", "3")) + b"\0",
        block(*(entry(f"{i % 9}", str(i)) for i in range(30))) + b"\0",
    ]
    decoded = lockstep(record(MAP), record(MAP))(Frames.of(contents))
    check(decoded, list(verdicts(contents, record(MAP))))
    assert decoded.rows["f0"].to_pylist()[0] == [("a", "3"), ("b", "2")]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (record("string"), Reason.TRUNCATED),
        (record("bytes"), Reason.TRUNCATED),
        (record(decimal(18)), Reason.TRUNCATED),
        (record(LIST), Reason.TRUNCATED),
        (record(MAP), Reason.TRUNCATED),
        (record({"type": "array", "items": "boolean"}), Reason.TRUNCATED),
    ],
)
@pytest.mark.parametrize("claim", [varint(2**62), varint(2**40), varint(1 << 27), varint(-(2**62)) + varint(2**61)])
def test_what_a_record_merely_claims_is_never_reserved(schema, reason, claim):
    decode, frames = lockstep(schema, schema), Frames.of([claim + b"\x02\x01" * 20] * 3)
    before, pool = pa.default_memory_pool(), pa.system_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        decoded = decode(frames)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert max(peak, pool.max_memory() or 0) < 1 << 20
    assert len(decoded.dead) == 3
    if claim[0] & 1 == 0 or schema["fields"][0]["type"] in (LIST, MAP):
        assert {found for found, _ in decoded.dead.values()} <= {reason, Reason.UNDECODABLE}


def test_milliseconds_beyond_what_microseconds_hold_are_dead():
    millis = {"type": "long", "logicalType": "timestamp-millis"}
    contents = [varint(v) for v in (5, 2**62, -(2**62), -5, (2**63 - 1) // 1000, -((2**63 - 1) // 1000))]
    decoded = lockstep(record(millis), record(TIME))(Frames.of(contents))
    assert decoded.dead.keys() == {1, 2}
    assert decoded.rows["f0"].cast(pa.int64()).to_pylist()[:2] == [5_000, -5_000]


@pytest.mark.parametrize("schema", [avro_schema(TRADES), avro_schema(QUOTES), v1_schema(TRADES), v1_schema(QUOTES)])
def test_no_bytes_at_all_are_a_truncated_record(schema):
    decoded = lockstep(schema, schema)(Frames.of([b"", b""]))
    assert {reason for reason, _ in decoded.dead.values()} == {Reason.TRUNCATED}
    assert len(decoded.dead) == 2
