"""Rewriting files: every row stays, as it was; a rival, a batch, a damaged file and a reader are all met."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2_cli.verify import proof_of
from k2_core.compaction import Limits
from k2_core.contracts import RECEIPTS, TRADES
from k2_core.errors import Damaged, FencedOut
from k2_core.keys import COMPACTED_KEY, SWEPT_KEY
from k2_core.protocol.ports import Change, Head, Staged
from k2_core.receipts import FileEntry, MovedRows
from k2_resources import clock
from k2_resources.duck import Duck
from k2_resources.lake import compaction
from k2_resources.lake.catalog import Lake
from k2_resources.lake.compaction import Compactor, Rewritten, compact, stored_files
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.manifests import MERGED_MANIFESTS, manifests_of
from k2_resources.lake.orphans import sweep
from k2_resources.lake.regrouping import regroup_manifests
from k2_resources.lake.retention import forget
from k2_resources.lake.verify import verify
from k2_tests.lakes import DAY, Batch, collect, new_lake, put, register, rewrite

LIMITS = Limits(rows_max=1_000, fragments_max=4)
LATER, TODAY = date(2024, 8, 20), DAY
SORT = [(name, "ascending") for name in ("message_id", "revision")]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = new_lake(tmp_path / "a home, with spaces & 100 % oddities")
    register(lake)
    return lake


@pytest.fixture
def duck() -> Iterator[Duck]:
    duck = Duck(threads=1, memory="200MB", seconds_max=60)
    yield duck
    duck.close()


def compacted(lake: Lake, open_date: date = LATER, limits: Limits = LIMITS) -> list[Rewritten]:
    return list(compact(lake, TRADES, limits, open_date, run_id="upkeep", code_version="0"))


def fill(lake: Lake, batches: int = 5) -> None:
    """Batches that overlap in event time; every other one corrects a trade of the one before."""
    for n in range(batches):
        corrections = [n - 1] if n % 2 else []
        put(lake, Batch([n, n + 100, n + 200], revisions=corrections, letters=[b"junk"]))


def rows_of(lake: Lake) -> pa.Table:
    return lake.load(TRADES).scan().to_arrow().sort_by(SORT)


def problems(lake: Lake) -> str:
    return " / ".join(f"{f.where}: {f.problem}" for f in verify(lake, TRADES).findings)


def test_a_closed_date_becomes_sorted_files_with_every_row_as_it_was_and_its_revisions_apart(
    lake: Lake, duck: Duck
) -> None:
    fill(lake)
    before, offsets = rows_of(lake), lake.state(TRADES).offsets
    (done,) = compacted(lake)
    assert (done.dates, done.files_in, done.files_out, done.rows) == ((DAY,), 5, 2, 17)
    assert rows_of(lake).equals(before)
    assert lake.state(TRADES).offsets == offsets
    files = sorted(stored_files(lake.head(TRADES)), key=lambda f: f.rows)
    assert [(f.rows, f.is_sorted, f.is_mixed) for f in files] == [(2, True, False), (15, True, False)]
    ids = pq.read_table(files[1].path, partitioning=None)["source_sequence"].to_pylist()
    assert ids == sorted(ids)
    assert compacted(lake) == [], "once"
    for collected in (False, True):
        proof = proof_of(lake, duck, TRADES, deep=True)
        assert (proof.findings, proof.rows, proof.unreferenced) == ((), 17, ()), collected
        collect(lake, TRADES)
    told = lake.load(RECEIPTS).scan("kind = 'maintenance'").to_arrow().to_pylist()
    assert [(len(r["replaced"]), len(r["files"]), r["moved"][0]["rows_out"]) for r in told] == [(5, 2, 17)]


def test_a_date_with_more_rows_than_a_file_may_hold_is_cut_along_its_order(lake: Lake) -> None:
    fill(lake)
    before = rows_of(lake)
    (done,) = compacted(lake, limits=Limits(rows_max=4, fragments_max=4))
    assert rows_of(lake).equals(before)
    files = [pq.read_table(f.path, partitioning=None) for f in stored_files(lake.head(TRADES))]
    firsts = [f for f in files if f["revision"][0].as_py() == 0]
    assert len(firsts) == done.files_out - 1 >= 4
    spans = sorted((min(t := f["timestamp"].to_pylist()), max(t)) for f in firsts)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
    assert verify(lake, TRADES).findings == ()


def test_an_open_date_is_folded_only_once_its_small_files_are_many(lake: Lake, duck: Duck) -> None:
    fill(lake, 4)
    assert compacted(lake, TODAY) == []
    put(lake, Batch([50]))
    (done,) = compacted(lake, TODAY)
    assert (done.files_in, done.files_out) == (5, 2)
    assert not any(f.is_sorted for f in stored_files(lake.head(TRADES)))
    (closed,) = compacted(lake)
    assert (closed.files_in, closed.files_out) == (2, 2)
    put(lake, Batch([51]))
    assert compacted(lake) == [], "what comes late waits for others"
    assert proof_of(lake, duck, TRADES, deep=True).findings == ()


def test_a_batch_that_lands_while_files_are_rewritten_is_in_the_table_beside_them(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    staged = Compactor.stage
    late = iter([Batch([60]), Batch([61])])

    def stage(self: Compactor, at: Head, change: Change) -> Staged:
        done = staged(self, at, change)
        put(lake, next(late))
        return done

    monkeypatch.setattr(Compactor, "stage", stage)
    (done,) = compacted(lake)
    assert (done.files_in, done.rows) == (5, 17)
    assert len(rows_of(lake)) == 18
    assert verify(lake, TRADES).findings == ()


def test_of_two_rewrites_of_the_same_files_one_lands_and_the_other_plans_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    before = rows_of(lake)
    staged, rivals = Compactor.stage, []

    def stage(self: Compactor, at: Head, change: Change) -> Staged:
        done = staged(self, at, change)
        if not rivals:
            rivals.append(True)
            rivals.extend(compacted(Lake(str(lake.catalog.engine.url), lake.warehouse)))
        return done

    monkeypatch.setattr(Compactor, "stage", stage)
    assert compacted(lake) == [], "the rival has done it all"
    assert len(rivals) == 2
    assert rows_of(lake).equals(before)
    assert lake.head(TRADES).property(COMPACTED_KEY) == "1"
    proof = verify(lake, TRADES)
    assert proof.findings == ()
    assert len(proof.unreferenced) == 3, "two files and a receipt of the loser wait for a sweep"


def test_who_always_loses_gives_up(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lake)

    def fenced(*_: object) -> Staged:
        raise FencedOut("a rival was first")

    monkeypatch.setattr(Compactor, "stage", fenced)
    with pytest.raises(FencedOut, match="5 plans"):
        compacted(lake)


def test_an_altered_file_is_never_given_a_new_receipt_and_other_dates_are_done_all_the_same(lake: Lake) -> None:
    fill(lake)
    other = date(2024, 8, 9)
    for n in (70, 71):
        put(lake, Batch([n], places={"exchange_date": [other]}, dates=[]))
    altered = stored_files(lake.head(TRADES))[-1].path
    with open(altered, "r+b") as file:
        file.seek(20)
        file.write(b"\xff\xfe")
    done = []
    small = Limits(rows_max=17, fragments_max=4)
    with pytest.raises(Damaged, match=r"SHA-256 .*It is not rewritten"):
        done.extend(compact(lake, TRADES, small, LATER, run_id="upkeep", code_version="0"))
    files = stored_files(lake.head(TRADES))
    assert altered in {f.path for f in files}
    assert [f.exchange_date for f in files if f.is_sorted] == [other]


def test_a_file_no_receipt_names_is_not_rewritten(lake: Lake) -> None:
    fill(lake, 2)
    lake.load(TRADES).append(rows_of(lake).slice(0, 1))
    with pytest.raises(Damaged, match="no receipt names it"):
        compacted(lake)


def test_the_time_of_a_run_is_up_between_two_commits(lake: Lake) -> None:
    fill(lake)
    late = iter([False, True])
    small = Limits(rows_max=5, fragments_max=4)
    put(lake, Batch([70], places={"exchange_date": [date(2024, 8, 9)]}))
    put(lake, Batch([71], places={"exchange_date": [date(2024, 8, 9)]}))
    done = compact(lake, TRADES, small, LATER, run_id="u", code_version="0", is_time_up=lambda: next(late))
    assert len(list(done)) == 1


def test_what_a_proof_says_of_rewrites_that_do_not_add_up(lake: Lake) -> None:
    fill(lake)
    compacted(lake)
    collect(lake, TRADES)
    loaded = lake.load(TRADES)
    old = stored_files(Head(TRADES, "", {}, loaded))[0]

    def spoil(rows: Sequence[dict[str, object]]) -> None:
        (row,) = (r for r in rows if r["kind"] == "maintenance")
        row["moved"] = [vars(MovedRows("t", 0, 0, rows_in=17, rows_out=16))]
        row["replaced"] = [vars(FileEntry("data", "/nowhere.parquet", 17, "0"))]

    assert problems(lake) == ""
    rewrite(lake, RECEIPTS, spoil)  # the original is retained, so the copy is what is wrong
    assert "differs from its receipt file" in problems(lake)
    Path(old.path).unlink()
    assert f"{old.path}: No such file" in problems(lake)


def test_a_rewrite_that_moves_fewer_rows_than_it_took_is_never_committed(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    monkeypatch.setattr(compaction, "_ordered", lambda _, rows: rows.slice(1))
    with pytest.raises(Damaged, match="nothing was committed"):
        compacted(lake)
    assert verify(lake, TRADES).findings == ()


def test_files_a_rewrite_took_out_go_after_a_while_and_no_writer_is_fenced_out_for_them(lake: Lake) -> None:
    fill(lake)
    put(lake, Batch([90], letters=[b"junk"], gaps=[(900, 900)]))
    before = [file.path for file in stored_files(lake.head(TRADES))]
    compacted(lake)
    collect(lake, TRADES)
    ledger, late = IcebergLedger(lake), clock.now() + timedelta(days=1)
    assert forget(ledger, lake.head(TRADES), late) == 7
    said = {"grace": timedelta(hours=1), "run_id": "u", "code_version": "0"}
    assert sweep(lake, TRADES, now=late, **said).waiting == len(before)
    assert all(Path(path).exists() for path in before)
    assert sweep(lake, TRADES, now=late + timedelta(hours=1), **said).deleted == len(before)
    assert not any(Path(path).exists() for path in before)
    assert lake.head(TRADES).property(SWEPT_KEY) is None
    assert verify(lake, TRADES).findings == ()


def test_scattered_manifests_are_written_anew_and_hold_the_same_files(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake, 12)
    before, files = rows_of(lake), stored_files(lake.head(TRADES))
    assert regroup_manifests(lake, TRADES, run_id="u", code_version="0") == 0
    monkeypatch.setattr("k2_resources.lake.manifests.MERGED_MANIFESTS", MERGED_MANIFESTS // 5)
    assert regroup_manifests(lake, TRADES, run_id="u", code_version="0") == 12
    loaded = lake.load(TRADES)
    assert len(manifests_of(loaded.current_snapshot(), loaded.io)) == 1
    assert rows_of(lake).equals(before)
    assert sorted(stored_files(lake.head(TRADES)), key=str) == sorted(files, key=str)
    put(lake, Batch([80]))
    assert verify(lake, TRADES).findings == ()


def test_a_receipt_of_an_older_k2_moved_nothing() -> None:
    from k2_core.receipts import Receipt

    receipt = Receipt("t", "batch", "run", "0", "1", ())
    said = receipt.to_json().replace(b'"moved":[],', b"").replace(b'"replaced":[],', b"")
    assert b"moved" not in said
    assert Receipt.from_json(said) == receipt == replace(receipt, replaced=())
