"""Prove the audit tables against the receipts: each holds what was collected into it, row by row, and nothing else."""

from __future__ import annotations

import hashlib
import itertools
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, EqualTo

from k2_core.contracts import AUDIT, DEAD_LETTERS, GAPS, INGESTED, RECEIPTS, Table
from k2_core.errors import Damaged
from k2_core.offsets import Offsets
from k2_core.receipts import Committed, FileKind, Imbalance, RangeCount, Receipt, fold_offsets
from k2_core.tables import fitted
from k2_resources.lake.copies import EVENTS_PER_COMMIT
from k2_resources.lake.evidence import Evidence, Row, receipt_of_row
from k2_resources.lake.receipts import read_receipt

LogPartition = tuple[str, int, int]
"""Topic, epoch, Kafka partition."""
_INGESTED = frozenset(table.name for table in INGESTED)


def audited(evidence: Evidence, damaged: Collection[str]) -> list[Imbalance]:
    """Find what the audit tables hold beside or against the receipts. damaged: files not to compare with."""
    last = evidence.history[-1].sequence_number if evidence.history else 0
    ahead = [
        Imbalance(audit.name, f"says it holds {evidence.table.name} up to {until}, which ends at {last}")
        for audit in AUDIT
        if (until := evidence.until(audit)) > last
    ]
    return [*ahead, *_copies(evidence), *_letters(evidence, damaged), *_gaps(evidence, damaged)]


def _copies(e: Evidence) -> list[Imbalance]:
    """audit.receipts: one copy of each receipt collected, equal to its file, with C as the receipts fold to it."""
    numbers = [row["sequence_number"] for row in e.copies]
    until = e.until(RECEIPTS)
    due = {c.sequence_number for c in e.collected(RECEIPTS)}
    told = {
        "is there more than once": [a for a, b in itertools.pairwise(numbers) if a == b],
        "is not there": sorted(due - set(numbers)),
        f"is there, but only those up to {until} were collected": sorted(n for n in numbers if n > until),
        "differs from its receipt file": [row["sequence_number"] for row in e.copies if not _is_copy(e, row)],
        "has another version than its offsets, or other offsets than the receipts": _misfolded(e),
    }
    return [Imbalance(f"{RECEIPTS.name} {e.table.name} {n}", problem) for problem, ns in told.items() for n in ns]


def _is_copy(e: Evidence, row: Row) -> bool:
    """Whether a row of audit.receipts is as its receipt file; ground state, so true, once that has gone."""
    path, sha256 = row["receipt_path"], row["receipt_sha256"]
    original = e.originals.get(row["sequence_number"])
    if original is not None:
        named = (original.snapshot_id, original.path, original.sha256)
        return named == (row["snapshot_id"], path, sha256) and _is_same(original.receipt, row)
    if not Path(path).exists():
        return True
    try:
        return _is_same(read_receipt(path, sha256), row)
    except Damaged:  # while its snapshot is retained, the file is a finding itself
        return e.loaded.snapshot_by_id(row["snapshot_id"]) is not None


def _is_same(receipt: Receipt, row: Row) -> bool:
    return replace(receipt, contract_version="") == receipt_of_row(row)


def _misfolded(e: Evidence) -> list[int]:
    """Copies that state another C, or another digest of it, than the receipts up to theirs."""
    stated = {row["sequence_number"]: row for row in e.copies}
    folded, found = Offsets(), []
    for c in e.history:
        try:
            folded = fold_offsets(folded, c.receipt)
        except ValueError:  # a finding of the ranges; what follows has no C to compare with
            break
        row = stated.get(c.sequence_number)
        if row is not None and (row["version"], _positions(row)) != (folded.version, _listed(folded)):
            found.append(c.sequence_number)
    return found


def _positions(row: Row) -> list[tuple[str, int, int, int]]:
    return [(o["topic"], o["kafka_partition"], o["kafka_epoch"], o["next"]) for o in row["offsets"]]


def _listed(offsets: Offsets) -> list[tuple[str, int, int, int]]:
    return [(t, p, at.epoch, at.next) for (t, p), at in sorted(offsets.positions.items())]


@dataclass(frozen=True)
class Holder:
    """A range that a receipt read, and so the place of every dead letter with an offset in it."""

    counted: RangeCount
    committed: Committed


class Holders:
    """Which receipt read an offset."""

    def __init__(self, receipts: Iterable[Committed]) -> None:
        self._held: dict[LogPartition, list[Holder]] = defaultdict(list)
        for c in receipts:
            for r in c.receipt.ranges:
                if r.start < r.end:
                    self._held[r.topic, r.kafka_epoch, r.kafka_partition].append(Holder(r, c))
        for ranges in self._held.values():
            ranges.sort(key=lambda h: h.counted.start)

    def __iter__(self) -> Iterator[Holder]:
        return itertools.chain.from_iterable(self._held.values())

    def of(self, partition: LogPartition, offset: int) -> Holder | None:
        held = self._held.get(partition, [])
        at = bisect_right(held, offset, key=lambda h: h.counted.start) - 1
        return held[at] if at >= 0 and offset < held[at].counted.end else None


def _letters(e: Evidence, damaged: Collection[str]) -> list[Imbalance]:
    """audit.dead_letters: each range as many as it counted, each receipt those of its sidecar, and no others."""
    holders, former = Holders(e.collected(DEAD_LETTERS)), Holders(e.former)
    found: dict[int, Counter[bytes]] = defaultdict(Counter)
    counts: Counter[RangeCount] = Counter()
    shared: Counter[RangeCount] = Counter()
    strangers: list[Imbalance] = []
    for row in _stored(e, DEAD_LETTERS, EqualTo("table_name", e.table.name)):
        partition, offset = (row["kafka_topic"], row["kafka_epoch"], row["kafka_partition"]), row["kafka_offset"]
        holder, is_former = holders.of(partition, offset), former.of(partition, offset) is not None
        if holder is not None:
            found[holder.committed.sequence_number][_digest(row)] += 1
            counts[holder.counted] += 1
            shared[holder.counted] += is_former
        elif not is_former:
            where = f"{DEAD_LETTERS.name} {partition[0]}[{partition[2]}] offset {offset}"
            strangers.append(Imbalance(where, f"no receipt collected of {e.table.name} read it"))
    miscounted = [
        Imbalance(_range(h.counted), f"{counts[h.counted]} letters, its receipt counts {h.counted.dead}")
        for h in holders
        if not 0 <= counts[h.counted] - h.counted.dead <= shared[h.counted]
    ]
    different: list[Imbalance] = []
    for c in e.collected(DEAD_LETTERS):
        if (expected := _sidecar(c, "dead_letters", damaged)) is not None:
            spare = sum(shared[r] for r in c.receipt.ranges)
            different += _differences(DEAD_LETTERS, c, found[c.sequence_number], Counter(map(_digest, expected)), spare)
    return [*strangers, *miscounted, *different]


def _range(r: RangeCount) -> str:
    return f"{DEAD_LETTERS.name} {r.topic}[{r.kafka_partition}] [{r.start}, {r.end})"


def _gaps(e: Evidence, damaged: Collection[str]) -> list[Imbalance]:
    """audit.gaps: each receipt the events of its sidecar, numbered and stamped, and no others of its table.

    Rows of an older K2 name a feed and a snapshot, not a table: the feeds of the table are those its receipts stored
    rows of.
    """
    due = {c.snapshot_id: c for c in e.collected(GAPS)}
    former = {c.snapshot_id for c in e.former}
    feeds = {d.feed for c in (*e.history, *e.former) for d in c.receipt.dates}
    versions = {row["snapshot_id"]: row["version"] for row in e.copies}
    found: dict[int, Counter[bytes]] = defaultdict(Counter)
    problems: list[Imbalance] = []
    for row in _stored(e, GAPS, AlwaysTrue()):
        snapshot_id = row["snapshot_id"]
        if snapshot_id in due:
            found[snapshot_id][_digest(_as_sent(row, e.table, versions))] += 1
        elif snapshot_id not in former and _claims(row, e.table, feeds):
            where = f"{GAPS.name} {row['gap_id']} event {row['event_number']}"
            problems.append(Imbalance(where, f"no receipt collected of {e.table.name} saw it"))
    for c in due.values():
        told, counted = found[c.snapshot_id], sum(f.rows for f in c.receipt.files_of("gaps"))
        if told.total() != counted:
            where = f"{GAPS.name} snapshot {c.snapshot_id}"
            problems.append(Imbalance(where, f"{told.total()} events, its receipt counts {counted}"))
        if (events := _sidecar(c, "gaps", damaged)) is not None:
            problems += _differences(GAPS, c, told, Counter(map(_digest, _numbered(c, events))))
    return problems


def _claims(row: Row, table: Table, feeds: Collection[str]) -> bool:
    """Whether a gap event says it is of this table; one that names no table there is falls to that of its feed."""
    return row["table_name"] == table.name or (row["table_name"] not in _INGESTED and row["feed"] in feeds)


def _as_sent(row: Row, table: Table, versions: Mapping[int, str]) -> Row:
    """A gap event as its sidecar has it, where what the copy added is right; an older K2 added no table."""
    is_right = row["version"] in (None, versions.get(row["snapshot_id"], row["version"]))
    is_right &= row["table_name"] in (None, table.name)
    return {**row, "version": None, "table_name": None} if is_right else row


def _numbered(c: Committed, events: Iterable[Row]) -> Iterator[Row]:
    first = c.sequence_number * EVENTS_PER_COMMIT
    for number, event in enumerate(events, start=first):
        yield {**event, "event_number": number, "snapshot_id": c.snapshot_id}


def _differences(
    audit: Table, c: Committed, found: Counter[bytes], expected: Counter[bytes], spare: int = 0
) -> list[Imbalance]:
    """Rows that only the audit table or only the sidecar has. spare: rows a dropped table may have left there."""
    missing, more = (expected - found).total(), (found - expected).total()
    if not missing and more <= spare:
        return []
    where = f"{audit.name} snapshot {c.snapshot_id}"
    return [Imbalance(where, f"{missing} rows of its sidecar are not there as they were, {more} others are")]


def _stored(e: Evidence, audit: Table, where: BooleanExpression) -> Iterator[Row]:
    """Rows of an audit table, a batch in memory at a time: letters hold whatever bytes were sent."""
    for batch in e.audits[audit.name].loaded.scan(where).to_arrow_batch_reader():
        yield from _rows(audit, pa.Table.from_batches([batch]))


def _sidecar(c: Committed, kind: FileKind, damaged: Collection[str]) -> list[Row] | None:
    """Rows of the sidecars of one kind; None when one is not there, or not as written, to compare with."""
    audit, files = {"dead_letters": DEAD_LETTERS, "gaps": GAPS}[kind], c.receipt.files_of(kind)
    if any(f.path in damaged or not Path(f.path).exists() for f in files):
        return None
    return [row for f in files for row in _rows(audit, pq.read_table(f.path, partitioning=None))]


def _rows(audit: Table, rows: pa.Table) -> list[Row]:
    found: list[Row] = fitted(rows, audit.arrow_schema()).to_pylist()
    return found


def _digest(row: Row) -> bytes:
    """A row in a few bytes: equal rows are equal, however long what was sent."""
    return hashlib.sha256(repr(tuple(row.values())).encode()).digest()
