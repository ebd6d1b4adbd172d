from __future__ import annotations

import copy
import io
import random

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_core.avro import avro_schema
from k2_core.contracts import TRADES
from k2_core.decode import decode, schema_ids_by_partition
from k2_core.quality import Reason
from k2_core.records import Envelope, Records
from k2_core.v1 import v1_schema
from k2_resources.avro_codec import decoder
from k2_tests.core.test_v1 import trade as v1_trade
from k2_tests.ticks import encoded, trade

PLAIN, WITHOUT_FLAGS, TURNED, V1, SLOW, UNKNOWN = 1, 2, 3, 4, 5, 999
SCHEMAS = {
    PLAIN: avro_schema(TRADES),
    WITHOUT_FLAGS: {
        **avro_schema(TRADES),
        "fields": [field for field in avro_schema(TRADES)["fields"] if field["name"] != "quality_flags"],
    },
}


SCHEMAS[TURNED] = {**avro_schema(TRADES), "fields": avro_schema(TRADES)["fields"][::-1]}
SCHEMAS[V1] = v1_schema(TRADES)
FINER = {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 10}
SCHEMAS[SLOW] = {
    **avro_schema(TRADES),
    "fields": [{**f, "type": FINER} if f["name"] == "price" else f for f in avro_schema(TRADES)["fields"]],
}


def written_by(schema_id, number):
    """A record of any of the schemas; V1 has an older shape, and one is of a shape lockstep leaves to fastavro."""
    row = v1_trade(volume=number + 1) if schema_id == V1 else trade(number)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(copy.deepcopy(SCHEMAS[schema_id])), row)
    return b"\0" + schema_id.to_bytes(4, "big") + out.getvalue()


def decoder_of(schema_id):
    return decoder(SCHEMAS[schema_id], TRADES) if schema_id in SCHEMAS else None


def records(*values):
    n = len(values)
    return Records(
        topic="market.crypto.trades.binance",
        kafka_partitions=np.zeros(n, np.int32),
        offsets=np.arange(n, dtype=np.int64),
        values=list(values),
        envelopes=[Envelope(None, (), -1)] * n,
    )


def of(number, schema_id=PLAIN):
    return encoded(trade(number), TRADES, schema_id)


def without_flags(number):
    """quality_flags is the last field and 0 is one byte."""
    return of(number, WITHOUT_FLAGS)[:-1]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.NULL_VALUE),
        (b"", Reason.EMPTY),
        (b"\x01" + of(2)[1:], Reason.BAD_MAGIC),
        (b"{}", Reason.BAD_MAGIC),
        (b"\x00", Reason.TRUNCATED),
        (b"\x00\x00\x00\x00", Reason.TRUNCATED),
        (of(2)[:5], Reason.TRUNCATED),
        (of(2)[:-1], Reason.TRUNCATED),
        (of(2) + b"\x00", Reason.TRAILING_BYTES),
        (of(2, UNKNOWN), Reason.UNKNOWN_SCHEMA),
    ],
)
def test_a_bad_record_is_named_and_its_neighbours_are_rows(value, reason):
    decoded = decode(records(of(1), value, of(3)), TRADES, decoder_of)
    assert [(dead.index, dead.reason) for dead in decoded.dead] == [(1, reason)]
    assert decoded.source.tolist() == [0, 2]
    assert decoded.rows["source_sequence"].to_pylist() == [1, 3]


def test_records_of_several_writer_schemas_keep_the_order_of_the_log():
    values = [of(0), without_flags(1), b"", of(3), without_flags(4)]
    decoded = decode(records(*values), TRADES, decoder_of)
    assert decoded.rows["source_sequence"].to_pylist() == decoded.source.tolist() == [0, 1, 3, 4]
    assert decoded.schema_ids == (PLAIN, WITHOUT_FLAGS)


def test_a_dead_record_says_which_schema_it_claimed():
    decoded = decode(records(of(1)[:-1], of(2, UNKNOWN), b"\x01"), TRADES, decoder_of)
    assert [dead.schema_id for dead in decoded.dead] == [PLAIN, UNKNOWN, None]


def test_a_batch_without_a_good_record_gives_an_empty_table_of_the_contract():
    decoded = decode(records(b"", None), TRADES, decoder_of)
    assert decoded.rows.schema.equals(TRADES.arrow_schema(origins=("feed",)))
    assert (len(decoded.rows), len(decoded.dead)) == (0, 2)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from([PLAIN, WITHOUT_FLAGS, TURNED, V1, SLOW]), st.booleans()), max_size=40),
    st.sampled_from([1, 3, 7, 10_000]),
)
def test_mixed_writers_in_slices_of_any_size_give_what_each_record_gives_alone(drawn, slice_records):
    values = [
        written_by(schema_id, number)[: -1 if is_cut else None] for number, (schema_id, is_cut) in enumerate(drawn)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("k2_core.decode.SLICE_RECORDS", slice_records)
        together = decode(records(*values), TRADES, decoder_of)
    alone = [decode(records(value), TRADES, decoder_of) for value in values]
    assert together.rows.combine_chunks().equals(
        pa.concat_tables(
            [TRADES.arrow_schema(origins=("feed",)).empty_table(), *(d.rows for d in alone)]
        ).combine_chunks()
    )
    assert together.source.tolist() == [i for i, (_, is_cut) in enumerate(drawn) if not is_cut]
    assert [d.index for d in together.dead] == [i for i, (_, is_cut) in enumerate(drawn) if is_cut]
    assert together.schema_ids == tuple(sorted({schema_id for schema_id, _ in drawn}))


def test_the_schema_ids_of_a_partition_are_those_of_its_records():
    values = [of(1), b"junk", None, of(2, WITHOUT_FLAGS), of(3), b"", b"\0\xff\xff\xff\xff", of(4)]
    some = records(*values)
    some.kafka_partitions[:] = [0, 0, 0, 0, 2, 2, 3, 2]
    assert schema_ids_by_partition(some) == {0: {PLAIN, WITHOUT_FLAGS}, 2: {PLAIN}}
    assert schema_ids_by_partition(records()) == {}


def test_a_slice_of_long_records_is_halved(monkeypatch):
    monkeypatch.setattr("k2_core.decode.SLICE_BYTES_MAX", 400)
    decoded = decode(records(*map(of, range(20)), b"", None), TRADES, decoder_of)
    assert decoded.rows["source_sequence"].to_pylist() == list(range(20))
    assert [dead.index for dead in decoded.dead] == [20, 21]


def test_whatever_the_registry_raises_passes_through_and_decides_nothing():
    def unreachable(schema_id):
        raise ConnectionError(schema_id)

    with pytest.raises(ConnectionError):
        decode(records(of(1)), TRADES, unreachable)


def test_every_damaged_record_is_either_a_row_or_a_dead_letter():
    chance, good = random.Random(3), of(2)
    damaged = []
    for _ in range(2_000):
        value = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            value[chance.randrange(5, len(value))] = chance.randrange(256)
        damaged.append(bytes(value[: chance.randint(5, len(value))]) if chance.random() < 0.3 else bytes(value))
    decoded = decode(records(*damaged), TRADES, decoder_of)
    assert sorted([*decoded.source.tolist(), *(dead.index for dead in decoded.dead)]) == list(range(2_000))
    assert len(decoded.rows) == len(decoded.source)
