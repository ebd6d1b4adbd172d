"""One suite for both logs: what the simulation may rely on is what Kafka does."""

from __future__ import annotations

import itertools

import pytest

from k2_core.errors import LogTruncated, OffsetBelowRetention, Unreachable
from k2_core.offsets import OffsetRange
from k2_core.records import Watermarks
from k2_resources.embedded_broker import embedded_broker
from k2_tests.simulation.sides import BrokerSide, ClusterSide

TOPICS = {"exact": 2, "small": 2, "inside": 1, "dropped": 1, "untouched": 3, "hinted": 1}


@pytest.fixture(scope="module", params=["broker", "simulated"])
def side(request):
    if request.param == "simulated":
        yield ClusterSide(TOPICS)
        return
    with embedded_broker(TOPICS) as bootstrap:
        yield BrokerSide(bootstrap)


def batches(side, *ranges, rows_max=1_000):
    return list(side.log.read(ranges, rows_max=rows_max))


def count(batch):
    """Records of a batch: the real log holds them by topic, the simulated one one by one."""
    return sum(len(r.values) if hasattr(r, "values") else 1 for r in batch.records)


def test_watermarks_name_every_partition_and_count_what_was_produced(side):
    assert side.log.watermarks(["untouched"]) == {("untouched", p): Watermarks(0, 0) for p in range(3)}
    side.produce("exact", 0, 7)
    side.produce("exact", 1, 5)
    assert side.log.watermarks(["exact"]) == {("exact", 0): Watermarks(0, 7), ("exact", 1): Watermarks(0, 5)}


def test_a_topic_that_does_not_exist_has_no_entries(side):
    assert side.log.watermarks(["no.such.topic"]) == {}
    assert side.log.incarnation(["no.such.topic"]) == {}


def test_ranges_are_read_exactly_in_contiguous_batches_of_the_asked_size(side):
    side.produce("small", 0, 20)
    side.produce("small", 1, 9)
    planned = [OffsetRange("small", 0, 0, 20), OffsetRange("small", 1, 2, 9)]
    read = batches(side, *planned, rows_max=6)
    assert all(0 < count(batch) <= 6 for batch in read)
    assert sum(map(count, read)) == 27
    reached = {(r.topic, r.kafka_partition): r.start for r in planned}
    for moved in itertools.chain.from_iterable(batch.ranges for batch in read):
        assert moved.start == reached[moved.topic, moved.kafka_partition]
        assert moved.rows_max > 0
        reached[moved.topic, moved.kafka_partition] = moved.end
    assert reached == {(r.topic, r.kafka_partition): r.end for r in planned}


def test_a_range_inside_the_log_is_read_to_its_end_and_an_empty_one_not_at_all(side):
    side.produce("inside", 0, 10)
    assert batches(side, OffsetRange("inside", 0, 4, 4)) == []
    [batch] = batches(side, OffsetRange("inside", 0, 3, 8))
    assert (batch.ranges, count(batch)) == ((OffsetRange("inside", 0, 3, 8),), 5)


def test_offsets_below_retention_are_an_error_and_never_a_jump(side):
    side.drop_some("dropped")
    marks = side.log.watermarks(["dropped"])["dropped", 0]
    assert 0 < marks.low < marks.high
    with pytest.raises(OffsetBelowRetention):
        batches(side, OffsetRange("dropped", 0, 0, marks.high))
    [batch] = batches(side, OffsetRange("dropped", 0, marks.low, marks.high))
    assert count(batch) == marks.high - marks.low


def test_offsets_past_the_log_are_a_truncated_log(side):
    with pytest.raises(LogTruncated):
        batches(side, OffsetRange("untouched", 1, 1_000, 1_005))


def test_an_end_the_log_does_not_reach_is_unreachable_and_not_an_end(side):
    with pytest.raises(Unreachable):
        batches(side, OffsetRange("untouched", 2, 0, 5))


def test_an_incarnation_is_of_the_log_and_stays(side):
    first = side.log.incarnation(["untouched", "inside"])
    assert set(first) == {"untouched", "inside"}
    side.produce("inside", 0, 1)
    assert side.log.incarnation(["untouched", "inside"]) == first


def test_hints_never_fail_and_change_nothing(side):
    before = side.log.watermarks(["hinted"])
    side.log.commit_hint("k2-test", {("hinted", 0): 3})
    assert side.log.watermarks(["hinted"]) == before


def test_a_log_made_anew_is_another_incarnation_with_its_own_offsets():
    simulated = ClusterSide(TOPICS)
    before = simulated.log.incarnation(["inside"])
    simulated.produce("inside", 0, 3)
    simulated.cluster.delete("inside")
    assert simulated.log.incarnation(["inside"]) == simulated.log.watermarks(["inside"]) == {}
    with pytest.raises(Unreachable):
        batches(simulated, OffsetRange("inside", 0, 0, 3))
    simulated.cluster.create("inside", 1)
    assert simulated.log.incarnation(["inside"]) != before
    assert simulated.log.watermarks(["inside"]) == {("inside", 0): Watermarks(0, 0)}
    found = []
    for _ in range(2):
        with embedded_broker(TOPICS) as bootstrap:
            real = BrokerSide(bootstrap)
            found.append(real.log.incarnation(["inside"])["inside"])
            assert real.log.watermarks(["inside"]) == {("inside", 0): Watermarks(0, 0)}
            real.produce("inside", 0, 3)
    assert found[0] != found[1]
