"""The ledger port over a simulated catalog and disk: as the lake does it, with every gap between two of its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from k2_core.contracts import DEAD_LETTERS, GAPS, RECEIPTS, Table
from k2_core.errors import FencedOut, Unreachable
from k2_core.keys import offset_key, state_key
from k2_core.offsets import Offsets
from k2_core.protocol.collect import collected_until
from k2_core.protocol.ports import Change, Expected, Head, Landed, Outpaced, SnapshotMark, Staged
from k2_core.receipts import Committed, FileEntry, Receipt, fold_offsets
from k2_tests.simulation.catalog import Catalog, Snapshot, Version, state_files
from k2_tests.simulation.disk import Disk
from k2_tests.simulation.scheduler import Scheduler
from k2_tests.simulation.weather import Weather

TRIES_MAX = 3
"""Times the client applies a commit anew that lost the race for the head; pyiceberg does it four times."""
FOLD_FILES = 3
"""Data files of an audit table at which an append takes their rows along, so that there are few."""
METADATA_KEPT = 2
"""Metadata files of versions before the head; the commit that makes one too many deletes it."""
LATE_STEPS = (1, 60)
"""How many steps after the caller gave up a late request arrives."""
SOME_TIME = datetime(2024, 8, 8, tzinfo=UTC)

Build = Callable[[Version], Version]


@dataclass(frozen=True)
class Files:
    """Data files a staged change brings and replaces."""

    adds: tuple[str, ...] = ()
    removes: frozenset[str] = frozenset()


class SimulatedLedger:
    """Tables as compare-and-swap over their properties plus receipts. Holds no state of its own."""

    def __init__(self, catalog: Catalog, disk: Disk, scheduler: Scheduler, weather: Weather) -> None:
        self.catalog = catalog
        self.disk = disk
        self.scheduler = scheduler
        self.weather = weather
        self.branches: dict[str, int] = {}

    def properties(self, version: Version) -> Mapping[str, str]:
        """What a version says of itself."""
        return version.properties

    def head(self, table: Table) -> Head:
        """Load the head once; others may act before the caller sees it. Raises Unreachable."""
        self.scheduler.reach("loading")
        if self.weather.strikes("head_fails"):
            raise Unreachable(f"{table.name}: no answer from the catalog")
        loaded = self._head_of(table, self.catalog.heads[table.name])
        self.scheduler.reach("loaded")
        return loaded

    def stage(self, at: Head, change: Change) -> Staged:
        """Write every file of a change durably."""
        name = at.table.name
        data = self._entries(f"{name}/data", "data", change.rows)
        letters = self._entries(f"{name}/k2/letters", "dead_letters", change.dead_letters)
        gaps = self._entries(f"{name}/k2/gaps", "gaps", change.gaps)
        states = {
            topic: FileEntry("state", self.disk.write(f"{name}/k2/state", state), len(state), "")
            for topic, state in change.states.items()
        }
        receipt = replace(change.receipt, files=(*data, *letters, *gaps, *states.values()))
        path = self.disk.write(f"{name}/k2/receipts", receipt)
        properties = {
            **{offset_key(t, p): str(position) for (t, p), position in receipt.ends().items()},
            **{state_key(topic): entry.path for topic, entry in states.items()},
            **change.properties,
        }
        return Staged(receipt, path, properties, {}, Files(tuple(f.path for f in data)))

    def swap(self, at: Head, staged: Staged, expected: Expected) -> Landed:
        """Commit once, fenced."""
        self.scheduler.reach("committing")
        after = self._transact(at, staged.properties, expected, staged.handle, staged.receipt_path)
        landed = self._find(self._head_of(at.table, after), staged)
        assert landed is not None, "a commit that succeeded is in the history"
        return landed

    def landed(self, at: Head, staged: Staged) -> Landed | None:
        """Look a staged change up by its receipt."""
        found = self._find(at, staged)
        return self._count("looked_up_landed" if found else "looked_up_not_there", found)

    def _find(self, at: Head, staged: Staged) -> Landed | None:
        for snapshot in reversed(at.loaded.snapshots):
            if snapshot.receipt_path == staged.receipt_path:
                return Landed(self._committed(at.loaded, snapshot, staged.receipt), at)
        return None

    def receipts(self, at: Head, after: int) -> Sequence[Committed]:
        """Receipts of the retained snapshots past one sequence number. Raises Damaged."""
        self.scheduler.reach("reading_receipts")
        late = [s for s in at.loaded.snapshots if s.sequence_number > after and s.receipt_path]
        return [self._committed(at.loaded, s, self.disk.read(s.receipt_path)) for s in late if s.receipt_path]

    def copies(self, audit: Head, source: Head, fresh: Sequence[Committed]) -> tuple[Any, ...]:
        """What an audit table has to hold of these receipts. Raises Damaged."""
        self.scheduler.reach("copying")
        if audit.table is RECEIPTS:
            return self._receipt_rows(audit, source, fresh)
        if audit.table is DEAD_LETTERS:
            return tuple(x for c in fresh for f in c.receipt.files_of("dead_letters") for x in self.disk.read(f.path))
        assert audit.table is GAPS, audit.table.name
        known = {row[0] for row in self._rows(self.catalog.heads[RECEIPTS.name])}
        return tuple(
            (c.sequence_number, c.sequence_number in known, event)
            for c in fresh
            for f in c.receipt.files_of("gaps")
            for event in self.disk.read(f.path)
        )

    def append(self, audit: Head, copies: Any, properties: Mapping[str, str], expected: Expected) -> None:
        """Append copies and set properties, both or neither. Raises FencedOut, Outpaced."""
        small = audit.loaded.files if len(copies) and len(audit.loaded.files) >= FOLD_FILES else frozenset()
        rows = (*(row for path in sorted(small) for row in self.disk.read(path)), *copies)
        adds = (self.disk.write(f"{audit.table.name}/data", rows),) if rows else ()
        self.scheduler.reach("appending")
        self._transact(audit, properties, expected, Files(adds, small), None)

    def snapshots(self, at: Head) -> Sequence[SnapshotMark]:
        """The retained history, oldest first."""
        return [SnapshotMark(s.snapshot_id, s.sequence_number) for s in at.loaded.snapshots]

    def expire(self, at: Head, snapshot_ids: Sequence[int]) -> None:
        """Forget snapshots, then delete what only they referred to. Raises Outpaced."""
        going = [s for s in at.loaded.snapshots if s.snapshot_id in set(snapshot_ids)]
        ids = {s.snapshot_id for s in going}
        doomed = self._files_of(going) - self._files_of([s for s in at.loaded.snapshots if s.snapshot_id not in ids])
        self.scheduler.reach("expiring")
        self._transact(at, {}, {}, None, None, forget=ids)
        self.scheduler.reach("expired")
        after = self.catalog.heads[at.table.name]
        self.scheduler.reach("loaded")
        if not ids & {s.snapshot_id for s in after.snapshots}:
            self.disk.delete(sorted(doomed - self.states(after)))

    def unreferenced(self, at: Head) -> Sequence[str]:
        """Files under the table that nothing refers to."""
        self.scheduler.reach("listing")
        found = {path for path in self.disk.files if path.startswith(f"{at.table.name}/")}
        return sorted(found - self.referenced(at.loaded) - {at.loaded.metadata, *at.loaded.previous})

    def delete(self, at: Head, files: Sequence[str]) -> None:
        """Delete files; one that is gone already is no error."""
        self.branches["swept"] = self.branches.get("swept", 0) + len(files)
        self.disk.delete(files)

    def referenced(self, version: Version) -> set[str]:
        """Every file a retained snapshot or a property names."""
        return self.states(version) | self._files_of(version.snapshots)

    def states(self, version: Version) -> set[str]:
        """Every file a property names."""
        return state_files(self.properties(version))

    def _head_of(self, table: Table, version: Version) -> Head:
        return Head(table, version.table_uuid, self.properties(version), version)

    def _files_of(self, snapshots: Sequence[Snapshot]) -> set[str]:
        files: set[str] = set()
        for s in snapshots:
            files |= s.files
            files.add(s.manifest)
            if s.receipt_path:
                receipt = self.disk.files.get(s.receipt_path)
                files.add(s.receipt_path)
                if receipt is not None:
                    files |= {f.path for f in receipt.content.files if f.kind != "data"}
        return files

    def _committed(self, version: Version, snapshot: Snapshot, receipt: Receipt) -> Committed:
        return Committed(
            receipt,
            version.table_uuid,
            snapshot.snapshot_id,
            snapshot.sequence_number,
            SOME_TIME,
            snapshot.receipt_path or "",
            "",
        )

    def _rows(self, version: Version) -> list[Any]:
        return [row for path in version.files for row in self.disk.read(path)]

    def _receipt_rows(self, audit: Head, source: Head, fresh: Sequence[Committed]) -> tuple[Any, ...]:
        """(sequence number, receipt path, C after it); C folded from that of the last receipt that was copied."""
        until = collected_until(audit, source)
        offsets = Offsets()
        if until:
            offsets = next(c for number, _, c in self._rows(self.catalog.heads[RECEIPTS.name]) if number == until)
        rows = []
        for committed in fresh:
            offsets = fold_offsets(offsets, committed.receipt)
            rows.append((committed.sequence_number, committed.path, offsets))
        return tuple(rows)

    def _entries(self, folder: str, kind: Any, rows: Any) -> list[FileEntry]:
        return [FileEntry(kind, self.disk.write(folder, tuple(rows)), len(rows), "")] if rows else []

    def _transact(
        self,
        at: Head,
        properties: Mapping[str, str | None],
        expected: Expected,
        files: Files | None,
        receipt_path: str | None,
        *,
        forget: set[int] | None = None,
    ) -> Version:
        """Swap the head, applying the change anew when another came first. files None: no snapshot of its own."""
        strikes = self.weather.strikes
        if strikes("commit_refused"):
            raise self._count("outpaced", Outpaced(f"{at.table.name}: refused"))
        if strikes("commit_not_sent"):
            raise self._count("outcome_unknown", OSError("connection reset"))
        for _ in range(TRIES_MAX):
            base = self.catalog.heads[at.table.name]
            self.validate(at, base, expected)
            after = self._built(base, properties, files, receipt_path, forget or set())
            self.scheduler.reach("swapping")
            if strikes("answer_late"):
                self._send_late(base, after)
                raise self._count("outcome_unknown", OSError("timed out"))
            if self.catalog.swap(base, after):
                if strikes("answer_lost"):
                    raise self._count("outcome_unknown", OSError("connection reset while waiting for the answer"))
                if not strikes("tried_again"):
                    self.disk.delete(base.previous[METADATA_KEPT - 1 :])
                    return after
        raise self._count("outpaced", Outpaced(f"{at.table.name}: {TRIES_MAX} tries"))

    def validate(self, at: Head, base: Version, expected: Expected) -> None:
        """The fence, against what is being replaced. Raises FencedOut."""
        properties = self.properties(base)
        moved = [key for key, value in expected.items() if properties.get(key) != value]
        if moved:
            raise self._count("fenced", FencedOut(f"{at.table.name}: {sorted(moved)} moved"))

    def _send_late(self, base: Version, after: Version) -> None:
        low, high = LATE_STEPS
        steps = self.weather.rng.randint(low, high)
        self.scheduler.later(
            steps, lambda: self._count("late_landed" if self.catalog.swap(base, after) else "late_refused", None)
        )

    def _built(
        self,
        base: Version,
        properties: Mapping[str, str | None],
        files: Files | None,
        receipt_path: str | None,
        forget: set[int],
    ) -> Version:
        if not forget <= {s.snapshot_id for s in base.snapshots}:
            raise self._count("outpaced", Outpaced(f"{base.table}: a rival forgot some of {sorted(forget)}"))
        merged = {k: v for k, v in {**base.properties, **properties}.items() if v is not None}
        kept = tuple(s for s in base.snapshots if s.snapshot_id not in forget)
        number = base.sequence_number
        if files is not None and (files.adds or files.removes or receipt_path):
            if not files.removes <= base.files:
                raise self._count("outpaced", Outpaced(f"{base.table}: a file to replace is gone"))
            number += 1
            alive = (base.files - files.removes) | set(files.adds)
            manifest = self.disk.write(f"{base.table}/metadata", ())
            kept = (*kept, Snapshot(number, number, alive, manifest, receipt_path))
        metadata = self.disk.write(f"{base.table}/metadata", ())
        previous = (base.metadata, *base.previous)[:METADATA_KEPT] if base.metadata else ()
        return Version(base.table, base.table_uuid, metadata, merged, kept, number, previous)

    def _count(self, branch: str, error: Any) -> Any:
        self.branches[branch] = self.branches.get(branch, 0) + 1
        self.scheduler.tell(f"{branch}: {error}" if isinstance(error, Exception) else branch)
        return error
