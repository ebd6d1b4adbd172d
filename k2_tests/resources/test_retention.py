"""What is forgotten, and what stays: histories of bounded length, files that go only once nothing refers to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fastavro
import pytest
from pyiceberg.manifest import ManifestEntry
from pyiceberg.serializers import FromInputFile

from k2_cli.verify import proof_of
from k2_core.contracts import AUDIT, CONTRACT_VERSION, GAPS, RECEIPTS, TRADES, Table
from k2_core.errors import FencedOut, NotFound
from k2_core.keys import SWEPT_KEY, collected_key
from k2_core.offsets import Position
from k2_core.protocol import collect as collecting
from k2_core.protocol import retain
from k2_core.protocol.commit import commit, expectations
from k2_core.protocol.ports import Change, Head, Outpaced
from k2_core.receipts import RangeCount, Receipt
from k2_resources import failpoints
from k2_resources.duck import Duck
from k2_resources.failpoints import Tripped
from k2_resources.lake import manifests, orphans
from k2_resources.lake.catalog import Lake
from k2_resources.lake.copies import vector_key
from k2_resources.lake.evidence import gather
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.orphans import Swept
from k2_resources.lake.retention import forget, referenced, unreferenced
from k2_resources.lake.scans import dead_letters, gap_events, receipt_rows
from k2_resources.lake.verify import verify
from k2_tests.lakes import TOPIC, Batch, collect, letter_rows, new_lake, put, register, set_property

KEPT_TABLES = (TRADES, *AUDIT)
NOW, GRACE = datetime(2024, 8, 8, 12, tzinfo=UTC), timedelta(hours=1)
COMMITS = 34
"""Five expiries where `few_snapshots` allows ten; `make soak` and the bench of commits meet those of every day."""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = new_lake(tmp_path / "a home, with spaces & 100 % oddities")
    register(lake)
    return lake


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


@pytest.fixture
def few_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories of ten snapshots, so that an expiry is never far."""
    monkeypatch.setattr(retain, "SNAPSHOTS_MAX", 10)
    monkeypatch.setattr(retain, "SNAPSHOTS_KEPT", 4)


@pytest.fixture
def duck() -> Iterator[Duck]:
    duck = Duck(threads=1, memory="200MB", seconds_max=60)
    yield duck
    duck.close()


def ingest(lake: Lake, commits: int, *, letters: bool = True) -> list[int]:
    """Commit, collect and expire as an ingest run does; returns the snapshots made."""
    made = []
    for _ in range(commits):
        n = lake.head(TRADES).offsets.positions[TOPIC, 0].next
        sent = Batch([n], letters=[b"junk"], gaps=[(n + 1, n + 1)]) if letters else Batch([n])
        made.append(put(lake, sent).snapshot_id)
        collect(lake, TRADES)
        expire(lake)
    return made


def expire(lake: Lake) -> int:
    ledger = IcebergLedger(lake)
    return retain.expire(ledger, ledger.head(TRADES))


def sweep(lake: Lake, table: Table = TRADES) -> int:
    return retain.sweep(IcebergLedger(lake), table, run_id="sweep", code_version="0", contract_version=CONTRACT_VERSION)


def upkeep_sweep(lake: Lake, table: Table, now: datetime) -> Swept:
    return orphans.sweep(lake, table, now=now, grace=GRACE, run_id="upkeep", code_version="0")


def lengths(lake: Lake) -> list[int]:
    return [len(lake.snapshots(table)) for table in KEPT_TABLES]


def strays(lake: Lake) -> list[str]:
    """Files nothing refers to, but for data files that were folded: those wait for a sweep."""
    found = [(table, path) for table in KEPT_TABLES for path in unreferenced(lake.head(table))]
    return [path for table, path in found if table not in AUDIT or "/data/" not in path]


def dangling(lake: Lake) -> list[str]:
    return [path for table in KEPT_TABLES for path in sorted(referenced(lake.head(table))) if not Path(path).exists()]


@pytest.mark.usefixtures("few_snapshots")
def test_after_many_expiries_everything_is_proven_and_little_of_the_history_is_kept(lake: Lake, duck: Duck) -> None:
    made = ingest(lake, COMMITS)
    assert max(lengths(lake)) <= retain.SNAPSHOTS_MAX
    proof = proof_of(lake, duck, TRADES, deep=True)
    assert (proof.findings, proof.receipts, proof.rows, proof.dead) == ((), COMMITS + 1, COMMITS, COMMITS)
    rows = receipt_rows(lake, TRADES).to_pylist()
    assert [row["sequence_number"] for row in rows] == list(range(1, COMMITS + 2))
    assert [row["offsets"][0]["next"] for row in rows] == list(range(0, 2 * COMMITS + 2, 2))
    assert rows[-1]["version"] == lake.state(TRADES).offsets.version
    assert (len(dead_letters(lake)), len(gap_events(lake))) == (COMMITS, COMMITS)
    kept = {s.snapshot_id for s in lake.snapshots(TRADES)}
    assert made[0] not in kept
    for number, snapshot_id in enumerate(made):
        at = lake.state(TRADES, snapshot_id)
        assert at.offsets.positions == {(TOPIC, 0): Position(0, 2 * number + 2)}
        assert sum(file.rows for file in lake.files(TRADES, snapshot_id)) == number + 1
    for look in (lake.state, lake.files):
        with pytest.raises(NotFound, match="has no snapshot 1"):
            look(TRADES, 1)
    evidence = gather(lake, TRADES)
    gone = [c for c in evidence.history if evidence.may_be_gone(c)]
    assert [c.snapshot_id for c in gone[1:]] == [s for s in made if s not in kept]
    assert not any(Path(c.path).exists() for c in gone)
    assert (strays(lake), dangling(lake)) == ([], [])


def test_no_history_may_grow_past_a_hundred_snapshots() -> None:
    assert 0 < retain.SNAPSHOTS_KEPT < retain.SNAPSHOTS_MAX <= 100


@pytest.mark.usefixtures("few_snapshots")
def test_every_snapshot_that_is_kept_can_be_read_whole(lake: Lake) -> None:
    made = [None, *ingest(lake, 45)]
    for table in KEPT_TABLES:
        loaded = lake.load(table)
        assert len(loaded.metadata.snapshots) <= retain.SNAPSHOTS_MAX
        counts = [loaded.scan(snapshot_id=s.snapshot_id).to_arrow().num_rows for s in loaded.metadata.snapshots]
        first = counts[0]
        assert counts == list(range(first, first + len(counts))), table.name
    assert lake.load(TRADES).scan(snapshot_id=made[-1]).to_arrow().num_rows == 45
    assert (strays(lake), dangling(lake)) == ([], [])


@pytest.mark.usefixtures("few_snapshots")
def test_small_files_of_an_audit_table_are_folded_and_no_row_of_them_changes(lake: Lake) -> None:
    ingest(lake, 70)
    for audit in (RECEIPTS, GAPS):
        loaded = lake.load(audit)
        files = [task.file.record_count for task in loaded.scan().plan_files()]
        assert len(files) < 45, audit.name
        assert max(files) > 30, audit.name
    assert [row["sequence_number"] for row in receipt_rows(lake, TRADES).to_pylist()] == list(range(1, 72))
    assert len(gap_events(lake)) == 70
    assert verify(lake, TRADES).findings == ()


@pytest.mark.usefixtures("few_snapshots")
def test_what_is_not_collected_is_not_forgotten(lake: Lake) -> None:
    for n in range(20):
        put(lake, Batch([n], letters=[b"junk"]))
        assert expire(lake) == 0
    assert len(lake.snapshots(TRADES)) == 21
    collect(lake, TRADES)
    assert expire(lake) == 0, "audit.gaps waits for a sidecar and holds none of them yet"
    put(lake, Batch([20], gaps=[(30, 30)]))
    collect(lake, TRADES)
    assert expire(lake) == 22 - retain.SNAPSHOTS_KEPT
    assert verify(lake, TRADES).findings == ()


@pytest.mark.usefixtures("few_snapshots")
def test_a_file_of_a_rewrite_outlives_the_snapshots_before_it_until_no_reader_can_hold_it(lake: Lake) -> None:
    ingest(lake, 3)
    loaded = lake.load(RECEIPTS)
    rows = loaded.scan().to_arrow()
    before = {task.file.file_path for task in loaded.scan().plan_files()}
    loaded.overwrite(rows)
    assert all(Path(path).exists() for path in before)
    ingest(lake, 12)
    oldest = lake.load(RECEIPTS).metadata.snapshots[0].sequence_number
    assert oldest is not None and oldest > 5
    waiting = set(unreferenced(lake.head(RECEIPTS)))
    assert before <= waiting, "a reader may have planned from a snapshot that was forgotten just now"
    assert upkeep_sweep(lake, RECEIPTS, NOW) == Swept(RECEIPTS.name, len(waiting), 0, 0)
    early = upkeep_sweep(lake, RECEIPTS, NOW + GRACE - timedelta(seconds=1))
    assert (early.deleted, early.waiting) == (0, len(waiting))
    done = upkeep_sweep(lake, RECEIPTS, NOW + GRACE)
    assert (done.deleted, done.waiting) == (len(waiting), 0)
    assert done.bytes_freed > 0
    assert not any(Path(path).exists() for path in before)
    assert len(receipt_rows(lake, TRADES)) == 16
    assert (strays(lake), dangling(lake)) == ([], [])


def test_a_sweep_waits_anew_for_a_file_that_was_referred_to_meanwhile_or_whose_note_is_gone(lake: Lake) -> None:
    ledger, at = IcebergLedger(lake), lake.head(TRADES)
    slow = ledger.stage(at, _letters_only(0))
    assert upkeep_sweep(lake, TRADES, NOW).waiting == 2
    ledger.swap(at, slow, expectations(at, slow))
    stray = Path(at.loaded.location(), "k2", "receipts", "stray.json")
    stray.write_bytes(b"of a killed writer")
    assert upkeep_sweep(lake, TRADES, NOW + 2 * GRACE).waiting == 1
    Path(at.loaded.location(), "upkeep", "unreferenced.json").unlink()
    assert upkeep_sweep(lake, TRADES, NOW + 4 * GRACE).deleted == 0
    assert lake.head(TRADES).property(SWEPT_KEY) is None, "nobody is fenced out for nothing"
    assert upkeep_sweep(lake, TRADES, NOW + 5 * GRACE).deleted == 1
    assert lake.head(TRADES).property(SWEPT_KEY) == "1"
    assert (strays(lake), dangling(lake)) == ([], [])
    assert verify(lake, TRADES).findings == ()


def test_old_snapshots_are_forgotten_but_the_head_those_with_a_tag_and_those_not_collected(lake: Lake) -> None:
    for n in range(4):
        put(lake, Batch([n], letters=[b"junk"], gaps=[(n + 50, n + 50)]))
    collect(lake, TRADES)
    snapshots = [s.snapshot_id for s in reversed(lake.snapshots(TRADES))]
    lake.load(TRADES).manage_snapshots().create_tag(snapshots[2], "audit-2024").commit()
    put(lake, Batch([9]))
    ledger = IcebergLedger(lake)
    assert forget(ledger, lake.head(TRADES), NOW - timedelta(days=36_500)) == 0
    assert forget(ledger, lake.head(TRADES), NOW + timedelta(days=36_500)) == 4
    kept = [s.snapshot_id for s in reversed(lake.snapshots(TRADES))]
    assert kept[:1] == [snapshots[2]]
    assert len(kept) == 2, "the one with the tag, and the head, which is not collected either"
    assert lake.load(TRADES).scan(snapshot_id=snapshots[2]).to_arrow().num_rows == 2
    assert (strays(lake), dangling(lake)) == ([], [])
    assert verify(lake, TRADES).findings == ()


@pytest.mark.usefixtures("few_snapshots")
def test_a_snapshot_with_a_tag_stays_and_so_does_every_file_of_it(lake: Lake) -> None:
    tagged = ingest(lake, 3)[-1]
    lake.load(TRADES).manage_snapshots().create_tag(tagged, "audit-2024").commit()
    ingest(lake, 20)
    assert lake.load(TRADES).scan(snapshot_id=tagged).to_arrow().num_rows == 3
    assert dangling(lake) == []
    assert verify(lake, TRADES).findings == ()


@pytest.mark.usefixtures("few_snapshots")
def test_a_crash_between_forgetting_and_deleting_leaves_files_for_a_sweep(lake: Lake) -> None:
    ingest(lake, 8)
    failpoints.arm("expired:1:raise")
    with pytest.raises(Tripped):
        ingest(lake, 1)
    failpoints.arm("")
    assert len(lake.snapshots(TRADES)) == retain.SNAPSHOTS_KEPT
    left = unreferenced(lake.head(TRADES))
    assert any("snap-" in path for path in left)
    assert any("/receipts/" in path for path in left)
    assert sweep(lake) == len(left)
    assert (strays(lake), dangling(lake)) == ([], [])
    assert verify(lake, TRADES).findings == ()


@pytest.mark.usefixtures("few_snapshots")
def test_a_rival_that_forgets_the_same_snapshots_first_is_no_loss(lake: Lake) -> None:
    for n in range(9):
        put(lake, Batch([n], letters=[b"junk"], gaps=[(n, n)]))
        collect(lake, TRADES)
    mine, rival = IcebergLedger(lake), IcebergLedger(Lake(str(lake.catalog.engine.url), lake.warehouse))
    at, old = mine.head(TRADES), [m.snapshot_id for m in mine.snapshots(mine.head(TRADES))[:3]]
    rival.expire(rival.head(TRADES), old[:2])
    with pytest.raises(Outpaced):
        mine.expire(at, old)
    assert len(lake.snapshots(TRADES)) == 8
    assert (strays(lake), dangling(lake)) == ([], [])


@pytest.mark.usefixtures("few_snapshots")
def test_who_planned_from_a_history_that_was_forgotten_since_is_outpaced(lake: Lake) -> None:
    ingest(lake, 5)
    put(lake, Batch([99]))
    mine = IcebergLedger(Lake(str(lake.catalog.engine.url), lake.warehouse))
    at, audit = mine.head(TRADES), mine.head(RECEIPTS)
    copied = mine.copies(audit, at, mine.receipts(at, 6))
    ingest(lake, 30)
    manifests.forget()
    with pytest.raises(Outpaced):
        mine.expire(at, [at.loaded.metadata.snapshots[0].snapshot_id])
    with pytest.raises(Outpaced):
        mine.unreferenced(at)
    with pytest.raises(Outpaced):
        mine.append(audit, copied, {"note": "late"}, {})
    assert dangling(lake) == []


def test_a_zombie_that_wrote_before_a_sweep_is_fenced_out_and_one_that_plans_after_it_lands(lake: Lake) -> None:
    ledger = IcebergLedger(lake)
    at = ledger.head(TRADES)
    zombie = ledger.stage(at, _letters_only(at.offsets.positions[TOPIC, 0].next))
    assert [Path(path).parent.name for path in unreferenced(at)] == ["dead_letters", "receipts"]
    assert sweep(lake) == 2
    with pytest.raises(FencedOut, match=SWEPT_KEY):
        ledger.swap(at, zombie, expectations(at, zombie))
    assert dangling(lake) == []
    assert sweep(lake) == 1, "its manifest list"
    after = ledger.head(TRADES)
    assert commit(ledger, after, _letters_only(after.offsets.positions[TOPIC, 0].next)).head.offsets.positions == {
        (TOPIC, 0): Position(0, 1)
    }
    assert (strays(lake), dangling(lake)) == ([], [])
    assert verify(lake, TRADES).findings == ()


def test_a_collector_that_loaded_before_a_sweep_of_its_table_is_fenced_out(lake: Lake) -> None:
    put(lake, Batch([1]))
    ledger = IcebergLedger(lake)
    source, audit = ledger.head(TRADES), ledger.head(RECEIPTS)
    copied = ledger.copies(audit, source, ledger.receipts(source, 0))
    stray = Path(audit.loaded.location(), "data", "stray.parquet")
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"of a killed collector")
    assert sweep(lake, RECEIPTS) == 1
    assert not stray.exists()
    key = collected_key(TRADES.name)
    with pytest.raises(FencedOut, match=SWEPT_KEY):
        ledger.append(audit, copied, {key: f"{source.table_uuid}:2"}, {key: None, SWEPT_KEY: None})
    assert collect(lake, TRADES) == 2
    assert dangling(lake) == []
    assert verify(lake, TRADES).findings == ()


def test_a_sweep_deletes_nothing_that_landed_while_it_looked(lake: Lake) -> None:
    ledger = IcebergLedger(lake)
    at = ledger.head(TRADES)
    slow = ledger.stage(at, _letters_only(0))

    class Landing(IcebergLedger):
        """A ledger in which the slow writer lands just after the files were listed."""

        def unreferenced(self, at: Head) -> Sequence[str]:
            found = super().unreferenced(at)
            if SWEPT_KEY not in at.properties and found:
                self.swap(at, slow, expectations(at, slow))
            return found

    swept = retain.sweep(Landing(lake), TRADES, run_id="sweep", code_version="0", contract_version="1")
    assert swept == 0
    assert lake.head(TRADES).offsets.positions == {(TOPIC, 0): Position(0, 1)}
    assert dangling(lake) == []
    assert verify(lake, TRADES).findings == ()


def test_c_goes_on_from_the_row_where_the_stated_one_is_gone_or_of_another_receipt(lake: Lake) -> None:
    uuid = lake.load(TRADES).metadata.table_uuid
    for n, stated in enumerate([None, f'["{uuid}",1,null,[["{TOPIC}",0,"9:99"]]]', '["another",2,null,[]]']):
        put(lake, Batch([n]))
        collect(lake, TRADES)
        if stated:
            set_property(lake, RECEIPTS, vector_key(TRADES.name), stated)
    put(lake, Batch([9]))
    collect(lake, TRADES)
    assert [row["offsets"][0]["next"] for row in receipt_rows(lake, TRADES).to_pylist()] == [0, 1, 2, 3, 4]
    assert verify(lake, TRADES).findings == ()


def test_what_a_lake_remembers_of_metadata_is_what_its_files_say(lake: Lake) -> None:
    ingest(lake, 3)
    for table in KEPT_TABLES:
        loaded = lake.load(table)
        stored = FromInputFile.table_metadata(loaded.io.new_input(loaded.metadata_location))
        assert loaded.metadata.model_dump_json(exclude_none=True) == stored.model_dump_json(exclude_none=True)
    fresh = Lake(str(lake.catalog.engine.url), lake.warehouse)
    assert all(
        fresh.load(table).metadata.model_dump() == lake.load(table).metadata.model_dump() for table in KEPT_TABLES
    )
    put(fresh, Batch([77]))
    assert lake.head(TRADES).offsets == fresh.head(TRADES).offsets


@pytest.mark.usefixtures("few_snapshots")
def test_what_a_lake_remembers_of_manifests_is_what_they_say_to_any_reader(lake: Lake) -> None:
    ingest(lake, 45)
    for table in KEPT_TABLES:
        loaded = lake.load(table)
        for snapshot in loaded.metadata.snapshots:
            stored = snapshot.manifests(loaded.io)
            assert [m._data for m in manifests.manifests_of(snapshot, loaded.io)] == [m._data for m in stored]
            for manifest in stored:
                remembered = manifests.entries_of(manifest, loaded.io)
                assert told(remembered) == told(manifest.fetch_manifest_entry(loaded.io, discard_deleted=False))
                with open(manifest.manifest_path, "rb") as file:
                    reader = fastavro.reader(file)
                    assert [e["data_file"]["file_path"] for e in reader] == [e.data_file.file_path for e in remembered]
                    assert reader.writer_schema["fields"][0]["field-id"] == 0


def told(entries: Sequence[ManifestEntry]) -> list[object]:
    return [
        (e.status, e.snapshot_id, e.sequence_number, e.file_sequence_number, e.data_file.spec_id, e.data_file._data)
        for e in entries
    ]


def test_many_receipts_are_collected_at_once_when_few_are_not_worth_a_commit(lake: Lake) -> None:
    ledger = IcebergLedger(lake)
    counts = []
    for n in range(8):
        put(lake, Batch([n]))
        counts.append(collecting.collect(ledger, TRADES, failpoints.reach, ledger.head(TRADES), fewest=4))
    assert counts == [0, 0, 4, 0, 0, 0, 4, 0]
    assert collecting.collect(ledger, TRADES, failpoints.reach) == 1
    assert len(lake.snapshots(RECEIPTS)) == 3
    assert verify(lake, TRADES).findings == ()


def _letters_only(start: int) -> Change:
    counted = RangeCount(TOPIC, 0, 0, start, start + 1, 1, 0, 0, 0, 1)
    receipt = Receipt(TRADES.name, "batch", "run", "0", "1", (counted,), (1,))
    return Change(receipt, dead_letters=letter_rows(start, [b"junk"]))
