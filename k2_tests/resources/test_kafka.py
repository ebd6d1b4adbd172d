from __future__ import annotations

import itertools
import socket
import struct
from collections import defaultdict

import numpy as np
import pytest
from confluent_kafka import OFFSET_INVALID, Consumer, Producer, TopicPartition

from k2_core.errors import BadInput, LogTruncated, OffsetBelowRetention, Unreachable
from k2_core.offsets import OffsetRange
from k2_core.records import Envelope, Watermarks
from k2_resources.embedded_broker import embedded_broker
from k2_resources.kafka import KafkaLog, LogWriter

SHORT_SECONDS = 1.0
TOPICS = dict.fromkeys(("exact", "other", "edges", "headers", "untouched", "null", "hint"), 3) | {
    "one": 1,
    "small": 1,
}


@pytest.fixture(scope="module")
def bootstrap():
    with embedded_broker(TOPICS) as address:
        yield address


@pytest.fixture(scope="module")
def kafka(bootstrap):
    return KafkaLog(bootstrap)


def fill(bootstrap, topic, rows):
    with LogWriter(bootstrap) as writer:
        for i in range(rows):
            writer.send(topic, b"key%d" % (i % 17), b"%s %d" % (topic.encode(), i))
    return writer


def planned(kafka, *topics):
    return [OffsetRange(t, p, at.low, at.high) for (t, p), at in kafka.watermarks(topics).items()]


def rows(batch):
    return sum(len(records) for records in batch.records)


@pytest.fixture(scope="module")
def filled(bootstrap, kafka):
    for topic in ("exact", "other"):
        fill(bootstrap, topic, 1_000)
    return planned(kafka, "exact", "other")


def test_a_read_gives_every_record_of_its_ranges_once(kafka, filled):
    values = [v for batch in kafka.read(filled, rows_max=300) for records in batch.records for v in records.values]
    assert sorted(values) == sorted(b"%s %d" % (t, i) for t in (b"exact", b"other") for i in range(1_000))


def test_no_batch_is_larger_than_asked(kafka, filled):
    assert [rows(batch) for batch in kafka.read(filled, rows_max=300)] == [300] * 6 + [200]


def test_ranges_of_batches_are_contiguous_and_end_where_planned(kafka, filled):
    batches = [batch.ranges for batch in kafka.read(filled, rows_max=77)]
    reached = {(r.topic, r.kafka_partition): r.start for r in filled}
    for moved in itertools.chain.from_iterable(batches):
        assert moved.start == reached[moved.topic, moved.kafka_partition]
        reached[moved.topic, moved.kafka_partition] = moved.end
    assert reached == {(r.topic, r.kafka_partition): r.end for r in filled}


def test_records_lie_inside_the_ranges_of_their_batch_in_offset_order(kafka, filled):
    for batch in kafka.read(filled, rows_max=77):
        seen = defaultdict(list)
        for records in batch.records:
            for partition, offset in zip(records.kafka_partitions, records.offsets, strict=True):
                seen[records.topic, int(partition)].append(int(offset))
        assert seen == {(r.topic, r.kafka_partition): list(range(r.start, r.end)) for r in batch.ranges}


def test_a_range_inside_the_log_is_read_to_its_end_and_no_further(bootstrap, kafka):
    fill(bootstrap, "edges", 300)
    inside = [OffsetRange("edges", 0, 10, 20), OffsetRange("edges", 1, 5, 5), OffsetRange("edges", 2, 0, 1)]
    [batch] = kafka.read(inside, rows_max=1_000)
    assert batch.ranges == (inside[0], inside[2])
    [records] = batch.records
    assert sorted(zip(records.kafka_partitions.tolist(), records.offsets.tolist(), strict=True)) == [
        *((0, at) for at in range(10, 20)),
        (2, 0),
    ]


def test_empty_ranges_read_nothing_without_a_broker():
    assert list(KafkaLog(unused_address()).read([OffsetRange("t", 0, 7, 7)], rows_max=1)) == []


def test_columns_are_numpy_and_carry_what_was_sent(bootstrap, kafka):
    with LogWriter(bootstrap) as writer:
        writer.send("headers", b"k", b"v", headers=[("a", b"1"), ("a", None)], timestamp_ms=1_700_000_000_123)
    [batch] = kafka.read(planned(kafka, "headers"), rows_max=10)
    [records] = batch.records
    assert (records.kafka_partitions.dtype, records.offsets.dtype) == (np.int32, np.int64)
    assert list(records.values) == [b"v"]
    assert list(records.envelopes) == [Envelope(b"k", (("a", b"1"), ("a", None)), 1_700_000_000_123)]


def test_a_record_without_key_value_or_headers_is_a_record(bootstrap, kafka):
    with LogWriter(bootstrap) as writer:
        writer.send("null", None, None)
    [batch] = kafka.read(planned(kafka, "null"), rows_max=10)
    [envelope] = batch.records[0].envelopes
    assert (envelope.key, list(batch.records[0].values), envelope.headers) == (None, [None], ())


def test_an_end_the_log_does_not_reach_is_unreachable_and_not_a_hang(bootstrap):
    with pytest.raises(Unreachable, match=r"untouched\[1\] at 0 of 5"):
        list(KafkaLog(bootstrap, timeout_seconds=SHORT_SECONDS).read([OffsetRange("untouched", 1, 0, 5)], rows_max=9))


def test_an_offset_past_the_log_is_a_truncated_log(kafka):
    with pytest.raises(LogTruncated, match=r"untouched\[1\] wants offset 1,000 but the log ends at 0"):
        list(kafka.read([OffsetRange("untouched", 1, 1_000, 1_005)], rows_max=9))


def test_an_offset_the_log_dropped_is_an_error_and_never_a_jump(bootstrap, kafka):
    noise = np.random.default_rng(7).bytes(500_000)
    with LogWriter(bootstrap) as writer:
        for _ in range(12):
            writer.send("one", b"k", noise)
            writer.flush(10)
    low = kafka.watermarks(["one"])["one", 0].low
    assert low > 0
    with pytest.raises(
        OffsetBelowRetention, match=rf"one\[0\] wants offset 0 but the log starts at {low}; {low} records"
    ):
        list(kafka.read([OffsetRange("one", 0, 0, 12)], rows_max=9))


def test_a_topic_that_does_not_exist_has_no_entries_and_is_not_made_by_asking(kafka):
    for _ in range(2):
        assert kafka.watermarks(["no.such.topic"]) == {}
        assert kafka.incarnation(["no.such.topic"]) == {}


def test_watermarks_of_an_untouched_topic_are_zero(kafka):
    assert kafka.watermarks(["untouched"]) == {("untouched", p): Watermarks(0, 0) for p in range(3)}


@pytest.mark.parametrize("ask", ["watermarks", "incarnation"])
def test_no_broker_is_unreachable(ask):
    with pytest.raises(Unreachable, match="no metadata within"):
        getattr(KafkaLog(unused_address(), timeout_seconds=SHORT_SECONDS), ask)(["t"])


def test_a_broker_that_ends_in_the_middle_of_a_read_is_unreachable():
    with embedded_broker({"t": 1}) as address:
        fill(address, "t", 10)
        reading = KafkaLog(address, timeout_seconds=SHORT_SECONDS).read([OffsetRange("t", 0, 0, 20)], rows_max=10)
        assert rows(next(reading)) == 10
    with pytest.raises(Unreachable):
        next(reading)


def test_a_group_offset_hint_is_seen_by_lag_tools(bootstrap, kafka):
    kafka.commit_hint("k2-hint", {("hint", 0): 5, ("hint", 2): 9})
    member = Consumer({"bootstrap.servers": bootstrap, "group.id": "k2-hint"})
    try:
        committed = member.committed([TopicPartition("hint", p) for p in range(3)], timeout=10)
    finally:
        member.close()
    assert [at.offset for at in committed] == [5, OFFSET_INVALID, 9]


def test_a_hint_that_cannot_be_given_is_no_error():
    KafkaLog(unused_address(), timeout_seconds=SHORT_SECONDS).commit_hint("g", {("t", 0): 5})


def test_every_record_is_counted_from_sent_to_acknowledged(bootstrap):
    writer = fill(bootstrap, "small", 250)
    assert (writer.sent, writer.acknowledged, writer.failed) == (250, 250, 0)
    assert writer.delivered_offsets == {("small", 0): 250}


def test_statistics_tell_payload_from_wire(bootstrap):
    with LogWriter(bootstrap) as writer:
        for _ in range(100):
            writer.send("other", b"key", b"the same again " * 20)
        writer.flush(10)
        while writer.payload_bytes < 100 * 303:
            writer.poll(1.0)
        assert 0 < writer.bytes_on_wire < writer.payload_bytes


def test_a_key_goes_where_java_producers_send_it(bootstrap):
    with LogWriter(bootstrap) as writer:
        for symbol in ("BINANCE.BTCUSDT", "ASX.BHP", "ASX.DVN", "BINANCE.ETHUSDT"):
            writer.delivered_offsets.clear()
            writer.send("other", symbol.encode(), b"v")
            writer.flush(10)
            [(_, partition)] = writer.delivered_offsets
            assert partition == (murmur2(symbol.encode()) & 0x7FFFFFFF) % 3


def test_records_no_broker_took_are_raised_with_their_number():
    writer = LogWriter(unused_address(), config={"message.timeout.ms": 500})
    with pytest.raises(Unreachable, match=r"2 of 2 records not acknowledged, 2 of them failed"), writer:
        writer.send("t", b"k", b"v")
        writer.send("t", b"k", b"v")


def test_an_error_in_the_block_still_says_what_was_not_acknowledged():
    with (
        pytest.raises(ZeroDivisionError) as caught,
        LogWriter(unused_address(), config={"message.timeout.ms": 500}) as writer,
    ):
        writer.send("t", b"k", b"v")
        1 / 0  # noqa: B018
    assert "1 of 1 records not acknowledged" in caught.value.__notes__[0]


def test_an_error_in_the_block_still_delivers_what_was_sent(bootstrap, kafka):
    before = kafka.watermarks(["small"])["small", 0].high
    with pytest.raises(ZeroDivisionError), LogWriter(bootstrap) as writer:
        writer.send("small", b"k", b"v")
        1 / 0  # noqa: B018
    assert kafka.watermarks(["small"])["small", 0].high == before + 1


def test_a_full_queue_makes_the_sender_wait(bootstrap):
    with LogWriter(bootstrap, config={"queue.buffering.max.messages": 10}) as writer:
        for i in range(100):
            writer.send("other", b"%d" % i, b"v")
    assert writer.acknowledged == 100


def test_a_record_larger_than_a_broker_takes_is_bad_input(bootstrap):
    with LogWriter(bootstrap) as writer, pytest.raises(BadInput, match="other: a record of 3,000,000 bytes"):
        writer.send("other", b"k", b"v" * 3_000_000)


def test_the_client_and_its_c_library_agree_on_offsets_of_a_foreign_producer(bootstrap, kafka):
    before = kafka.watermarks(["other"])
    foreign = Producer({"bootstrap.servers": bootstrap, "compression.type": "zstd"})
    foreign.produce("other", b"v", partition=1)
    foreign.flush(10)
    after = kafka.watermarks(["other"])
    assert {p: at.high - before[t, p].high for (t, p), at in after.items()} == {0: 0, 1: 1, 2: 0}


def unused_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def murmur2(data: bytes) -> int:
    """Kafka's hash, from its description: MurmurHash2, 32 bits, its seed."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4
    for (word,) in struct.iter_unpack("<I", data[: whole * 4]):
        k = word * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    for i, byte in enumerate(data[whole * 4 :]):
        h ^= byte << 8 * i
    if len(data) % 4:
        h = h * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
