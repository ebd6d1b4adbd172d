from __future__ import annotations

import shutil
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from k2_assets.engine import ingest_until_caught_up
from k2_core.contracts import CONTRACT_VERSION, INGESTED, QUOTES, TRADES
from k2_core.errors import Damaged, FencedOut, IncarnationChanged, LogTruncated, SchemaUnavailable
from k2_core.offsets import OffsetRange
from k2_core.protocol.ports import Change
from k2_core.receipts import RangeCount, Receipt
from k2_resources.embedded_broker import embedded_broker
from k2_resources.kafka import LogWriter
from k2_resources.lake.scans import dead_letters, receipt_rows
from k2_resources.lake.verify import verify
from k2_tests.conftest import free_port, start_registry, stop
from k2_tests.lakes import commit
from k2_tests.stacks import TOPICS, stack
from k2_tests.ticks import FEEDS, encoded, quote, trade

FEED = FEEDS["binance-trades"]


@pytest.fixture
def here(tmp_path, registry_url):
    with stack(tmp_path / "a home", registry_url) as running:
        yield running


def rows(engine, table=TRADES):
    columns = ("message_id", "revision", "kafka_offset")
    return sorted(
        tuple(r.values()) for r in engine.lake.load(table).scan(selected_fields=columns).to_arrow().to_pylist()
    )


def test_a_range_executed_twice_adds_no_row(here):
    here.send(FEED, [trade(n) for n in range(1_000)])
    engine = here.engine()
    plan = engine.plan(TRADES)
    assert plan.rows_max == 1_000
    assert sum(c.receipt.rows_stored for c in engine.execute(TRADES, plan.ranges, "first")) == 1_000
    assert list(engine.execute(TRADES, plan.ranges, "second")) == []
    assert len(rows(engine)) == 1_000
    assert verify(engine.lake, TRADES).findings == ()


def test_feeding_the_same_records_again_adds_no_row_and_counts_them(here):
    records = [trade(n) for n in range(300)]
    here.send(FEED, records)
    engine = here.engine()
    ingest_until_caught_up(engine)
    before = rows(engine)
    here.send(FEED, [*records, trade(7, price=Decimal(5))])
    ingest_until_caught_up(engine)
    proof = verify(engine.lake, TRADES)
    assert (proof.read, proof.written, proof.duplicates, proof.revisions, proof.findings) == (601, 300, 300, 1, ())
    assert [row for row in rows(engine) if row not in before] == [("BINANCE:BTCUSDT:trade:7", 1, 600)]


def test_bad_records_become_dead_letters_with_their_bytes_and_their_neighbours_rows(here):
    here.send(FEED, [trade(1)])
    good = encoded(trade(2), schema_id=1)
    bad = {
        b"\x01" + good[1:]: "bad_magic",
        good[:1] + (999_999).to_bytes(4, "big") + good[5:]: "unknown_schema",
        good[:-7]: "truncated",
        good + b"!": "trailing_bytes",
        b"": "empty",
        b"\x00\x00": "truncated",
    }
    here.send_bytes(FEED, [*bad, None])
    here.send(FEED, [trade(2)])
    engine = here.engine()
    ingest_until_caught_up(engine)
    letters = dead_letters(engine.lake, TRADES).to_pylist()
    assert {letter["value"]: letter["reason"] for letter in letters} == {**bad, None: "null_value"}
    assert [letter["kafka_offset"] for letter in letters] == list(range(1, 8))
    assert all(letter["key"] == b"BINANCE.BTCUSDT" for letter in letters)
    assert [message_id for message_id, _, _ in rows(engine)] == ["BINANCE:BTCUSDT:trade:1", "BINANCE:BTCUSDT:trade:2"]
    assert verify(engine.lake, TRADES).findings == ()


def test_a_record_of_another_table_is_a_dead_letter(here):
    here.send(FEED, [trade(1)])
    quotes = FEEDS["binance-quotes"]
    here.send(quotes, [quote(1)])
    here.send_bytes(FEED, [encoded(quote(2), QUOTES, here.register(quotes))])
    engine = here.engine()
    ingest_until_caught_up(engine)
    assert dead_letters(engine.lake, TRADES)["reason"].to_pylist() == ["wrong_record"]
    assert len(rows(engine, QUOTES)) == 1


def test_a_schema_id_waits_when_the_registry_knows_nothing_of_the_subject(here, tmp_path):
    port = free_port()
    child = start_registry(tmp_path / "another", port)
    try:
        lost = here.elsewhere(registry_url=f"http://127.0.0.1:{port}")
        lost.send_bytes(FEED, [encoded(trade(1), schema_id=77)])
        engine = lost.engine()
        with pytest.raises(SchemaUnavailable, match="wait until it answers"):
            ingest_until_caught_up(engine)
        assert dead_letters(engine.lake, TRADES).num_rows == 0
    finally:
        stop(child)


def test_a_range_past_the_stored_offset_is_refused_because_it_would_leave_a_hole(here):
    here.send(FEED, [trade(n) for n in range(20)])
    engine = here.engine()
    planned = engine.plan(TRADES).ranges[0]
    ahead = OffsetRange(planned.topic, planned.kafka_partition, 5, 20)
    engine.register(TRADES, "test")
    with pytest.raises(Exception, match="would be skipped"):
        list(engine.execute(TRADES, [ahead], "test"))


def test_another_incarnation_of_the_cluster_halts_until_it_is_adopted(here, tmp_path):
    here.send(FEED, [trade(n) for n in range(30)])
    engine = here.engine()
    ingest_until_caught_up(engine)
    with embedded_broker(TOPICS) as bootstrap:
        anew = here.elsewhere(kafka_bootstrap=bootstrap)
        anew.send(FEED, [trade(n) for n in range(20, 50)])
        engine = anew.engine()
        with pytest.raises(IncarnationChanged, match="k2 topics adopt"):
            engine.plan(TRADES)
        for table in INGESTED:
            engine.adopt(table, engine.topics(table), run_id="test", who="a test", why="the broker is another one")
        ingest_until_caught_up(engine)
    proof = verify(engine.lake, TRADES)
    assert (proof.rows, proof.duplicates, proof.findings) == (50, 10, ())
    adopted = [r for r in receipt_rows(engine.lake, TRADES).to_pylist() if r["kind"] == "adopt"]
    assert [(r["who"], r["why"]) for r in adopted] == [("a test", "the broker is another one")]


def test_wiping_the_group_offsets_changes_nothing_because_nobody_reads_them(here):
    here.send(FEED, [trade(n) for n in range(10)])
    engine = here.engine()
    ingest_until_caught_up(engine)
    engine.kafka.commit_hint("k2-lake", {(FEED.topic, 0): 0})
    assert engine.plan(TRADES).ranges == ()


def test_a_lost_state_file_halts_loudly_instead_of_forgetting_what_was_seen(here):
    here.send(FEED, [trade(1)])
    engine = here.engine()
    ingest_until_caught_up(engine)
    shutil.rmtree(f"{engine.lake.load(TRADES).location()}/k2/state")
    here.send(FEED, [trade(2)])
    with pytest.raises(Exception, match=r"state file of market\.crypto\.trades\.binance"):
        ingest_until_caught_up(engine)


def forget_all_but_the_head(engine):
    """Expire every snapshot but the newest."""
    ledger, at = engine.ingestion.ledger, engine.lake.head(TRADES)
    ledger.expire(at, [mark.snapshot_id for mark in ledger.snapshots(at)[:-1]])


def test_a_writer_whose_snapshot_was_forgotten_while_it_stood_still_is_fenced_out_and_not_called_damaged(here):
    here.send(FEED, [trade(n) for n in range(100)])
    engine, rival = here.engine(), here.engine()
    ingest_until_caught_up(engine)
    here.send(FEED, [trade(n) for n in range(50, 150)])
    plan = engine.plan(TRADES)

    def overtaken(step):
        if step == "decoded":
            ingest_until_caught_up(rival)
            forget_all_but_the_head(rival)

    slow = replace(engine.ingestion, desk=replace(engine.ingestion.desk, reach=overtaken))
    with pytest.raises(FencedOut, match="plan again"):
        list(slow.execute(TRADES, plan.ranges, "slow"))
    assert len(rows(engine)) == 150
    assert verify(engine.lake, TRADES).findings == ()


def test_a_manifest_that_is_lost_halts_as_damaged(here):
    here.send(FEED, [trade(1)])
    engine = here.engine()
    ingest_until_caught_up(engine)
    for file in Path(f"{engine.lake.load(TRADES).location()}/metadata").glob("snap-*.avro"):
        file.unlink()
    here.send(FEED, [trade(1)])
    with pytest.raises(Damaged, match=r"market_data\.trades: a file of what is stored"):
        ingest_until_caught_up(engine)


def test_a_producer_that_sends_nothing_leaves_nothing_to_plan(here):
    with LogWriter(here.settings.bootstrap()):
        pass
    assert here.engine().plan(TRADES).ranges == ()


def test_a_topic_that_was_cut_goes_on_by_an_adopt_and_nothing_is_doubled(here):
    """What stands beyond the end of the log is moved there by hand: no broker here loses what it acknowledged."""
    here.send(FEED, [trade(n) for n in range(1, 6)])
    engine = here.engine()
    ingest_until_caught_up(engine)
    (partition, position), *_ = engine.lake.head(TRADES).offsets.of_topic(FEED.topic).items()
    beyond = RangeCount(FEED.topic, position.epoch, partition, position.next, position.next + 3)
    receipt = Receipt(TRADES.name, "accept_loss", "test", "test", CONTRACT_VERSION, (beyond,), who="a test", why="cut")
    commit(engine.lake, engine.lake.head(TRADES), Change(receipt))
    with pytest.raises(LogTruncated, match="k2 topics adopt"):
        engine.plan(TRADES)
    assert engine.adopt(TRADES, [FEED.topic], run_id="test", who="a test", why="the log was cut") is not None
    here.send(FEED, [trade(6)])
    ingest_until_caught_up(engine)
    stored = [key for key, _, _ in rows(engine)]
    assert len(stored) == len(set(stored)) == 6
    assert engine.adopt(TRADES, [FEED.topic], run_id="test", who="a test", why="again") is None
    assert not verify(engine.lake, TRADES).findings
