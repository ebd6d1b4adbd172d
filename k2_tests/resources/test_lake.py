from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from datetime import date

import pyarrow.parquet as pq
import pytest

from k2_core.contracts import DEAD_LETTERS, RECEIPTS, TABLES, TRADES
from k2_core.errors import FencedOut
from k2_core.keys import topic_key
from k2_core.offsets import Position
from k2_core.protocol.ports import Change
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_core.sequences import Intervals, ScopeState
from k2_resources import failpoints
from k2_resources.lake.catalog import Lake
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.scans import receipt_rows
from k2_resources.lake.staging import read_state
from k2_resources.lake.verify import verify
from k2_tests.lakes import collect, commit
from k2_tests.ticks import FEEDS, table_of, trade

FEED = FEEDS["binance-trades"]
TOPIC = FEED.topic


@pytest.fixture
def lake(tmp_path):
    home = tmp_path / "a home, with spaces & 100 % oddities"
    home.mkdir()
    lake = Lake(f"sqlite:///{home / 'catalog.db'}", str(home / "warehouse"))
    lake.ensure(TABLES)
    return lake


def receipt(*ranges, kind="batch"):
    dates = (DateRows(date(2024, 8, 8), FEED.name, sum(r.stored for r in ranges)),)
    return Receipt(TRADES.name, kind, "run", "0", "1", ranges, dates=dates)


def register(lake):
    ranges = (RangeCount(TOPIC, 0, 0, 0, 0),)
    return commit(
        lake, lake.head(TRADES), Change(receipt(*ranges, kind="register"), properties={topic_key(TOPIC): "{}"})
    )


def rows(*numbers):
    some = table_of(FEED, [trade(n) for n in numbers])
    columns = {
        **{c: some[c] for c in some.column_names},
        "revision": [0] * len(some),
        "exchange_date": [date(2024, 8, 8)] * len(some),
    }
    import pyarrow as pa

    schema = TRADES.arrow_schema()
    return pa.table([columns[name] for name in schema.names], schema=schema)


def batch(start, *numbers, **changes):
    n = len(numbers)
    counted = RangeCount(TOPIC, 0, 0, start, start + n, read=n, written=n)
    return Change(receipt(counted), rows=rows(*numbers), **changes)


def test_rows_offsets_state_and_receipt_arrive_in_one_commit(lake):
    register(lake)
    state = {"BTCUSDT": ScopeState(Intervals.of(__import__("numpy").array([1, 2])), high=None)}
    committed = commit(lake, lake.head(TRADES), batch(0, 1, 2, states={TOPIC: state}))
    after = lake.head(TRADES)
    assert after.offsets.positions == {(TOPIC, 0): Position(0, 2)}
    assert read_state(after, TOPIC)["BTCUSDT"].seen == state["BTCUSDT"].seen
    assert after.loaded.current_snapshot().snapshot_id == committed.snapshot_id
    assert after.loaded.scan().count() == 2
    assert [f.kind for f in committed.receipt.files] == ["data", "state"]


def test_data_files_have_small_row_groups_and_the_field_ids_of_the_table(lake):
    register(lake)
    commit(lake, lake.head(TRADES), batch(0, *range(1, 40_001)))
    (file,) = lake.files(TRADES, lake.state(TRADES).snapshot_id)
    metadata = pq.read_metadata(file.path)
    assert metadata.num_row_groups == 3
    assert pq.read_schema(file.path).field("symbol").metadata[b"PARQUET:field_id"] == b"4"
    assert (file.exchange_date, file.symbol_min, file.revised) == (date(2024, 8, 8), "BTCUSDT", False)


def test_a_writer_that_planned_from_the_same_offsets_is_fenced_out(lake):
    register(lake)
    mine, rival = lake.head(TRADES), lake.head(TRADES)
    commit(lake, mine, batch(0, 1, 2))
    with pytest.raises(FencedOut, match="another writer committed first"):
        commit(lake, rival, batch(0, 1, 2))
    assert lake.head(TRADES).loaded.scan().count() == 2
    assert verify(lake, TRADES).findings == ()


def test_a_writer_planned_before_a_pause_or_an_adoption_is_fenced_out(lake):
    register(lake)
    planned = lake.head(TRADES)
    operator = Change(replace(receipt(kind="adopt"), dates=()), properties={topic_key(TOPIC): '{"epoch":1}'})
    commit(lake, lake.head(TRADES), operator)
    with pytest.raises(FencedOut):
        commit(lake, planned, batch(0, 1))


def test_a_commit_survives_a_concurrent_commit_that_changes_nothing_it_relies_on(lake):
    register(lake)
    planned = lake.head(TRADES)
    with lake.load(TRADES).transaction() as maintenance:
        maintenance.set_properties({"note": "maintenance was here"})
    commit(lake, planned, batch(0, 1))
    assert lake.head(TRADES).loaded.scan().count() == 1


def test_a_batch_of_duplicates_only_is_an_empty_snapshot_with_a_receipt(lake):
    register(lake)
    counted = RangeCount(TOPIC, 0, 0, 0, 3, read=3, duplicates=3)
    commit(lake, lake.head(TRADES), Change(receipt(counted)))
    proof = verify(lake, TRADES)
    assert (proof.rows, proof.duplicates, proof.receipts, proof.findings) == (0, 3, 2, ())


def test_an_unknown_outcome_is_looked_up_and_never_committed_twice(lake, monkeypatch):
    register(lake)
    honest = lake.catalog.commit_table

    def lost_answer(*args, **kwargs):
        honest(*args, **kwargs)
        raise OSError("connection reset while waiting for the answer")

    at = lake.head(TRADES)
    monkeypatch.setattr(lake.catalog, "commit_table", lost_answer)
    committed = commit(lake, at, batch(0, 1, 2))
    monkeypatch.undo()
    assert lake.state(TRADES).snapshot_id == committed.snapshot_id
    assert lake.head(TRADES).loaded.scan().count() == 2


def test_receipts_are_collected_once_with_the_offset_vector_folded(lake):
    register(lake)
    for start in range(0, 6, 2):
        commit(lake, lake.head(TRADES), batch(start, start, start + 1))
        collect(lake, TRADES)
        collect(lake, TRADES)
    collected = receipt_rows(lake, TRADES).to_pylist()
    assert [[o["next"] for o in row["offsets"]] for row in collected] == [[0], [2], [4], [6]]
    assert collected[-1]["version"] == lake.state(TRADES).offsets.version
    assert [row["commit_time"] for row in collected] == sorted(row["commit_time"] for row in collected)


def test_an_older_snapshot_is_described_by_its_own_offsets(lake):
    first = register(lake)
    commit(lake, lake.head(TRADES), batch(0, 1, 2))
    assert lake.state(TRADES, first.snapshot_id).offsets.positions == {(TOPIC, 0): Position(0, 0)}
    collect(lake, TRADES)
    assert lake.state(TRADES, first.snapshot_id).offsets.positions == {(TOPIC, 0): Position(0, 0)}


def test_the_offsets_of_a_snapshot_go_on_from_copies_of_those_that_were_forgotten(lake):
    other = receipt(RangeCount("other.topic", 0, 0, 7, 7), kind="register")
    first = commit(lake, lake.head(TRADES), Change(other, properties={topic_key("other.topic"): "{}"}))
    old = [first, register(lake)]
    commit(lake, lake.head(TRADES), batch(0, 1, 2))
    collect(lake, TRADES)
    IcebergLedger(lake).expire(lake.head(TRADES), [c.snapshot_id for c in old])
    waiting = commit(lake, lake.head(TRADES), batch(2, 3, 4))
    commit(lake, lake.head(TRADES), batch(4, 5, 6))
    expected = {(TOPIC, 0): Position(0, 4), ("other.topic", 0): Position(0, 7)}
    assert lake.state(TRADES, waiting.snapshot_id).offsets.positions == expected


def crash_at(name, uri, warehouse):
    failpoints.arm(f"{name}:1:kill")
    lake = Lake(uri, warehouse)
    commit(lake, lake.head(TRADES), batch(0, 1, 2, 3))
    failpoints.reach("committed")
    collect(lake, TRADES)
    os._exit(0)


@pytest.mark.parametrize("name", failpoints.NAMES[4:16])
def test_a_writer_killed_at_any_step_leaves_a_table_that_goes_on_exactly(lake, name):
    """What this process cannot reach itself (nothing dead, no gap) ends well; everything else is killed there."""
    register(lake)
    uri, warehouse = str(lake.catalog.engine.url), lake.warehouse
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([__name__])
    child = forks.Process(target=crash_at, args=(name, uri, warehouse))
    child.start()
    child.join()
    assert child.exitcode == (0 if "dead_letters" in name or "gaps" in name else -9)
    if lake.head(TRADES).offsets.positions[TOPIC, 0] == Position(0, 0):
        commit(lake, lake.head(TRADES), batch(0, 1, 2, 3))
    collect(lake, TRADES)
    assert lake.head(TRADES).loaded.scan().count() == 3
    assert len(receipt_rows(lake, TRADES)) == 2
    assert verify(lake, TRADES).findings == ()


def test_audit_tables_are_tables_like_any_other(lake):
    for table in (RECEIPTS, DEAD_LETTERS):
        assert [f.name for f in lake.load(table).schema().fields] == list(table.arrow_schema().names)
