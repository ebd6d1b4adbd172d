"""What only a real Apache Kafka does, from topic to committed table: each record in the ledger once, nothing skipped.

All tests that need the real server are in this module, so that one Java process serves them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import NewPartitions

from k2_assets.engine import ingest_until_caught_up
from k2_core.contracts import TRADES
from k2_core.errors import IncarnationChanged, K2Error, OffsetBelowRetention, Unreachable
from k2_resources.lake.scans import receipt_rows
from k2_tests.crash.sink_schedules import SCHEDULES
from k2_tests.kafka_server import Outages, RealStack, real_stack

pytest_plugins = ["k2_tests.kafka_server.fixture"]
pytestmark = pytest.mark.timeout(240)

COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "200",
    "min.cleanable.dirty.ratio": "0.01",
    "max.compaction.lag.ms": "200",
    "delete.retention.ms": "0",
}
COMPACTION_SECONDS_MAX = 60.0


@pytest.fixture
def here(tmp_path, kafka_server, registry_url) -> Iterator[RealStack]:
    with real_stack(tmp_path, kafka_server, registry_url) as running:
        yield running


def in_transaction(here: RealStack, name: str, values: list[bytes], *, partition: int, commits: bool) -> None:
    """One transaction, whose markers take an offset at its end; what it aborts leaves the ledger."""
    producer = here.producer(transactional_id=f"{here.topic}.{name}")
    producer.init_transactions(30)
    producer.begin_transaction()
    before = set(here.ledger.acknowledged)
    here.queue(producer, values, partition=partition)
    assert producer.flush(30) == 0
    if commits:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)
        here.ledger.drop(here.ledger.acknowledged.keys() - before)


def test_committed_transactions_are_rows_and_aborted_ones_are_not_there(here):
    in_transaction(here, "a", here.trades(100), partition=0, commits=True)
    in_transaction(here, "b", here.trades(70), partition=0, commits=False)
    here.send(here.trades(30), partition=0)
    in_transaction(here, "c", here.trades(50), partition=1, commits=False)
    in_transaction(here, "d", here.trades(40), partition=2, commits=True)
    engine = here.ingest()
    proof = here.prove()
    assert (proof.rows, proof.read) == (170, 170)
    ends = {p: high for p, (_, high) in here.watermarks().items()}
    assert ends == {0: 100 + 1 + 70 + 1 + 30, 1: 51, 2: 41, 3: 0}
    assert positions(engine, here) == ends | {3: 0}
    assert engine.plan(TRADES).ranges == ()


def positions(engine, here: RealStack) -> dict[int, int]:
    """Where the receipts end, per Kafka partition: markers and holes are inside their ranges."""
    at: dict[int, int] = {}
    for receipt in receipt_rows(engine.lake, TRADES).to_pylist():
        at |= {r["kafka_partition"]: r["end"] for r in receipt["ranges"] if r["topic"] == here.topic}
    return at


def test_an_open_transaction_holds_back_what_is_behind_it_and_loses_nothing(here):
    here.send(here.trades(10), partition=0)
    producer = here.producer(transactional_id=f"{here.topic}.open")
    producer.init_transactions(30)
    producer.begin_transaction()
    here.queue(producer, here.trades(20), partition=0)
    assert producer.flush(30) == 0
    here.send(here.trades(5), partition=0)
    engine = here.ingest()
    assert engine.lake.load(TRADES).scan().count() == 10
    producer.commit_transaction(30)
    ingest_until_caught_up(engine)
    assert here.prove().rows == 35


def test_batches_that_end_inside_a_transaction_add_up(tmp_path, kafka_server, registry_url):
    with real_stack(tmp_path, kafka_server, registry_url, partitions=1, rows_per_commit=7) as here:
        for number in range(6):
            in_transaction(here, str(number), here.trades(11), partition=0, commits=number % 2 == 0)
        here.ingest()
        proof = here.prove()
        assert (proof.rows, proof.read) == (33, 33)


def test_a_compacted_topic_is_read_with_its_holes(tmp_path, kafka_server, registry_url):
    with real_stack(tmp_path, kafka_server, registry_url, partitions=1, topic_config=COMPACTED) as here:
        for _ in range(10):
            here.send(here.trades(64))
        deadline = time.monotonic() + COMPACTION_SECONDS_MAX
        while len(here.readable()) == len(here.ledger.acknowledged):
            assert time.monotonic() < deadline, "the broker did not compact in time"
            here.send(here.trades(64))  # only a new record closes a segment
            time.sleep(0.3)
        here.ingest()
        rest = here.readable()
        gone = {at for at in here.ledger.acknowledged if at[3] not in rest}
        read = {row["kafka_offset"] for row in here.engine().lake.load(TRADES).scan().to_arrow().to_pylist()}
        assert rest <= read <= {at[3] for at in here.ledger.acknowledged}  # it went on compacting meanwhile
        here.ledger.drop({at for at in gone if at[3] not in read})
        proof = here.prove()
        assert proof.rows < here.watermarks()[0][1]
        assert here.engine().plan(TRADES).ranges == ()


def test_records_trimmed_behind_the_stored_offset_are_no_loss(here):
    here.send(here.trades(100), partition=0)
    engine = here.ingest()
    here.delete_records(0, 60)
    here.send(here.trades(20), partition=0)
    assert here.watermarks()[0] == (60, 120)
    ingest_until_caught_up(engine)
    assert here.prove().rows == 120


def test_records_trimmed_past_the_stored_offset_halt_the_plan_and_nothing_is_skipped(here):
    here.send(here.trades(50), partition=0)
    engine = here.ingest()
    here.send(here.trades(50), partition=0)
    here.send(here.trades(10), partition=1)
    here.delete_records(0, 80)
    for _ in range(2):
        with pytest.raises(OffsetBelowRetention, match=r"\[0\].*wants offset 50 but the log starts at 80; 30 records"):
            engine.plan(TRADES)
    assert OffsetBelowRetention.code == "OFFSET_BELOW_RETENTION"
    assert positions(engine, here)[0] == 50
    assert engine.lake.load(TRADES).scan().count() == 50


def test_records_trimmed_between_plan_and_read_halt_the_run_and_nothing_is_skipped(here):
    here.send(here.trades(50), partition=0)
    engine = here.ingest()
    here.send(here.trades(50), partition=0)
    plan = engine.plan(TRADES)
    here.delete_records(0, 80)
    with pytest.raises(OffsetBelowRetention, match="wants offset 50 but the log starts at 80; 30 records"):
        list(engine.execute(TRADES, plan.ranges, "test"))
    assert engine.lake.load(TRADES).scan().count() == 50


def test_a_topic_made_anew_halts_until_it_is_adopted_and_goes_on_in_a_new_epoch(here):
    here.send(here.trades(100))
    engine = here.ingest()
    here.recreate(partitions=4)
    here.send(here.trades(150))
    with pytest.raises(IncarnationChanged, match="k2 topics adopt") as caught:
        engine.plan(TRADES)
    assert caught.value.code == "INCARNATION_CHANGED"
    engine.adopt(TRADES, [here.topic], run_id="test", who="a test", why="the topic was made anew")
    ingest_until_caught_up(engine)
    assert here.prove().rows == 250
    epochs = engine.lake.load(TRADES).scan(selected_fields=("kafka_epoch",)).to_arrow()["kafka_epoch"].to_pylist()
    assert sorted(set(epochs)) == [0, 1]


def test_a_topic_made_anew_between_plan_and_read_is_not_read_as_the_old_one(here):
    here.send(here.trades(100))
    engine = here.ingest()
    here.send(here.trades(40))
    plan = engine.plan(TRADES)
    here.recreate(partitions=4)
    here.send(here.trades(300))
    with pytest.raises(IncarnationChanged):
        list(engine.execute(TRADES, plan.ranges, "test"))
    assert engine.lake.load(TRADES).scan().count() == 100


def test_a_topic_that_is_gone_is_not_taken_for_one_with_nothing_to_read(here):
    here.send(here.trades(10))
    engine = here.ingest()
    here.delete_topic()
    with pytest.raises(K2Error, match=rf"{here.topic}"):
        engine.plan(TRADES)


def test_partitions_added_later_are_read_by_the_next_plan_from_their_start(here):
    here.send(here.trades(100))
    engine = here.ingest()
    here.server.admin.create_partitions([NewPartitions(here.topic, 9)])[here.topic].result(30)
    here.server.await_partitions(here.topic, 9)
    for partition in range(4, 9):
        here.send(here.trades(10 * partition), partition=partition)
    here.send(here.trades(50))
    assert {r.kafka_partition for r in engine.plan(TRADES).ranges} >= {4, 5, 6, 7, 8}
    ingest_until_caught_up(engine)
    assert here.prove().rows == 100 + 10 * (4 + 5 + 6 + 7 + 8) + 50


def test_a_broker_killed_while_a_producer_sends_leaves_every_acknowledged_record(here):
    outages = Outages(here.server, count=2)
    producer = here.producer(delivery_timeout_ms=120_000)
    outages.start()
    while outages.is_alive():
        here.queue(producer, here.trades(200))
        producer.poll(0.05)
    assert producer.flush(60) == 0
    outages.join()
    here.ingest()
    assert here.prove().rows == len(here.ledger.acknowledged) > 200
    assert not here.ledger.refused


def test_a_broker_killed_while_it_is_read_is_waited_for_or_said_and_the_next_run_is_exact(
    tmp_path, kafka_server, registry_url
):
    with real_stack(tmp_path, kafka_server, registry_url, rows_per_commit=400, kafka_timeout_seconds=30.0) as here:
        here.send(here.trades(8_000))
        engine, outages, said = here.engine(), Outages(kafka_server, count=1), []
        outages.start()
        try:
            ingest_until_caught_up(engine)
        except Unreachable as error:
            said.append(error.code)
        outages.join()
        here.ingest()
        assert here.prove().rows == 8_000
        assert said in ([], ["UNREACHABLE"])


def test_a_broker_killed_in_the_middle_of_a_run_is_unreachable_and_the_next_run_is_exact(
    tmp_path, kafka_server, registry_url
):
    with real_stack(tmp_path, kafka_server, registry_url, rows_per_commit=10, kafka_timeout_seconds=2.0) as here:
        here.send(here.trades(150))
        engine = here.engine()
        run = engine.execute(TRADES, engine.plan(TRADES).ranges, "test")
        next(run)
        kafka_server.kill()
        try:
            with pytest.raises(Unreachable) as caught:
                list(run)
        finally:
            kafka_server.start()
        assert caught.value.code == "UNREACHABLE"
        stored = engine.lake.load(TRADES).scan().count()
        assert 10 <= stored < 150
        here.ingest()
        assert here.prove().rows == 150


def test_a_broker_that_is_down_says_so_at_plan_and_is_found_again_when_it_is_back(here):
    here.send(here.trades(20))
    engine = here.engine()
    here.server.stop()
    try:
        with pytest.raises(Unreachable, match="no metadata within") as caught:
            here.elsewhere(kafka_timeout_seconds=1.0).engine().plan(TRADES)
    finally:
        here.server.start()
    assert caught.value.code == "UNREACHABLE"
    ingest_until_caught_up(engine)
    assert here.prove().rows == 20


def test_records_larger_than_any_default_are_rows_and_dead_letters_like_others(tmp_path, kafka_server, registry_url):
    large = {"max.message.bytes": str(24 << 20)}
    with real_stack(tmp_path, kafka_server, registry_url, topic_config=large) as here:
        for megabytes in (1, 3, 9, 17):
            some = here.trades(2, vendor_data={"note": "x" * (megabytes << 20)})
            here.send([*some, b"\xff" * (megabytes << 20), *here.trades(5)], partition=megabytes % 4)
        here.ingest()
        proof = here.prove()
        assert (proof.rows, proof.dead) == (4 * 7, 4)


@pytest.mark.parametrize("acknowledged_by", ["producer", "topic"])
def test_every_compression_is_read(tmp_path, kafka_server, registry_url, acknowledged_by):
    """Compressed by the producer, or again by the broker when the topic asks for another way."""
    config = {"compression.type": "zstd"} if acknowledged_by == "topic" else None
    with real_stack(tmp_path, kafka_server, registry_url, partitions=2, topic_config=config) as here:
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            here.send([*here.trades(200), b"junk", None], compression_type=codec)
        here.ingest()
        proof = here.prove()
        assert (proof.rows, proof.dead) == (1_000, 10)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.__name__)
def test_nothing_is_lost_and_nothing_doubled_by(schedule, tmp_path, kafka_server, registry_url):
    with real_stack(tmp_path, kafka_server, registry_url, rows_per_commit=50) as here:
        schedule(here)
        here.prove()
