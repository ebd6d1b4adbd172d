from __future__ import annotations

from datetime import date
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_core.contracts import INGESTED
from k2_feeds.encoding import ColumnEncoder, Encoder
from k2_feeds.wire_fields import ITEMS_MAX, TEXT_BYTES_MAX
from k2_tests.ticks import TRADES, trade

EPOCH_DAY = date(1970, 1, 1).toordinal()
SCHEMA_ID = 66_051
LONGS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 63, 64, -64, -65, 2**55, 2**62, -(2**63), 2**63 - 1])
TEXTS = st.text(max_size=20) | st.text("abcé币", min_size=60, max_size=70) | st.just("x" * (TEXT_BYTES_MAX + 1))
DECIMALS = st.integers(1 - 10**18, 10**18 - 1) | st.sampled_from([127, 128, -128, -129, 2**15, -(2**15), 2**55])
COUNTS = st.integers(0, 3) | st.just(ITEMS_MAX + 1)


def values(column):
    """What one column of a contract may hold, as a feed states it."""
    found = _values(column.type) if not column.choices else st.sampled_from(column.choices)
    return st.none() | found if column.nullable else found


def _values(type_):
    if pa.types.is_decimal(type_):
        return DECIMALS.map(lambda whole: Decimal(whole).scaleb(-8))
    if pa.types.is_list(type_):
        return COUNTS.flatmap(lambda n: st.lists(TEXTS, min_size=n, max_size=n))
    if pa.types.is_map(type_):
        return COUNTS.flatmap(lambda n: st.dictionaries(TEXTS, TEXTS, max_size=n))
    if pa.types.is_string(type_):
        return TEXTS
    if pa.types.is_date(type_):
        return st.integers(date.min.toordinal() - EPOCH_DAY, date.max.toordinal() - EPOCH_DAY)
    return LONGS if type_.bit_width == 64 else st.integers(-(2**31), 2**31 - 1)


def columns_of(table, records):
    """The records as columns: times and dates from their numbers, choices and symbols dictionary-encoded."""
    arrays, names = [], []
    for column in table.feed_columns:
        told = [record[column.name] for record in records]
        if pa.types.is_map(column.type):
            told = [None if entry is None else list(entry.items()) for entry in told]
        is_number = pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)
        width = {32: pa.int32(), 64: pa.int64()}.get(column.type.bit_width) if is_number else None
        array = pa.array(told, width).view(column.type) if width else pa.array(told, column.type)
        arrays.append(array.dictionary_encode() if column.choices or column.name == "symbol" else array)
        names.append(column.name)
    return pa.RecordBatch.from_arrays(arrays, names)


@pytest.mark.parametrize("table", INGESTED, ids=lambda table: table.short_name)
@settings(max_examples=40)
@given(data=st.data())
def test_columns_are_encoded_as_fastavro_encodes_their_rows(table, data):
    record = st.fixed_dictionaries({column.name: values(column) for column in table.feed_columns})
    records = data.draw(st.lists(record, max_size=6))
    columns = columns_of(table, records)
    expected = [Encoder(table, SCHEMA_ID)(record) for record in records]
    assert ColumnEncoder(table, SCHEMA_ID)(columns) == expected
    assert ColumnEncoder(table, SCHEMA_ID)(columns.slice(1, 3)) == expected[1:4]


def test_no_rows_are_no_values():
    assert ColumnEncoder(TRADES, 1)(columns_of(TRADES, [])) == []


@pytest.mark.parametrize(
    ("changes", "said"), [({"side": "HOLD"}, "side is 'HOLD'"), ({"currency": None}, "currency holds 1 nulls")]
)
def test_what_no_reader_could_read_is_never_written(changes, said):
    record = {**trade(7), "timestamp": 1, "ingestion_timestamp": 2}
    with pytest.raises(ValueError, match=said):
        ColumnEncoder(TRADES, 1)(columns_of(TRADES, [record, {**record, **changes}]))
