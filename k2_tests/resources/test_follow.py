from __future__ import annotations

import time
from contextlib import closing

import pytest

from k2_core.errors import LogTruncated
from k2_resources.embedded_broker import embedded_broker
from k2_resources.kafka import KafkaLog, LogWriter

TOPIC, PARTITIONS = "followed", 2
WAIT_SECONDS = 0.05


@pytest.fixture(scope="module")
def bootstrap():
    with embedded_broker({TOPIC: PARTITIONS, "short": 1}) as address:
        yield address


def send(bootstrap, first, end):
    with LogWriter(bootstrap) as writer:
        for n in range(first, end):
            writer.send(TOPIC, b"key%d" % n, b"%d" % n)


def gathered(batches, count):
    """The values of so many records, and the ranges they came in."""
    values, ranges, deadline = [], [], time.monotonic() + 20
    while len(values) < count and time.monotonic() < deadline:
        batch = next(batches)
        values += [int(value) for records in batch.records for value in records.values]
        ranges += batch.ranges
    return values, ranges


def test_a_follower_gives_every_record_once_in_contiguous_ranges_and_goes_on_without_an_end(bootstrap):
    send(bootstrap, 0, 300)
    kafka = KafkaLog(bootstrap)
    starts = {(TOPIC, p): 0 for p in range(PARTITIONS)}
    with closing(kafka.follow(starts, wait_seconds=WAIT_SECONDS)) as batches:
        values, ranges = gathered(batches, 300)
        assert sorted(values) == list(range(300))
        assert next(batches).records == ()
        send(bootstrap, 300, 400)
        more, more_ranges = gathered(batches, 100)
    assert sorted(more) == list(range(300, 400))
    for p in range(PARTITIONS):
        mine = [r for r in [*ranges, *more_ranges] if r.kafka_partition == p]
        assert [r.start for r in mine] == [0, *(r.end for r in mine[:-1])]
        assert mine[-1].end == kafka.watermarks([TOPIC])[TOPIC, p].high


def test_a_follower_begins_where_it_is_told_and_refuses_what_is_not_there(bootstrap):
    kafka = KafkaLog(bootstrap)
    high = kafka.watermarks([TOPIC])[TOPIC, 0].high
    with closing(kafka.follow({(TOPIC, 0): high - 3}, wait_seconds=WAIT_SECONDS)) as batches:
        values, ranges = gathered(batches, 3)
        assert (len(values), ranges[0].start) == (3, high - 3)
    with closing(kafka.follow({("short", 0): 7}, wait_seconds=WAIT_SECONDS)) as batches, pytest.raises(LogTruncated):
        for _ in range(200):
            next(batches)
