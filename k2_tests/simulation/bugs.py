"""The bugs themselves: ports and steps of the protocol with one sentence left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from k2_core.contracts import Table
from k2_core.keys import PREFIX, SWEPT_KEY, offset_key, offsets_in, state_key
from k2_core.offsets import OffsetRange, Position
from k2_core.protocol import commit as committing
from k2_core.protocol import planning
from k2_core.protocol.ingestion import Ingestion
from k2_core.protocol.ports import Change, Expected, Head, Landed, Outpaced, Staged
from k2_core.receipts import Committed, Receipt
from k2_core.records import LogBatch, Watermarks
from k2_tests.simulation.catalog import Version
from k2_tests.simulation.cluster import Partition, Read, SimulatedLog
from k2_tests.simulation.disk import Disk
from k2_tests.simulation.ledger import SOME_TIME, SimulatedLedger

OFFSETS = offset_key("", 0).split(".")[1]
_honest_expectations = committing.expectations
_honest_remaining = planning.remaining


class NoFence(SimulatedLedger):
    def validate(self, at: Head, base: Version, expected: Expected) -> None:
        """Nothing is compared."""


class FenceAtPlanTime(SimulatedLedger):
    def validate(self, at: Head, base: Version, expected: Expected) -> None:
        """Compared with what was planned from; a retry re-applies unchecked, as pyiceberg does by itself."""
        super().validate(at, at.loaded, expected)


class FenceWithoutAbsent(SimulatedLedger):
    def validate(self, at: Head, base: Version, expected: Expected) -> None:
        """A key that was absent is not compared."""
        super().validate(at, base, {key: value for key, value in expected.items() if value is not None})


class UnfencedCollector(SimulatedLedger):
    def append(self, audit: Head, copies: Any, properties: Mapping[str, str], expected: Expected) -> None:
        super().append(audit, copies, properties, {})


class CopiesBeforeKey(SimulatedLedger):
    def append(self, audit: Head, copies: Any, properties: Mapping[str, str], expected: Expected) -> None:
        """The copies in one commit, the key in the next."""
        super().append(audit, copies, {}, expected)
        super().append(self.head(audit.table), (), properties, expected)


class OffsetsBeforeRows(SimulatedLedger):
    def swap(self, at: Head, staged: Staged, expected: Expected) -> Landed:
        """Two commits: first how far we are, then what was read."""
        self._transact(at, staged.properties, expected, None, None)
        moved = {key: staged.properties.get(key, value) for key, value in expected.items()}
        return super().swap(at, replace(staged, properties={}), moved)


class RowsBeforeOffsets(SimulatedLedger):
    def swap(self, at: Head, staged: Staged, expected: Expected) -> Landed:
        """Two commits: first what was read, then how far we are."""
        super().swap(at, replace(staged, properties={}), expected)
        self._transact(at, staged.properties, expected, None, None)
        landed = self._find(self._head_of(at.table, self.catalog.heads[at.table.name]), staged)
        assert landed is not None, "just swapped"
        return landed


class OffsetsInSummary(SimulatedLedger):
    def properties(self, version: Version) -> Mapping[str, str]:
        """C is what the retained snapshots say, as the Iceberg sink of Kafka Connect has it."""
        kept = {k: v for k, v in version.properties.items() if not k.startswith(f"{PREFIX}{OFFSETS}.")}
        for s in version.snapshots:
            receipt = self.disk.files.get(s.receipt_path or "")
            if receipt is not None:
                kept.update({offset_key(t, p): str(at) for (t, p), at in receipt.content.ends().items()})
        return kept


class StateApart(SimulatedLedger):
    def stage(self, at: Head, change: Change) -> Staged:
        """The state file is written, but the commit does not name it."""
        staged = super().stage(at, change)
        if at.property(state_key("topic0")) is None:
            return staged
        return replace(staged, properties={k: v for k, v in staged.properties.items() if ".state." not in k})


class FailureMeansAgain(SimulatedLedger):
    def swap(self, at: Head, staged: Staged, expected: Expected) -> Landed:
        """An answer that did not come means that nothing happened: the same again, from the new head."""
        try:
            return super().swap(at, staged, expected)
        except OSError:
            fresh = self.head(at.table)
            return super().swap(fresh, staged, {key: fresh.property(key) for key in expected})


class FailureMeansDone(SimulatedLedger):
    def swap(self, at: Head, staged: Staged, expected: Expected) -> Landed:
        """An answer that did not come means that it was only the answer."""
        try:
            return super().swap(at, staged, expected)
        except OSError:
            told = Committed(staged.receipt, at.table_uuid, 0, 0, SOME_TIME, staged.receipt_path, "")
            return Landed(told, self._head_of(at.table, self.catalog.heads[at.table.name]))


class CleansUpUnknown(SimulatedLedger):
    def swap(self, at: Head, staged: Staged, expected: Expected) -> Landed:
        """After any error the files of the commit are deleted."""
        try:
            return super().swap(at, staged, expected)
        except OSError:
            self.disk.delete([*staged.handle.adds, staged.receipt_path])
            raise


class LettersLostOnRetry(SimulatedLedger):
    def swap(self, at: Head, staged: Staged, expected: Expected) -> Landed:
        """What is tried a second time is tried without its sidecars."""
        try:
            return super().swap(at, staged, expected)
        except Outpaced:
            data = tuple(f for f in staged.receipt.files if f.kind in ("data", "state"))
            self.disk.files[staged.receipt_path].content = replace(staged.receipt, files=data)
            raise


class DeletesShared(SimulatedLedger):
    def expire(self, at: Head, snapshot_ids: Sequence[int]) -> None:
        """What an expired snapshot referred to goes, whoever else refers to it."""
        files = self._files_of([s for s in at.loaded.snapshots if s.snapshot_id in set(snapshot_ids)])
        super().expire(at, snapshot_ids)
        self.disk.delete(sorted(files))


class StateUnreferenced(SimulatedLedger):
    def states(self, version: Version) -> set[str]:
        """A file that only a property names counts as nobody's."""
        return set()


class ReceiptUnsynced(Disk):
    def sync(self, path: str) -> None:
        """Receipts are written as pyiceberg writes: into the page cache."""
        if "/k2/receipts/" not in path:
            super().sync(path)


class ManifestUnsynced(Disk):
    def sync(self, path: str) -> None:
        if "/metadata/" not in path:
            super().sync(path)


class JumpsToEarliest(SimulatedLog):
    def _below_retention(
        self, key: tuple[str, int], at: dict[tuple[str, int], int], partition: Partition, end: int
    ) -> list[Read]:
        """auto.offset.reset=earliest: what is gone is passed without a word."""
        at[key] = min(end, partition.low)
        return []

    def watermarks(self, topics: Any) -> dict[tuple[str, int], Watermarks]:
        return {key: Watermarks(0, m.high) for key, m in super().watermarks(topics).items()}


class ErrorMeansEnd(SimulatedLog):
    def _fetch(self, key: tuple[str, int], at: dict[tuple[str, int], int], end: int) -> list[Read]:
        """An error message is taken for the end of a partition."""
        try:
            return super()._fetch(key, at, end)
        except Exception:
            at[key] = end
            return []


class NoSecondLook(Ingestion):
    def _batches(self, at: Head, ranges: Sequence[OffsetRange]) -> Iterator[LogBatch]:
        """The incarnation is proven before the first read only."""
        self._incarnations(at)
        for batch in self.log.read(planning.remaining(at, ranges), rows_max=self.rows_per_commit):
            self.reach("read")
            yield batch


class NoLook(Ingestion):
    def _incarnations(self, at: Head) -> dict[str, Any]:
        """Whose offsets these are is only asked when planning."""
        return {}


class RegistersAtEnd(Ingestion):
    def register(self, table: Table, run_id: str) -> Any:
        """auto.offset.reset=latest: a new topic is read from its end."""
        return Ingestion.register(replace(self, log=_Ends(self.log)), table, run_id)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Ends:
    log: Any

    def incarnation(self, topics: Any) -> Any:
        return self.log.incarnation(topics)

    def watermarks(self, topics: Any) -> dict[tuple[str, int], Watermarks]:
        return {key: Watermarks(m.high, m.high) for key, m in self.log.watermarks(topics).items()}


def only(*prefixes: str) -> Callable[[Head, Staged], dict[str, str | None]]:
    """Expectations of keys with these beginnings alone."""

    def expectations(at: Head, staged: Staged) -> dict[str, str | None]:
        return {key: v for key, v in _honest_expectations(at, staged).items() if key.startswith(prefixes)}

    return expectations


def without(*prefixes: str) -> Callable[[Head, Staged], dict[str, str | None]]:
    """Expectations of all but keys with these beginnings."""

    def expectations(at: Head, staged: Staged) -> dict[str, str | None]:
        return {key: v for key, v in _honest_expectations(at, staged).items() if not key.startswith(prefixes)}

    return expectations


def sweep_without_number(ledger: Any, table: Table, **said: str) -> int:
    """Delete what is found, without fencing out whoever wrote it."""
    after = ledger.head(table)
    lost = ledger.unreferenced(after)
    ledger.delete(after, lost)
    return len(lost)


def sweep_lists_late(ledger: Any, table: Table, **said: str) -> int:
    """Raise the number first, list then: files of those who planned in between are taken for lost."""
    at = ledger.head(table)
    number = int(at.property(SWEPT_KEY) or 0) + 1
    receipt = Receipt(table.name, "maintenance", said["run_id"], "", "", ())
    after = committing.commit(ledger, at, Change(receipt, properties={SWEPT_KEY: str(number)})).head
    lost = ledger.unreferenced(after)
    ledger.delete(after, lost)
    return len(lost)


def skip_ahead(at: Head, known: Any, topic: str, kafka_partition: int, marks: Watermarks) -> int:
    """Start where the log starts when it no longer holds the next offset."""
    return max(marks.low, offsets_in(at.properties).positions.get((topic, kafka_partition), Position(0, 0)).next)


def remaining_as_planned(at: Head, ranges: Any) -> tuple[OffsetRange, ...]:
    """Read what was planned, wherever the table is by now."""
    return tuple(ranges)


def remaining_though_paused(at: Head, ranges: Any) -> tuple[OffsetRange, ...]:
    """Whatever was planned may be read, paused or not."""
    unpaused = {key: value for key, value in at.properties.items() if not key.startswith(f"{PREFIX}paused.")}
    return _honest_remaining(replace(at, properties=unpaused), ranges)


def judged_unasked(self: Ingestion, at: Head, arrived: Any, epochs: Mapping[str, int], run_id: str) -> Change:
    """Believe the desk when it says that a file is gone."""
    return self.desk.judge(at, arrived, epochs, run_id)


def same_epoch(epoch: int, incarnation: Any) -> planning.Registered:
    """A topic made anew keeps its epoch."""
    return planning.Registered(0, incarnation)


def nothing(*_: Any) -> None:
    """Not looked at."""
