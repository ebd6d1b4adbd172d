"""Files survive a power cut: whatever the catalog's row says, everything it leads to is on disk, whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import IcebergTables
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import StaticTable
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from k2_core.contracts import TABLES, TRADES
from k2_core.protocol import retain
from k2_core.protocol.ports import Change, Head
from k2_core.receipts import Receipt
from k2_resources.lake import durable
from k2_resources.lake.catalog import Lake
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.retention import referenced
from k2_tests.lakes import TOPIC, Batch, collect, new_lake, put, register

CUTS_MIN = 1000
LOST = Change(Receipt(TRADES.name, "batch", "a writer that dies", "0", "1", ()))
"""A change whose files are written and that is never committed."""


class PowerCuts:
    """A disk that forgets, at any moment, every byte and every directory entry that was not synced.

    It looks over the shoulder of fsync: what a file holds when it is synced is durable, and so are the entries a
    directory has when that is synced. Deleting is durable at once: a disk may well keep that and lose the rest. The
    catalog's own row is trusted to SQLite. After each sync, and just before and after each commit of the catalog, the
    power is cut: what the row of each table leads to must be there.
    """

    def __init__(self, home: Path, lake: Lake) -> None:
        self.home, self.lake = home, lake
        self.contents: dict[str, str] = {}
        self.entries: dict[str, set[str]] = {}
        self.cuts = 0
        self.lost: list[tuple[str, str]] = []
        self._needed: dict[str, frozenset[str]] = {}
        self._rows: dict[str, str] = {}
        self._sync = os.fsync

    def fsync(self, descriptor: int) -> None:
        """What os.fsync does, seen."""
        self._sync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.isdir(path):
            self.entries[path] = set(os.listdir(path))
        else:
            self.contents[path] = digest(path)
        self.cut("sync")

    def cut(self, when: str) -> None:
        """Cut the power here, and look what the catalog leads to."""
        self.cuts += 1
        needed = frozenset().union(*(self._needs(location) for location in self._rows.values()))
        self.lost += [(when, path) for path in sorted(needed) if not self.survives(path)]

    def survives(self, path: str) -> bool:
        """Whether a file is there after a cut: reachable by durable entries, with all its bytes."""
        if not os.path.exists(path) or path not in self.contents:
            return False
        return self._is_reachable(path) and self.contents[path] == digest_once(path)

    def watch(self) -> None:
        """Look at the rows of the catalog whenever they change."""
        event.listen(self.lake.catalog.engine, "commit", lambda _: self.cut("before a commit of the catalog"))
        event.listen(Session, "after_commit", self._committed)

    def unwatch(self) -> None:
        """Sessions of other tests are none of its business."""
        event.remove(Session, "after_commit", self._committed)

    def _committed(self, _: Session) -> None:
        with self.lake.catalog.engine.connect() as connection:
            rows = connection.execute(select(IcebergTables.table_name, IcebergTables.metadata_location)).all()
        self._rows = {name: location for name, location in rows if location}
        self.cut("after a commit of the catalog")

    def _is_reachable(self, path: str) -> bool:
        below = Path(path)
        while below != self.home:
            if below.name not in self.entries.get(str(below.parent), ()):
                return False
            below = below.parent
        return True

    def _needs(self, location: str) -> frozenset[str]:
        """Everything one row leads to: metadata, manifests, data, receipts, sidecars and states."""
        if location not in self._needed:
            loaded = StaticTable.from_metadata(location)
            head = Head(TRADES, str(loaded.metadata.table_uuid), dict(loaded.properties), loaded)
            self._needed[location] = frozenset({location, *referenced(head)})
        return self._needed[location]


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


_digests: dict[str, str] = {}


def digest_once(path: str) -> str:
    """Of a file that nobody writes any more: no name is used twice."""
    return _digests.setdefault(path, digest(path))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "k2"


@pytest.fixture
def cuts(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PowerCuts]:
    """Histories of six snapshots, so that files are forgotten all the time, on a disk that is cut all the time."""
    monkeypatch.setattr(retain, "SNAPSHOTS_MAX", 6)
    monkeypatch.setattr(retain, "SNAPSHOTS_KEPT", 3)
    monkeypatch.setattr(durable, "_made", set())
    home.mkdir()
    lake = Lake(f"sqlite:///{home / 'catalog.db'}", str(home / "warehouse"))
    found = PowerCuts(home, lake)
    monkeypatch.setattr(os, "fsync", found.fsync)
    found.watch()
    yield found
    found.unwatch()


def work(lake: Lake, commits: int) -> None:
    """What ingest runs do: register, commit with every kind of file, collect, expire, sweep."""
    lake.ensure(TABLES)
    register(lake)
    ledger = IcebergLedger(lake)
    for number in range(commits):
        n = lake.head(TRADES).offsets.positions[TOPIC, 0].next
        put(lake, Batch([n], letters=[b"junk"], gaps=[(n + 1, n + 1)]))
        collect(lake, TRADES)
        retain.expire(ledger, ledger.head(TRADES))
        if number % 8 == 7:
            ledger.stage(ledger.head(TRADES), LOST)
            retain.sweep(ledger, TRADES, run_id="sweep", code_version="0", contract_version="1")


def test_a_thousand_power_cuts_leave_nothing_dangling(cuts: PowerCuts) -> None:
    work(cuts.lake, 20)
    assert cuts.lost == []
    assert cuts.cuts >= CUTS_MIN
    assert len(cuts._rows) == len(TABLES)


def unsynced_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "sync_directory", lambda directory: None)


def unsynced_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "make_directory", lambda directory: directory.mkdir(parents=True, exist_ok=True))


def unsynced_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable.DurableFileIO, "new_output", PyArrowFileIO.new_output)


def unsynced_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def close(stream: durable.DurableStream) -> None:
        stream._file.close()
        durable.sync_directory(Path(stream._path).parent)

    monkeypatch.setattr(durable.DurableStream, "close", close)


def deleted_before_the_catalog_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    expire = IcebergLedger.expire

    def hasty(self, at, snapshot_ids):  # type: ignore[no-untyped-def]
        for snapshot in at.loaded.metadata.snapshots:
            if snapshot.snapshot_id in snapshot_ids:
                Path(snapshot.manifest_list).rename(f"{snapshot.manifest_list}.gone")
        with suppress(OSError):
            expire(self, at, snapshot_ids)

    monkeypatch.setattr(IcebergLedger, "expire", hasty)


@pytest.mark.parametrize(
    "fault",
    [
        unsynced_directories,
        unsynced_parents,
        unsynced_manifests,
        unsynced_bytes,
        deleted_before_the_catalog_is_told,
    ],
)
def test_power_cuts_find_what_is_not_made_durable(
    cuts: PowerCuts, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    fault(monkeypatch)
    with suppress(OSError):
        work(cuts.lake, 5)
    cuts.cut("at the end")
    assert cuts.lost


def test_a_file_is_as_it_was_written_and_says_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c" / "file"
    assert durable.write_bytes(str(path), b"content") == hashlib.sha256(b"content").hexdigest()
    assert path.read_bytes() == b"content"
    durable.delete([str(path), str(path)])
    assert not path.exists()


def test_a_directory_that_went_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    durable.write_bytes(str(path), b"1")
    path.unlink()
    path.parent.rmdir()
    durable.write_bytes(str(path), b"2")
    assert path.read_bytes() == b"2"
    assert new_lake(tmp_path / "k2").state(TRADES) is not None
