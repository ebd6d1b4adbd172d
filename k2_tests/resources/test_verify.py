from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.table import Table as IcebergTable

from k2_core.contracts import DEAD_LETTERS, TRADES, Table
from k2_core.keys import collected_key, state_key
from k2_core.protocol import retain
from k2_core.protocol.ports import Change
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_resources.lake.catalog import Lake
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.verify import verify
from k2_tests.lakes import (
    DAY,
    FEED,
    TOPIC,
    Batch,
    collect,
    expire,
    full_lake,
    new_lake,
    put,
    register,
    rewrite,
    set_property,
)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return new_lake(tmp_path / "a home, with spaces & 100 % oddities")


@pytest.fixture
def full(tmp_path: Path) -> Lake:
    return full_lake(tmp_path / "full")


def found(lake: Lake) -> list[tuple[str, str]]:
    return [(f.where, f.problem) for f in verify(lake, TRADES).findings]


def problems(lake: Lake) -> str:
    return " / ".join(f"{where}: {problem}" for where, problem in found(lake))


def files_of(lake: Lake, folder: str) -> list[Path]:
    return sorted(Path(lake.load(TRADES).location(), folder).rglob("*.*"), key=lambda path: path.stat().st_mtime_ns)


def edit(path: Path | str) -> None:
    with open(path, "r+b") as edited:
        edited.seek(20)
        edited.write(b"\xff\xfe")


def test_a_healthy_lake_has_no_findings_before_its_receipts_are_collected_and_after(lake: Lake) -> None:
    register(lake)
    put(lake, Batch([1, 2], letters=[b"junk"], gaps=[(3, 4)]))
    before = verify(lake, TRADES)
    collect(lake, TRADES)
    put(lake, Batch([5], letters=[b"junk"]))
    proof = verify(lake, TRADES)
    assert (before.rows, before.dead, before.findings) == (2, 1, ())
    assert (proof.rows, proof.read, proof.written, proof.dead) == (3, 5, 3, 2)
    assert (proof.unreferenced, proof.findings) == ((), ())


def test_an_edited_file_a_lost_file_and_a_stranger_snapshot_are_named(lake: Lake) -> None:
    register(lake)
    put(lake, Batch([1, 2]))
    collect(lake, TRADES)
    (file,) = files_of(lake, "data")
    rows = pq.read_table(file, partitioning=None)
    edit(file)
    assert [(where, "SHA-256" in problem) for where, problem in found(lake)] == [(str(file), True)]
    file.unlink()
    assert [where for where, _ in found(lake)] == [str(file)]
    lake.load(TRADES).append(rows.slice(0, 1))
    said = problems(lake)
    assert "carries no K2 receipt" in said
    assert "no receipt names it" in said
    assert "holds 3 rows, but its receipts stored 2" in said


def test_a_hole_between_ranges_and_a_receipt_that_does_not_add_up_are_named(lake: Lake) -> None:
    register(lake)
    put(lake, Batch([1], counts={"start": 5, "end": 8, "read": 3, "duplicates": 1}))
    said = problems(lake)
    assert "leaves a hole after 0:0" in said
    assert "read 3 records of 3 offsets, but 1 written + 1 duplicates + 0 revisions + 0 dead" in said


def test_a_receipt_file_that_was_edited_is_a_finding_and_the_rest_is_still_proven(full: Lake) -> None:
    edit(files_of(full, "k2/receipts")[-1])
    edit(data := files_of(full, "data")[0])
    (receipt, _), (file, _) = found(full)
    assert receipt.startswith(f"{TRADES.name} snapshot")
    assert file == str(data)


def test_a_file_that_is_in_the_table_twice_is_named(full: Lake) -> None:
    (file, *_) = files_of(full, "data")
    loaded = full.load(TRADES)
    with loaded.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        append.append_data_file(parquet_file_to_data_file(loaded.io, loaded.metadata, str(file)))
    assert (str(file), f"is in {TRADES.name} 2 times") in found(full)


def test_an_edited_state_file_is_named(full: Lake) -> None:
    state = files_of(full, "k2/state")[-1]
    rows = pq.read_table(state, partitioning=None)
    pq.write_table(rows.slice(0, 0), state)
    assert [(where, "SHA-256" in problem) for where, problem in found(full)] == [(str(state), True)]


def test_a_lost_state_file_is_named_and_one_of_an_older_commit_is_not_missed(full: Lake) -> None:
    older, newest = files_of(full, "k2/state")
    older.unlink()
    assert found(full) == []
    newest.unlink()
    assert [where for where, _ in found(full)] == [str(newest)]


def test_a_state_of_an_older_commit_a_state_nobody_wrote_and_no_state_at_all_are_named(full: Lake) -> None:
    older, newest = files_of(full, "k2/state")
    set_property(full, TRADES, state_key(TOPIC), str(older))
    assert [(where, "wrote another" in problem) for where, problem in found(full)] == [(str(older), True)]
    stranger = shutil.copy(newest, newest.with_name("stranger.parquet"))
    set_property(full, TRADES, state_key(TOPIC), str(stranger))
    assert [where for where, _ in found(full)] == [str(stranger)]
    with full.load(TRADES).transaction() as transaction:
        transaction.remove_properties(state_key(TOPIC))
    assert "wrote 1 state files; the head names fewer" in problems(full)


def test_sidecars_may_go_once_their_snapshot_expired_and_not_before(full: Lake) -> None:
    sidecars = [files_of(full, folder)[0] for folder in ("k2/dead_letters", "k2/gaps")]
    for sidecar in sidecars:
        sidecar.unlink()
    assert sorted(where for where, _ in found(full)) == sorted(map(str, sidecars))
    expire(full)
    assert found(full) == []


def test_sidecars_that_were_never_collected_must_not_go(lake: Lake) -> None:
    register(lake)
    put(lake, Batch([1], letters=[b"junk"]))
    (sidecar,) = files_of(lake, "k2/dead_letters")
    put(lake, Batch([2]))
    collect(lake, TRADES)
    set_property(lake, DEAD_LETTERS, collected_key(TRADES.name), f"{lake.load(TRADES).metadata.table_uuid}:1")
    rewrite(lake, DEAD_LETTERS, list.clear)
    expire(lake)
    assert found(lake) == []
    sidecar.unlink()
    assert [where for where, _ in found(lake)] == [str(sidecar)]


def test_a_second_registration_that_jumps_and_one_that_skips_offsets_are_named(lake: Lake) -> None:
    register(lake, at=3)
    put(lake, Batch([1, 2]))
    register(lake, at=5)
    assert found(lake) == []
    register(lake, at=9)
    assert "is registered a second time, at 0:9; it was at 0:5" in problems(lake)
    register(lake, at=9, end=12)
    assert "registers the offsets [9, 12) as read" in problems(lake)


def test_receipts_that_lie_against_each_other_are_named_each(lake: Lake) -> None:
    register(lake)
    put(lake, Batch([1, 2], counts={"written": 1, "duplicates": 1}, dates=[DateRows(DAY, FEED.name, 1)]))
    put(lake, Batch([3], counts={"end": 4, "read": 2, "written": 2}, dates=[DateRows(DAY, FEED.name, 2)]))
    assert [problem for _, problem in found(lake)] == [
        "its data files hold 2 rows, its ranges stored 1",
        "its data files hold 1 rows, its ranges stored 2",
    ]


def test_dates_that_do_not_add_up_to_what_was_stored_are_named(lake: Lake) -> None:
    register(lake)
    put(lake, Batch([1, 2], dates=[DateRows(DAY, FEED.name, 3)]))
    assert [problem for _, problem in found(lake)] == ["its dates hold 3 rows, its ranges stored 2"]


def test_dead_records_without_a_sidecar_are_named(lake: Lake) -> None:
    register(lake)
    put(lake, Batch([1], counts={"end": 2, "read": 2, "dead": 1}))
    assert [problem for _, problem in found(lake)] == ["its sidecars hold 0 rows, its ranges counted dead 1"]


def test_files_that_nothing_names_are_listed_and_no_finding(full: Lake) -> None:
    location = Path(full.load(TRADES).location())
    for folder in ("data/2024-08-08", "k2/dead_letters", "k2/gaps", "k2/receipts", "k2/state"):
        (location / folder / "left behind").write_bytes(b"by a killed writer")
    proof = verify(full, TRADES)
    assert ({Path(path).name for path in proof.unreferenced}, len(proof.unreferenced)) == ({"left behind"}, 5)
    assert proof.findings == ()


class BusyLake(Lake):
    """A lake in which another writer commits and collects after each load of a table."""

    def load(self, table: Table) -> IcebergTable:
        loaded = super().load(table)
        writer = Lake(str(self.catalog.engine.url), self.warehouse)
        put(writer, Batch([1], letters=[b"junk"], gaps=[(3, 3)]))
        collect(writer, TRADES)
        return loaded


def test_what_is_committed_and_collected_between_the_loads_of_a_proof_is_not_judged(lake: Lake) -> None:
    register(lake)
    put(lake, Batch([1], letters=[b"junk"], gaps=[(3, 3)]))
    busy = BusyLake(str(lake.catalog.engine.url), lake.warehouse)
    proofs = [verify(busy, TRADES) for _ in range(2)]
    assert [proof.findings for proof in proofs] == [(), ()]
    assert proofs[1].rows > proofs[0].rows > 1


def test_a_lake_that_is_being_written_is_never_accused(lake: Lake) -> None:
    register(lake)
    stopping, failed = threading.Event(), []

    def ingest() -> None:
        writer, n = Lake(str(lake.catalog.engine.url), lake.warehouse), 1
        try:
            while not stopping.is_set():
                put(writer, Batch([n, n + 1], letters=[b"junk"], gaps=[(n + 2, n + 2)]))
                collect(writer, TRADES)
                n += 3
        except Exception as error:
            failed.append(error)

    writing = threading.Thread(target=ingest)
    writing.start()
    proofs = [verify(lake, TRADES)]
    try:
        while writing.is_alive() and len({proof.snapshot_id for proof in proofs}) < 10:
            proofs.append(verify(lake, TRADES))
    finally:
        stopping.set()
        writing.join()
    assert failed == []
    assert [f for proof in proofs for f in proof.findings] == []
    assert found(lake) == []


def missing_batch(lake: Lake) -> str:
    """The receipts of a batch and all it brought are gone, as if somebody had rolled the table back and gone on."""
    at = lake.head(TRADES).offsets.positions[TOPIC, 0].next
    put(lake, Batch([20], counts={"start": at + 4, "end": at + 5}))
    return "leaves a hole after"


def doubled_batch(lake: Lake) -> str:
    """Two writers planned from the same head, and no fence kept the second out."""
    ledger, at = IcebergLedger(lake), lake.head(TRADES)
    twins = [ledger.stage(at, doubled(at.offsets.positions[TOPIC, 0].next)) for _ in range(2)]
    for twin in twins:
        ledger.swap(lake.head(TRADES), twin, {})
    return "overlaps"


def doubled(start: int) -> Change:
    counted = RangeCount(TOPIC, 0, 0, start, start + 2, 2, 0, 2)
    return Change(Receipt(TRADES.name, "batch", "run", "0", "1", (counted,)))


def edited_file(lake: Lake) -> str:
    edit(files_of(lake, "data")[0])
    return "SHA-256 is"


def lying_receipt(lake: Lake) -> str:
    put(lake, Batch([20, 21], counts={"written": 1, "duplicates": 1}))
    return "its data files hold 2 rows, its ranges stored 1"


def snapshot_without_receipt(lake: Lake) -> str:
    lake.load(TRADES).append(pq.read_table(files_of(lake, "data")[0], partitioning=None).slice(0, 0))
    return "carries no K2 receipt"


def dangling_data_file(lake: Lake) -> str:
    files_of(lake, "data")[0].unlink()
    return "No such file or directory; its receipt names it as data"


def dangling_manifest(lake: Lake) -> str:
    newest = lake.load(TRADES).current_snapshot()
    assert newest is not None
    manifest = newest.manifests(lake.load(TRADES).io)[0]
    Path(manifest.manifest_path).unlink()
    return f"is not there; snapshot {newest.snapshot_id} of {TRADES.name} refers to it"


def dangling_manifest_list(lake: Lake) -> str:
    newest = lake.load(TRADES).current_snapshot()
    assert newest is not None
    Path(newest.manifest_list).unlink()
    return f"is not there; snapshot {newest.snapshot_id} of {TRADES.name} refers to it"


def lost_receipt_file(lake: Lake) -> str:
    files_of(lake, "k2/receipts")[-1].unlink()
    return "its receipt cannot be read"


DAMAGES = (
    missing_batch,
    doubled_batch,
    edited_file,
    lying_receipt,
    snapshot_without_receipt,
    dangling_data_file,
    dangling_manifest,
    dangling_manifest_list,
    lost_receipt_file,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_kind_of_damage_is_found_without_reading_a_row(full: Lake, damage: Callable[[Lake], str]) -> None:
    assert found(full) == []
    problem = damage(full)
    assert any(problem in told for _, told in found(full)), found(full)


@pytest.mark.parametrize("damage", [missing_batch, doubled_batch, edited_file, lying_receipt, dangling_data_file])
def test_damage_that_came_before_most_of_the_history_was_forgotten_is_found_as_well(
    full: Lake, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Lake], str]
) -> None:
    monkeypatch.setattr(retain, "SNAPSHOTS_MAX", 3)
    monkeypatch.setattr(retain, "SNAPSHOTS_KEPT", 1)
    problem = damage(full)
    put(full, Batch([40], letters=[b"junk"], gaps=[(50, 50)]))
    collect(full, TRADES)
    assert retain.expire(IcebergLedger(full), full.head(TRADES)) > 2
    assert any(problem in told for _, told in found(full)), found(full)


def test_a_lake_that_forgets_while_it_is_proven_is_never_accused(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retain, "SNAPSHOTS_MAX", 16)
    monkeypatch.setattr(retain, "SNAPSHOTS_KEPT", 6)
    register(lake)
    stopping, failed, forgotten = threading.Event(), [], []

    def ingest() -> None:
        writer = Lake(str(lake.catalog.engine.url), lake.warehouse)
        ledger, n = IcebergLedger(writer), 1
        try:
            while not stopping.is_set():
                put(writer, Batch([n], letters=[b"junk"], gaps=[(n + 1, n + 1)]))
                collect(writer, TRADES)
                forgotten.append(retain.expire(ledger, ledger.head(TRADES)))
                n += 2
        except Exception as error:
            failed.append(error)

    writing = threading.Thread(target=ingest)
    writing.start()
    proofs = [verify(lake, TRADES)]
    try:
        while writing.is_alive() and sum(map(bool, forgotten)) < 3:
            proofs.append(verify(lake, TRADES))
    finally:
        stopping.set()
        writing.join()
    assert failed == []
    assert [f for proof in proofs for f in proof.findings] == []
    assert found(lake) == []
