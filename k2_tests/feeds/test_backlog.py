from __future__ import annotations

import random

import pytest

from k2_core.errors import Unreachable
from k2_feeds.backlog import Backlog
from k2_resources.embedded_broker import embedded_broker
from k2_resources.kafka import KafkaLog, LogWriter

TOPIC = "one"
RECORD_BYTES = 1_000
CHANCE = random.Random(1)
RETAINED_BYTES = 5 << 20


@pytest.fixture
def bootstrap():
    with embedded_broker({TOPIC: 2}) as bootstrap:
        yield bootstrap


def send(writer, backlog, count):
    """Records that do not compress, all to one Kafka partition."""
    room = 0
    for _ in range(count):
        backlog.sent(RECORD_BYTES)
        if room < 1:
            room = backlog.room(TOPIC)
        room -= 1
        writer.send(TOPIC, b"", CHANCE.randbytes(RECORD_BYTES))
    writer.flush(30)


def test_nothing_is_dropped_that_the_lake_does_not_hold(bootstrap):
    log, asked = KafkaLog(bootstrap), []

    def committed(_topic):
        """A lake that is always a thousand records behind."""
        marks = log.watermarks([TOPIC])
        asked.append({p: max(0, held.high - 1_000) for (_, p), held in marks.items()})
        assert all(held.low <= asked[-1][p] for (_, p), held in marks.items())
        return asked[-1]

    count = 2 * RETAINED_BYTES // RECORD_BYTES
    with LogWriter(bootstrap) as writer:
        send(writer, Backlog(log, writer, committed, bytes_max=2_500_000), count)
    marks = log.watermarks([TOPIC])
    assert sum(held.high for held in marks.values()) == count
    assert max(held.low for held in marks.values()) > 0, "the broker dropped what the lake holds: the test is real"
    assert len(asked) > 5


def test_a_producer_waits_until_the_lake_caught_up(bootstrap):
    log, said = KafkaLog(bootstrap), []

    def committed(_topic):
        caught_up = len(said) >= 3
        return {p: held.high for (_, p), held in log.watermarks([TOPIC]).items()} if caught_up else {}

    with LogWriter(bootstrap) as writer:
        send(writer, Backlog(log, writer, committed, bytes_max=50_000, on_wait=said.append), 60)
        assert writer.acknowledged == 60
    assert len(said) >= 3
    assert all(0 < waiting.records <= waiting.records_max <= 40 for waiting in said)


def test_a_lake_that_takes_nothing_is_said_and_ends_the_feed(bootstrap):
    with LogWriter(bootstrap) as writer:
        backlog = Backlog(KafkaLog(bootstrap), writer, lambda _: {}, bytes_max=50_000, stall_seconds_max=0.3)
        with pytest.raises(Unreachable, match=r"none was ingested .* are acknowledged.*k2 up"):
            send(writer, backlog, 100)
        writer.flush(10)
        assert 20 <= writer.acknowledged <= 40


def test_offsets_of_an_earlier_broker_count_as_nothing_ingested(bootstrap):
    with LogWriter(bootstrap) as writer:
        log, before = KafkaLog(bootstrap), {0: 1_000_000, 1: 1_000_000}
        backlog = Backlog(log, writer, lambda _: before, bytes_max=50_000, stall_seconds_max=0.3)
        with pytest.raises(Unreachable, match="none was ingested"):
            send(writer, backlog, 100)
