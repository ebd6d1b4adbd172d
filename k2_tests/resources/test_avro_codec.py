from __future__ import annotations

import copy
import io
from datetime import timedelta
from decimal import Decimal

import fastavro
import pytest

from k2_core.avro import avro_schema
from k2_core.contracts import QUOTES, TRADES
from k2_core.quality import Reason
from k2_resources.avro_codec import decoder
from k2_tests.ticks import NOON, encoded, quote, trade


def body(schema, record):
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(copy.deepcopy(schema)), record)
    return stream.getvalue()


def read(schema, record, table=TRADES):
    """The row a record written with one schema becomes, or the reason it becomes none."""
    decoded = decoder(schema, table)([body(schema, record)])
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
    decoded = decoder(avro_schema(TRADES), TRADES)([encoded(trade(1))[5:], with_bytes("price", content)])
    assert [reason for reason, _ in decoded.dead.values()] == [Reason.DECIMAL_OVERFLOW]
    assert len(decoded.rows) == 1


def test_a_decimal_padded_to_sixteen_bytes_is_read():
    decoded = decoder(avro_schema(TRADES), TRADES)([with_bytes("price", b"\x00" * 15 + b"\x05")])
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
    decoded = decoder(avro_schema(TRADES), TRADES)([wide])
    assert decoded.dead[0][0] is Reason.UNDECODABLE


def test_text_that_is_not_utf8_is_dead():
    bad = body(changed("currency", "bytes"), trade(1, currency=b"\xff\xfe"))
    half_a_pair = body(changed("currency", "bytes"), trade(1, currency=b"\xed\xa0\x80"))
    decoded = decoder(avro_schema(TRADES), TRADES)([bad, half_a_pair])
    assert [reason for reason, _ in decoded.dead.values()] == [Reason.UNDECODABLE] * 2


def test_a_length_beyond_the_record_is_truncated_without_reserving_it():
    good = encoded(trade(1))[5:]
    key = trade(1)["message_id"].encode()
    assert good[1:].startswith(key)
    claimed = body("long", 1 << 60) + good[1:]
    assert decoder(avro_schema(TRADES), TRADES)([claimed]).dead[0][0] is Reason.TRUNCATED


def test_a_union_branch_that_does_not_exist_is_dead():
    """vendor_data is the field before the last and null, each one byte."""
    good = encoded(trade(1))[5:]
    assert len(decoder(avro_schema(TRADES), TRADES)([good[:-2] + b"\x04" + good[-1:]]).dead) == 1


@pytest.mark.parametrize("schema", [{"type": "long"}, {"type": "string"}, {"type": "array", "items": "string"}])
def test_a_schema_that_is_no_record_of_ours_makes_its_records_dead(schema):
    assert decoder(schema, TRADES)([b"\x02a", b""]).dead.keys() == {0, 1}
