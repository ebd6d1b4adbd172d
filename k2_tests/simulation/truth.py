"""What really happened, from the log's own archive, and whether every version of every table agrees with it.

Nothing here asks the protocol: the verdict over a batch is made again from what the log held, in commit order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from k2_core.contracts import DEAD_LETTERS, GAPS, RECEIPTS, TRADES
from k2_core.keys import offsets_in, paused_key, state_key, topic_key
from k2_core.offsets import Offsets, Position
from k2_core.receipts import Committed, RangeCount, Receipt
from k2_tests.simulation.catalog import Catalog, Snapshot, Version, state_files
from k2_tests.simulation.cluster import Cluster, Read
from k2_tests.simulation.desk import Letter, Row, State, judge
from k2_tests.simulation.disk import Disk

JUMPS = ("register", "adopt", "accept_loss")


class Violation(NamedTuple):
    """One promise broken. kind: lost, doubled, torn, regressed, hole, dangling, unsynced, audit, expired, silent, ..."""

    kind: str
    what: str


class Copied(NamedTuple):
    """What an audit table must hold of one receipt."""

    sequence_number: int
    path: str
    letters: tuple[Letter, ...]
    gaps: tuple[Any, ...]
    offsets: Offsets


class Truth:
    """Follows the tick table commit by commit. Keeps violations as values: the protocol would catch an exception."""

    def __init__(
        self, cluster: Cluster, disk: Disk, catalog: Catalog, properties: Callable[[Version], Mapping[str, str]]
    ) -> None:
        """properties: what a reader of a version sees of them."""
        self.cluster = cluster
        self.disk = disk
        self.catalog = catalog
        self.properties = properties
        self.violations: list[Violation] = []
        self.kinds: Counter[str] = Counter()
        self.positions: dict[tuple[str, int], Position] = {}
        self.registered: dict[str, tuple[int, str]] = {}
        self.epochs: dict[tuple[str, str], int] = {}
        self.seen: dict[str, State] = {}
        self.rows: list[Row] = []
        self.letters: list[Letter] = []
        self.jumps: list[RangeCount] = []
        self.history: list[Copied] = []
        self.paths: set[str] = set()
        self.copied: dict[str, int] = {RECEIPTS.name: 0, DEAD_LETTERS.name: 0, GAPS.name: 0}
        self._needs_of: dict[str, tuple[Version, set[str]]] = {}
        catalog.seen, disk.gone = self.swapped, self.gone

    def violate(self, kind: str, what: str) -> None:
        self.violations.append(Violation(kind, what))

    def swapped(self, before: Version, after: Version) -> None:
        """Look at a version at the moment it becomes the head."""
        self._present(before, after)
        try:
            if before.table == TRADES.name:
                self._tick_version(before, after)
            else:
                self._audit_version(before, after)
        except (LookupError, ValueError, AttributeError) as error:
            self.violate("malformed", f"{before.table}: {error!r}")

    def gone(self, paths: list[str]) -> None:
        """Files were deleted or lost: no head may need one of them."""
        for path in paths:
            table = path.partition("/")[0]
            if path in self._referenced(self.catalog.heads[table]):
                self.violate("dangling", f"{path} is gone, and a head refers to it")

    def told(self, committed: Committed) -> None:
        """A run says it committed: that is in the table."""
        if committed.path not in self.paths:
            self.violate("untrue", f"a run told of receipt {committed.path}, which is in no version of the table")

    def _present(self, before: Version, after: Version) -> None:
        had = self._referenced(before)
        for path in sorted(self._referenced(after) - had):
            file = self.disk.files.get(path)
            if file is None:
                self.violate("dangling", f"{after.table} refers to {path}, which does not exist")
            elif not file.synced:
                self.violate("unsynced", f"{after.table} refers to {path}, which a power cut would take")

    def _referenced(self, version: Version) -> set[str]:
        """Files a version needs, asked often and of the same few versions."""
        known = self._needs_of.get(version.table)
        if known is not None and known[0] is version:
            return known[1]
        files = state_files(version.properties) | {version.metadata} - {""}
        for s in version.snapshots:
            files |= s.files
            files.add(s.manifest)
            if s.receipt_path:
                files.add(s.receipt_path)
                if s.receipt_path in self.disk.files:
                    files |= {f.path for f in self.disk.read(s.receipt_path).files if f.kind != "data"}
        self._needs_of[version.table] = (version, files)
        return files

    def _tick_version(self, before: Version, after: Version) -> None:
        fresh = [s for s in after.snapshots if s.sequence_number > before.sequence_number]
        for s in fresh:
            if s.receipt_path is None:
                self.violate("torn", f"snapshot {s.snapshot_id} has no receipt")
            else:
                self._receipt(before, after, s, self.disk.read(s.receipt_path))
        self._forgotten(before, after)
        now = offsets_in(self.properties(after)).positions
        if now != self.positions:
            self.violate("regressed", f"C is {dict(now)}, receipts say {self.positions}")

    def _receipt(self, before: Version, after: Version, snapshot: Snapshot, receipt: Receipt) -> None:
        path = snapshot.receipt_path or ""
        if path in self.paths:
            self.violate("doubled", f"receipt {path} is committed twice")
        self.paths.add(path)
        self.kinds[receipt.kind] += 1
        letters = tuple(x for f in receipt.files_of("dead_letters") for x in self.disk.read(f.path))
        gaps = tuple(x for f in receipt.files_of("gaps") for x in self.disk.read(f.path))
        added, removed = self._rows_of(after.files - before.files), self._rows_of(before.files - after.files)
        if receipt.kind == "batch":
            self._batch(before, after, receipt, added, removed, letters, gaps)
        elif sorted(added) != sorted(removed):
            self.violate("torn", f"a {receipt.kind} changed rows: {len(removed)} became {len(added)}")
        if receipt.kind in JUMPS:
            self._jump(after, receipt)
        self.history.append(Copied(snapshot.sequence_number, path, letters, gaps, Offsets(dict(self.positions))))

    def _rows_of(self, files: frozenset[str]) -> list[Row]:
        return [row for path in sorted(files) for row in self.disk.read(path)]

    def _batch(
        self,
        before: Version,
        after: Version,
        receipt: Receipt,
        added: list[Row],
        removed: list[Row],
        letters: tuple[Letter, ...],
        gaps: tuple[Any, ...],
    ) -> None:
        reads: list[Read] = []
        for r in receipt.ranges:
            if not r.is_balanced:
                self.violate("unbalanced", str(r))
            if paused_key(r.topic, r.kafka_partition) in before.properties:
                self.violate("silent", f"{r} was read past a pause")
            reads += self._continues(r)
        topics = {r.topic for r in receipt.ranges}
        expected = judge(
            tuple(reads), {t: self.seen.get(t, {}) for t in topics}, {t: self.registered[t][0] for t in topics}
        )
        self._same("rows", added, [*expected.rows, *removed])
        self._same("letters", letters, expected.letters)
        self._same("gaps", gaps, expected.gaps)
        counted = {(r.topic, r.kafka_partition): [r.written, r.duplicates, r.revisions, r.dead] for r in receipt.ranges}
        if any(counted[key] != counts for key, counts in expected.counts.items()):
            self.violate("unbalanced", f"counts {counted}, expected {expected.counts}")
        self.rows += expected.rows
        self.letters += expected.letters
        self._states({topic for topic, _ in expected.counts}, expected.states, after)

    def _continues(self, r: RangeCount) -> list[Read]:
        """What the log held in a range; it must go on where the one before ended."""
        epoch, topic_id = self.registered[r.topic]
        key = (r.topic, r.kafka_partition)
        at = self.positions.get(key, Position(epoch, 0))
        if at != Position(r.kafka_epoch, r.start):
            self.violate("doubled" if Position(r.kafka_epoch, r.start) < at else "hole", f"{r} after {at}")
        self.positions[key] = Position(r.kafka_epoch, r.end)
        entries = self.cluster.ever[r.topic, topic_id].partitions[r.kafka_partition].entries
        if r.end > len(entries):
            self.violate("untrue", f"{r} reaches past the log, which ends at {len(entries)}")
        held = [Read(*key, i, token) for i in range(r.start, min(r.end, len(entries))) if (token := entries[i])]
        if len(held) != r.read:
            self.violate("lost" if r.read < len(held) else "doubled", f"{r} held {len(held)} records")
        return held

    def _same(self, what: str, found: Any, expected: Any) -> None:
        missing, extra = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
        if missing:
            self.violate("lost", f"{what} missing from a commit: {sorted(missing)}")
        if extra:
            self.violate("doubled", f"{what} a commit should not have: {sorted(extra)}")

    def _states(self, topics: set[str], states: Mapping[str, State], after: Version) -> None:
        for topic in topics:
            self.seen[topic] = states[topic]
            path = self.properties(after).get(state_key(topic))
            if path is None or {k: sorted(v) for k, v in self.disk.read(path).items()} != {
                k: sorted(v) for k, v in states[topic].items()
            }:
                self.violate("state", f"the state of {topic} is not what the rows say")

    def _jump(self, after: Version, receipt: Receipt) -> None:
        """Only what nobody can read any more may be passed."""
        for topic in {r.topic for r in receipt.ranges}:
            said = json.loads(self.properties(after)[topic_key(topic)])
            before = self.registered.get(topic)
            now = self.cluster.topics.get(topic)
            if receipt.kind == "adopt" and now is not None and before is not None and now.topic_id == before[1]:
                self.violate("lost", f"{topic} was adopted, but it is the same")
            self.registered[topic] = (int(said["epoch"]), said["topic"])
            self.epochs[topic, said["topic"]] = int(said["epoch"])
        for r in receipt.ranges:
            key, at = (r.topic, r.kafka_partition), Position(r.kafka_epoch, r.end)
            if at < self.positions.get(key, at):
                self.violate("regressed", f"{receipt.kind} puts {key} back from {self.positions[key]} to {at}")
            if r.kafka_epoch != self.registered[r.topic][0]:
                self.violate("regressed", f"{r} is not of epoch {self.registered[r.topic][0]}")
            self.positions[key] = at
            self.jumps.append(r)
            self._nothing_left(receipt.kind, r)

    def _nothing_left(self, kind: str, r: RangeCount) -> None:
        now = self.cluster.topics.get(r.topic)
        if now is None or now.topic_id != self.registered[r.topic][1] or r.kafka_partition >= len(now.partitions):
            return
        partition = now.partitions[r.kafka_partition]
        start = 0 if kind != "accept_loss" else r.start
        passed = [i for i in range(max(start, partition.low), r.end) if partition.entries[i] is not None]
        if passed:
            self.violate("lost", f"{kind} passed offsets {passed} of {r.topic}[{r.kafka_partition}], which can be read")

    def _forgotten(self, before: Version, after: Version) -> None:
        kept = {s.snapshot_id for s in after.snapshots}
        gone = {s.sequence_number for s in before.snapshots if s.snapshot_id not in kept and s.receipt_path}
        for i, entry in enumerate(self.history):
            if entry.sequence_number in gone:
                copied = [i < self.copied[RECEIPTS.name]]
                copied += [not rows or i < self.copied[name] for name, rows in self._sidecars(entry)]
                if not all(copied):
                    self.violate("expired", f"receipt {entry.sequence_number} was forgotten before it was copied")

    def _sidecars(self, entry: Copied) -> list[tuple[str, tuple[Any, ...]]]:
        return [(DEAD_LETTERS.name, entry.letters), (GAPS.name, entry.gaps)]

    def _audit_version(self, before: Version, after: Version) -> None:
        """The copies in an audit table are those of a prefix of the history, each once, in order."""
        name = before.table
        rows, folded = self._rows_of(after.files - before.files), self._rows_of(before.files - after.files)
        if rows[: len(folded)] != folded:
            self.violate("audit", f"{name} held {folded}, now {rows}")
        rows = rows[len(folded) :]
        at = self.copied[name]
        until = at
        while rows and until < len(self.history) and (own := self._copies_of(name, until)) == rows[: len(own)]:
            rows = rows[len(own) :]
            until += 1
        if rows:
            self.violate("audit", f"{name} holds {rows}, which does not follow {at} copied receipts")
        self.copied[name] = until

    def _copies_of(self, name: str, i: int) -> list[Any]:
        entry = self.history[i]
        if name == RECEIPTS.name:
            return [(entry.sequence_number, entry.path, entry.offsets)]
        if name == DEAD_LETTERS.name:
            return list(entry.letters)
        return [(entry.sequence_number, True, event) for event in entry.gaps]

    def settle(self) -> tuple[int, int]:
        """Look at the end, when everything was ingested and collected: records lost and records doubled.

        Starts from what producers were promised, and from the rows as a reader of the head finds them.
        """
        head = self.catalog.heads[TRADES.name]
        found = self._rows_of(head.files)
        letters = self._rows_of(self.catalog.heads[DEAD_LETTERS.name].files)
        lineage = Counter((x.topic, x.epoch, x.kafka_partition, x.offset) for x in [*found, *letters])
        contents = Counter((row.topic, row.key, row.content) for row in found)
        doubled = sum(n - 1 for counted in (lineage, contents) for n in counted.values() if n > 1)
        lost = sum(not self._kept(promise, lineage, contents) for promise in self.cluster.acknowledged)
        if lost or doubled:
            self.violate("lost" if lost else "doubled", f"{lost} records lost, {doubled} doubled at the end")
        if Counter(found) != Counter(self.rows):
            self.violate("torn", "the rows of the head are not those of all commits together")
        self._caught_up()
        return lost, doubled

    def _kept(self, promise: Any, lineage: Mapping[Any, int], contents: Mapping[Any, int]) -> bool:
        topic, topic_id, p, offset, token = promise
        epoch = self.epochs.get((topic, topic_id))
        now = self.cluster.topics[topic]
        if epoch is None:  # gone before anybody knew of the topic
            return now.topic_id != topic_id or offset < now.partitions[p].low
        if (topic, epoch, p, offset) in lineage or (
            token.kind != "bad" and (topic, token.key, token.content) in contents
        ):
            return True
        told = any(
            (j.topic, j.kafka_epoch, j.kafka_partition) == (topic, epoch, p)
            and (0 if j.start == j.end else j.start) <= offset < j.end
            for j in self.jumps
        )
        return told or now.topic_id != topic_id

    def _caught_up(self) -> None:
        for topic, now in self.cluster.topics.items():
            epoch, topic_id = self.registered.get(topic, (0, ""))
            if not topic_id and all(p.low == p.high for p in now.partitions):
                continue
            if topic_id != now.topic_id:
                self.violate("stuck", f"{topic} is {now.topic_id}, the table knows {topic_id}")
            for p, partition in enumerate(now.partitions):
                at = self.positions.get((topic, p), Position(epoch, 0))
                if at != Position(epoch, partition.high):
                    self.violate("stuck", f"{topic}[{p}] is at {at}, the log ends at {partition.high}")
        if any(self.copied[name] <= i for i, e in enumerate(self.history) for name, rows in self._needs(e) if rows):
            self.violate("audit", f"{len(self.history)} receipts, copied {self.copied}")

    def _needs(self, entry: Copied) -> list[tuple[str, Any]]:
        return [(RECEIPTS.name, True), *self._sidecars(entry)]
