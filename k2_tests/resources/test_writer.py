"""Writes that are counted without learning offsets: what feeds send by."""

from __future__ import annotations

import pytest

from k2_core.errors import BadInput, Unreachable
from k2_core.offsets import OffsetRange
from k2_resources.embedded_broker import embedded_broker
from k2_resources.kafka import BY_KEY, KafkaLog, LogWriter
from k2_tests.resources.test_kafka import unused_address

TOPIC = "counted"
SHORT = {"message.timeout.ms": 500}


@pytest.fixture(scope="module")
def bootstrap():
    with embedded_broker({TOPIC: 3}) as address:
        yield address


@pytest.fixture
def since(bootstrap):
    """Values of each Kafka partition that came after now."""
    log = KafkaLog(bootstrap)
    before = log.watermarks([TOPIC])

    def since():
        marks = log.watermarks([TOPIC])
        ranges = [OffsetRange(t, p, before[t, p].high, held.high) for (t, p), held in marks.items()]
        found = {p: [] for p in range(3)}
        for batch in log.read([r for r in ranges if r.rows_max], rows_max=1_000):
            for records in batch.records:
                for partition, value in zip(records.kafka_partitions.tolist(), records.values, strict=True):
                    found[partition].append(value)
        return found

    return since


def test_records_sent_at_once_keep_their_order_and_lie_where_they_were_sent(bootstrap, since):
    values = [b"%d" % i for i in range(900)]
    with LogWriter(bootstrap, offsets=False) as writer:
        writer.send_all(TOPIC, [b"key"] * 900, values, [i % 3 for i in range(900)])
        assert writer.sent == 900
        writer.flush(10)
        assert (writer.acknowledged, writer.failed, writer.queued) == (900, 0, 0)
    assert since() == {p: values[p::3] for p in range(3)}


def test_one_by_one_and_at_once_are_counted_together(bootstrap, since):
    with LogWriter(bootstrap, offsets=False) as writer:
        writer.send(TOPIC, b"key", b"first", partition=2)
        writer.send_all(TOPIC, [b"key"], [b"second"], [2])
        writer.flush(10)
        writer.send(TOPIC, b"key", b"third")
        assert writer.acknowledged >= 2
    assert (writer.sent, writer.acknowledged) == (3, 3)
    assert since()[2][:2] == [b"first", b"second"]


def test_what_no_broker_took_is_counted_and_raised():
    with (
        pytest.raises(Unreachable, match=r"3 of 3 records not acknowledged, 3 of them failed"),
        LogWriter(unused_address(), offsets=False, config=SHORT) as writer,
    ):
        writer.send_all(TOPIC, [b"k"] * 3, [b"v"] * 3, [BY_KEY] * 3)
        assert writer.acknowledged == 0
    assert writer.failed == 3


def test_a_full_queue_makes_the_sender_wait_and_is_counted(bootstrap):
    with LogWriter(bootstrap, offsets=False, config={"queue.buffering.max.messages": 10}) as writer:
        writer.send_all(TOPIC, [b"k"] * 100, [b"v"] * 100, [0] * 100)
    assert writer.acknowledged == 100
    assert writer.full_queue_waits > 0


def test_a_record_too_large_for_any_broker_stops_after_those_before_it(bootstrap, since):
    with LogWriter(bootstrap, offsets=False) as writer:
        with pytest.raises(BadInput, match="3,000,000 bytes"):
            writer.send_all(TOPIC, [b"k"] * 3, [b"v", b"v" * 3_000_000, b"v"], [0] * 3)
        assert writer.sent == 1
    assert since()[0] == [b"v"]
