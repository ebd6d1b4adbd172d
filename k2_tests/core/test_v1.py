from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.avro import avro_schema
from k2_core.contracts import COVERAGE, QUOTES, TRADES
from k2_core.frames import Frames
from k2_core.identity import counted_key, quote_fields, source_id, trade_fields
from k2_core.quality import Flag, Reason
from k2_core.screen import screen
from k2_core.v1 import is_v1, v1_schema
from k2_resources.avro_codec import decoder
from k2_tests.core.avro_shapes import Shape, written
from k2_tests.ticks import FEEDS

SYDNEY = ZoneInfo("Australia/Sydney")
DAY = date(2014, 3, 11)


def milliseconds(text, day=DAY):
    local = datetime.combine(day, datetime.strptime(text, "%H:%M:%S.%f").time(), SYDNEY)  # noqa: DTZ007
    return round(local.timestamp() * 1_000)


def unscaled(price):
    whole = int(Decimal(price).scaleb(6))
    return whole.to_bytes(whole.bit_length() // 8 + 1, "big", signed=True)


def trade(**changes):
    return {
        "symbol": "BHP",
        "company_id": 7078,
        "exchange": "ASX",
        "exchange_timestamp": milliseconds("09:35:12.881"),
        "price": unscaled("36.55"),
        "volume": 400,
        "qualifiers": 5,
        "venue": "",
        "buyer_id": None,
        "ingestion_timestamp": 1_723_118_400_001,
        "sequence_number": None,
        **changes,
    }


def quote(**changes):
    kept = ("symbol", "company_id", "exchange", "exchange_timestamp", "ingestion_timestamp", "sequence_number")
    return {
        **{name: trade()[name] for name in kept},
        "bid_price": unscaled("37.7"),
        "bid_volume": 300,
        "ask_price": unscaled("0"),
        "ask_volume": 0,
        **changes,
    }


def lifted(*records, table=TRADES, schema=None):
    schema = schema or v1_schema(table)
    contents = [written(record, Shape(schema, None, None)) for record in records]
    return decoder(schema, table)(Frames.of(contents))


def test_a_v1_trade_is_the_v2_trade_of_the_same_print():
    (row,) = lifted(trade(venue="X", buyer_id="36.5", sequence_number=3)).rows.to_pylist()
    key = counted_key(
        "ASX",
        "BHP",
        "trade",
        DAY,
        fields=trade_fields(34_512_881_000, Decimal("36.55"), Decimal(400), "5"),
        occurrence=3,
    )
    assert row == {
        "message_id": key,
        "trade_id": source_id(key),
        "symbol": "BHP",
        "exchange": "ASX",
        "asset_class": "equities",
        "currency": "AUD",
        "timestamp": datetime(2014, 3, 10, 22, 35, 12, 881_000, tzinfo=UTC),
        "price": Decimal("36.55"),
        "quantity": Decimal(400),
        "side": "UNKNOWN",
        "trade_conditions": ["5"],
        "source_sequence": None,
        "platform_sequence": 3,
        "ingestion_timestamp": datetime(2024, 8, 8, 12, 0, 0, 1_000, tzinfo=UTC),
        "vendor_data": [("company_id", "7078"), ("venue", "X"), ("buyer_id", "36.5")],
        "quality_flags": int(Flag.VENDOR_EXCLUDED),
    }


def test_a_v1_quote_is_the_v2_quote_and_a_side_of_zeros_is_nobody():
    (row,) = lifted(quote(), table=QUOTES).rows.to_pylist()
    fields = quote_fields(34_512_881_000, (Decimal("37.7"), None, Decimal(300), None))
    key = counted_key("ASX", "BHP", "quote", DAY, fields=fields, occurrence=0)
    assert (row["message_id"], row["quote_id"]) == (key, source_id(key))
    assert (row["bid_price"], row["bid_quantity"]) == (Decimal("37.7"), Decimal(300))
    assert (row["ask_price"], row["ask_quantity"]) == (None, None)
    assert row["vendor_data"] == [("company_id", "7078")]


@given(
    st.integers(0, 86_399_999),
    st.decimals("0.000001", "999999999", places=6),
    st.integers(1, 10**10 - 1),
    st.integers(-9, 99),
    st.dates(date(2010, 1, 1), date(2030, 1, 1)),
)
def test_the_key_is_the_one_a_feed_would_write(millisecond, price, volume, condition, day):
    local = datetime.combine(day, datetime.min.time(), SYDNEY)
    at = int(local.timestamp()) * 1_000 + millisecond
    there = datetime.fromtimestamp(at // 1_000, SYDNEY)
    clock_us = ((there.hour * 60 + there.minute) * 60 + there.second) * 1_000_000 + at % 1_000 * 1_000
    fields = trade_fields(clock_us, price, Decimal(volume), str(condition))
    key = counted_key("ASX", "BHP", "trade", there.date(), fields=fields, occurrence=0)
    row = trade(exchange_timestamp=at, price=unscaled(price), volume=volume, qualifiers=condition)
    assert lifted(row).rows["message_id"].to_pylist() == [key]


def test_v1_rows_pass_the_rules_of_their_feed():
    for table, feed, record in ((TRADES, "asx-trades", trade()), (QUOTES, "asx-quotes", quote())):
        rows = lifted(record, {**record, "sequence_number": 1}, table=table).rows
        for name, value in (("kafka_topic", "t"), ("kafka_epoch", 0), ("kafka_partition", 0), ("kafka_offset", 0)):
            rows = rows.append_column(name, pa.array([value] * 2, FEEDS[feed].table.column(name).type))
        assert screen(FEEDS[feed], rows, date(2026, 1, 1)).dead == ()


def test_amounts_that_do_not_fit_v2_are_dead_and_their_neighbours_are_rows():
    large = unscaled("10000000000")
    decoded = lifted(trade(), trade(volume=10**10), trade(price=large), trade(volume=-(2**63)), trade(volume=2))
    assert {at: reason for at, (reason, _) in decoded.dead.items()} == dict.fromkeys((1, 2, 3), Reason.DECIMAL_OVERFLOW)
    assert decoded.rows["quantity"].to_pylist() == [400, 2]


def test_the_dead_of_decoding_and_of_lifting_keep_their_places():
    schema = v1_schema(TRADES)
    good, large = (written(r, Shape(schema, None, None)) for r in (trade(), trade(volume=10**10)))
    decoded = decoder(schema, TRADES)(Frames.of([good[:-1], large, good, b"", large]))
    assert {at: reason for at, (reason, _) in decoded.dead.items()} == {
        0: Reason.TRUNCATED,
        1: Reason.DECIMAL_OVERFLOW,
        3: Reason.TRUNCATED,
        4: Reason.DECIMAL_OVERFLOW,
    }
    assert len(decoded.rows) == 1


def test_an_exchange_v1_did_not_know_is_dated_by_utc_and_has_no_currency():
    (row,) = lifted(trade(exchange="NYSE", exchange_timestamp=1_394_530_000_000)).rows.to_pylist()
    assert row["message_id"].startswith("NYSE:BHP:trade:2014-03-11:34000:")
    assert (row["currency"], row["quality_flags"]) == ("UNKNOWN", 0)


def test_an_instant_no_calendar_holds_is_left_to_the_screen():
    assert len(lifted(trade(exchange_timestamp=2**52), trade(exchange_timestamp=-(2**52))).rows) == 2


@pytest.mark.parametrize("table", [TRADES, QUOTES])
def test_v1_is_told_by_name_and_fields_whatever_its_id(table):
    schema = v1_schema(table)
    assert is_v1(schema, table)
    assert is_v1({**schema, "namespace": "elsewhere", "fields": schema["fields"][::-1]}, table)
    assert not is_v1(avro_schema(table), table)
    assert not is_v1({**schema, "name": "Other"}, table)
    assert not is_v1(schema, COVERAGE)


def test_a_v1_writer_whose_shape_lockstep_leaves_to_fastavro_is_lifted_too():
    schema = v1_schema(TRADES)
    finer = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4}
    fields = [{**f, "type": finer} if f["name"] == "price" else f for f in schema["fields"]]
    one_by_one = lifted({**trade(), "price": Decimal("36.55")}, schema={**schema, "fields": fields})
    assert one_by_one.rows.equals(lifted(trade()).rows)


def test_a_v1_writer_without_what_had_a_default_is_read():
    schema = v1_schema(TRADES)
    absent = ("buyer_id", "sequence_number", "exchange")
    shorter = {**schema, "fields": [f for f in schema["fields"] if f["name"] not in absent]}
    assert lifted(trade(), schema=shorter).rows.equals(lifted(trade()).rows)
