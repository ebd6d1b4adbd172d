from __future__ import annotations

import copy
import io
from datetime import timedelta
from decimal import Decimal

import fastavro
import pytest
import structlog

from k2_core.avro import avro_schema
from k2_core.contracts import QUOTES, TRADES
from k2_core.frames import Frames
from k2_core.quality import Reason
from k2_core.v1 import v1_schema
from k2_resources.avro_codec import decoder, fastavro_decoder
from k2_tests.ticks import NOON, encoded, quote, trade


def body(schema, record):
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(copy.deepcopy(schema)), record)
    return stream.getvalue()


def decoded_by(schema, *bodies, table=TRADES):
    return decoder(schema, table)(Frames.of(bodies))


def read(schema, record, table=TRADES):
    """The row a record written with one schema becomes, or the reason it becomes none."""
    decoded = decoded_by(schema, body(schema, record), table=table)
    return decoded.dead[0][0] if decoded.dead else decoded.rows.to_pylist()[0]


def changed(name, type_, table=TRADES):
    """The schema of the contract with one field of another type, as other writers have it."""
    schema = avro_schema(table)
    fields = [{"name": name, "type": type_} if f["name"] == name else f for f in schema["fields"]]
    return {**schema, "fields": fields}


def decimal(precision, scale):
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def with_bytes(name, content):
    """A body whose decimal field holds whatever bytes there are."""
    return body(changed(name, "bytes"), {**trade(1), name: content})


def test_a_record_comes_back_as_it_was_written():
    written = trade(7, vendor_data={"a": "1", "b": ""}, trade_conditions=["XT", ""], side="SELL_SHORT")
    row = read(avro_schema(TRADES), written)
    assert row == {**written, "vendor_data": [("a", "1"), ("b", "")]}


def test_a_quote_without_a_side_comes_back_without_it():
    row = read(avro_schema(QUOTES), quote(1, bid_price=None, bid_quantity=None), QUOTES)
    assert (row["bid_price"], row["bid_quantity"], row["ask_price"]) == (None, None, Decimal("100.2"))


@pytest.mark.parametrize("value", ["0.00000001", "-0.00000001", "9999999999.99999999", "-9999999999.99999999", "0"])
def test_decimals_are_exact_to_the_edge_of_the_contract(value):
    assert read(avro_schema(TRADES), trade(1, price=Decimal(value)))["price"] == Decimal(value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 17,
        (10**18).to_bytes(9, "big"),
        (-(10**18)).to_bytes(9, "big", signed=True),
        b"\x80" + b"\x00" * 15,
        b"\x7f" + b"\xff" * 15,
    ],
)
def test_a_decimal_that_does_not_fit_is_dead_and_its_neighbours_are_rows(content):
    decoded = decoded_by(avro_schema(TRADES), encoded(trade(1))[5:], with_bytes("price", content))
    assert [reason for reason, _ in decoded.dead.values()] == [Reason.DECIMAL_OVERFLOW]
    assert len(decoded.rows) == 1


def test_a_decimal_padded_to_sixteen_bytes_is_read():
    decoded = decoded_by(avro_schema(TRADES), with_bytes("price", b"\x00" * 15 + b"\x05"))
    assert decoded.rows["price"].to_pylist() == [Decimal("0.00000005")]


def test_fields_a_writer_lacks_take_their_defaults():
    schema = avro_schema(TRADES)
    absent = ("quality_flags", "trade_conditions", "vendor_data", "platform_sequence")
    schema["fields"] = [field for field in schema["fields"] if field["name"] not in absent]
    row = read(schema, trade(1, platform_sequence=4))
    assert [row[name] for name in absent] == [0, [], None, None]


def test_a_writer_that_lacks_a_field_without_default_is_of_another_kind():
    schema = avro_schema(TRADES)
    schema["fields"] = [field for field in schema["fields"] if field["name"] != "price"]
    assert read(schema, trade(1)) is Reason.WRONG_RECORD


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("string", "x"),
        ({"type": "fixed", "name": "Four", "size": 4}, b"abcd"),
        ({"type": "map", "values": "double"}, {"x": 1.5}),
        ({"type": "record", "name": "Inner", "fields": [{"name": "side", "type": "Side"}]}, {"side": "SELL"}),
    ],
)
def test_a_field_we_do_not_know_is_passed_over(type_, value):
    schema = avro_schema(TRADES)
    schema["fields"].append({"name": "extra", "type": type_})
    assert read(schema, {**trade(5), "extra": value})["source_sequence"] == 5


def test_the_order_of_fields_and_of_enum_symbols_is_the_writers():
    schema = avro_schema(TRADES)
    schema["fields"].reverse()
    side = next(field for field in schema["fields"] if field["name"] == "side")
    side["type"]["symbols"].reverse()
    assert read(schema, trade(3, side="SELL")) == {**trade(3, side="SELL")}


def test_a_side_only_the_writer_knows_is_unknown():
    schema = avro_schema(TRADES)
    side = next(field for field in schema["fields"] if field["name"] == "side")
    side["type"]["symbols"].append("SHORT_EXEMPT")
    assert read(schema, trade(1, side="SHORT_EXEMPT"))["side"] == "UNKNOWN"


def test_times_in_milliseconds_are_read_as_the_same_instant():
    schema = changed("timestamp", {"type": "long", "logicalType": "timestamp-millis"})
    instant = NOON + timedelta(milliseconds=3)
    assert read(schema, trade(3, timestamp=instant))["timestamp"] == instant


@pytest.mark.parametrize("type_", [["null", "int"], "int", ["long", "null"]])
def test_a_narrower_or_turned_id_is_promoted(type_):
    assert read(changed("source_sequence", type_), trade(9))["source_sequence"] == 9


def test_decimals_of_another_scale_are_rescaled_exactly_or_dead():
    assert read(changed("price", decimal(18, 2)), trade(1, price=Decimal("12.34")))["price"] == Decimal("12.34")
    finer = changed("price", decimal(20, 10))
    assert read(finer, trade(1, price=Decimal("12.3400000000")))["price"] == Decimal("12.34")
    assert read(finer, trade(1, price=Decimal("12.3400000001"))) is Reason.DECIMAL_OVERFLOW


@pytest.mark.parametrize(
    "type_",
    ["double", {"type": "fixed", "name": "P", "size": 8, "logicalType": "decimal", "precision": 18, "scale": 8}],
)
def test_a_price_of_a_type_avro_does_not_promote_is_of_another_kind(type_):
    value = 1.5 if type_ == "double" else Decimal("1.5")
    assert read(changed("price", type_), trade(1, price=value)) is Reason.WRONG_RECORD


def test_an_integer_wider_than_its_column_is_dead():
    wide = body({**changed("quality_flags", "long")}, trade(1, quality_flags=1 << 40))
    decoded = decoded_by(avro_schema(TRADES), wide)
    assert decoded.dead[0][0] is Reason.UNDECODABLE


def test_text_that_is_not_utf8_is_dead():
    bad = body(changed("currency", "bytes"), trade(1, currency=b"\xff\xfe"))
    half_a_pair = body(changed("currency", "bytes"), trade(1, currency=b"\xed\xa0\x80"))
    decoded = decoded_by(avro_schema(TRADES), bad, half_a_pair)
    assert [reason for reason, _ in decoded.dead.values()] == [Reason.UNDECODABLE] * 2


def test_a_length_beyond_the_record_is_truncated_without_reserving_it():
    good = encoded(trade(1))[5:]
    key = trade(1)["message_id"].encode()
    assert good[1:].startswith(key)
    claimed = body("long", 1 << 60) + good[1:]
    assert decoded_by(avro_schema(TRADES), claimed).dead[0][0] is Reason.TRUNCATED


def test_a_union_branch_that_does_not_exist_is_dead():
    """vendor_data is the field before the last and null, each one byte."""
    good = encoded(trade(1))[5:]
    assert len(decoded_by(avro_schema(TRADES), good[:-2] + b"\x04" + good[-1:]).dead) == 1


@pytest.mark.parametrize("schema", [{"type": "long"}, {"type": "string"}, {"type": "array", "items": "string"}])
def test_a_schema_that_is_no_record_of_ours_makes_its_records_dead(schema):
    assert decoded_by(schema, b"\x02a", b"").dead.keys() == {0, 1}


def one_by_one(schema, *bodies, table=TRADES):
    """What fastavro makes of them, whether or not lockstep covers the schema."""
    decode = fastavro_decoder(schema, avro_schema(table), table.arrow_schema(origins=("feed",)))
    return decode(Frames.of(bodies))


@pytest.mark.parametrize("table", [TRADES, QUOTES])
def test_both_decoders_give_the_same_rows(table):
    make = trade if table is TRADES else quote
    rows = [
        make(n, vendor_data={"k": str(n)} if n % 3 else None, source_sequence=None if n % 5 else n) for n in range(50)
    ]
    bodies = [encoded(row, table)[5:] for row in rows]
    fast = decoded_by(avro_schema(table), *bodies, table=table)
    assert fast.rows.equals(one_by_one(avro_schema(table), *bodies, table=table).rows, check_metadata=True)
    assert fast.rows["message_id"].to_pylist() == [row["message_id"] for row in rows]


def test_both_decoders_name_what_is_wrong_alike():
    good, overlong = encoded(trade(1))[5:], with_bytes("price", b"\x01" * 17)
    bodies = [good[:-1], good + b"\0", overlong, with_bytes("price", b""), good[:10]]
    fast, slow = decoded_by(avro_schema(TRADES), *bodies), one_by_one(avro_schema(TRADES), *bodies)
    assert {i: r for i, (r, _) in fast.dead.items()} == {i: r for i, (r, _) in slow.dead.items()}
    assert fast.dead[2] == slow.dead[2]


def test_a_null_where_the_contract_has_none_is_of_another_kind():
    schema = changed("currency", ["null", "string"])
    decoded = decoded_by(schema, body(schema, trade(1)), body(schema, trade(2, currency=None)))
    assert [reason for reason, _ in decoded.dead.values()] == [Reason.WRONG_RECORD]
    assert decoded.rows["currency"].to_pylist() == ["USDT"]


def test_a_shape_read_one_by_one_is_said_once():
    schema = {**changed("price", decimal(18, 3)), "doc": "only here"}
    with structlog.testing.capture_logs() as said:
        for _ in range(3):
            read(schema, trade(1, price=Decimal("1.125")))
    assert [entry["event"] for entry in said] == ["decoded_one_by_one"]
    assert said[0]["why"] == "price: decimal(18,3) cannot be read as decimal(18,8)"


@pytest.mark.parametrize("table", [TRADES, QUOTES])
def test_the_schema_of_the_contract_itself_is_read_in_lockstep(table):
    with structlog.testing.capture_logs() as said:
        decoder(avro_schema(table), table)
        decoder(v1_schema(table), table)
    assert said == []
