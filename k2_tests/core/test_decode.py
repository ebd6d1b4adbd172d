from __future__ import annotations

import random

import numpy as np
import pytest

from k2_core.avro import avro_schema
from k2_core.contracts import TRADES
from k2_core.decode import decode
from k2_core.quality import Reason
from k2_core.records import Envelope, Records
from k2_resources.avro_codec import decoder
from k2_tests.ticks import encoded, trade

PLAIN, WITHOUT_FLAGS, UNKNOWN = 1, 2, 999
SCHEMAS = {
    PLAIN: avro_schema(TRADES),
    WITHOUT_FLAGS: {
        **avro_schema(TRADES),
        "fields": [field for field in avro_schema(TRADES)["fields"] if field["name"] != "quality_flags"],
    },
}


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
