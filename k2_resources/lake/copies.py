"""What audit tables hold of receipts: copies of the receipts with C at each, and the rows of their sidecars."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
from cachetools import LRUCache
from pyiceberg.expressions import And, EqualTo

from k2_core.contracts import DEAD_LETTERS, GAPS, RECEIPTS, Table
from k2_core.errors import Damaged, NotFound
from k2_core.keys import PREFIX
from k2_core.offsets import Offsets, Position
from k2_core.protocol.collect import collected_until
from k2_core.protocol.ports import Head
from k2_core.receipts import Committed, fold_offsets
from k2_core.tables import fitted
from k2_resources.lake.catalog import Lake
from k2_resources.lake.scans import receipt_rows

EVENTS_PER_COMMIT = 10_000_000
"""Room for the events of one commit between the numbers of two; a commit holds fewer records than that."""


_folding = threading.Lock()
_versions: LRUCache[tuple[str, int], str] = LRUCache(1_024)
"""Versions of the last commits folded here, by table uuid and sequence number: receipts are copied just before gaps."""


@dataclass(frozen=True)
class Vector:
    """Where the fold of receipts stands: C, its commit time, and the sequence number of the last receipt."""

    table_uuid: str
    sequence_number: int
    offsets: Offsets
    commit_time: datetime | None

    def to_json(self) -> str:
        positions = [[t, p, str(at)] for (t, p), at in sorted(self.offsets.positions.items())]
        time = self.commit_time.isoformat() if self.commit_time else None
        return json.dumps([self.table_uuid, self.sequence_number, time, positions], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Vector:
        table_uuid, sequence_number, time, positions = json.loads(text)
        offsets = Offsets({(t, p): Position.parse(at) for t, p, at in positions})
        return cls(table_uuid, sequence_number, offsets, datetime.fromisoformat(time) if time else None)


@dataclass(frozen=True)
class Copies:
    """What one audit table gains from some receipts. properties: set with the rows, for whoever copies next."""

    rows: pa.Table
    properties: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


def vector_key(table: str) -> str:
    """On audit.receipts: where the fold of a table's receipts stands, so that no row of it is read to go on."""
    return f"{PREFIX}vector.{table}"


def copies(lake: Lake, audit: Head, source: Head, fresh: Sequence[Committed]) -> Copies:
    """The rows one audit table gains from these receipts. Raises Damaged when a sidecar is gone."""
    if audit.table is RECEIPTS:
        return _receipt_rows(lake, audit, source, fresh)
    if audit.table is DEAD_LETTERS:
        return Copies(_dead_letter_rows(fresh))
    return Copies(_gap_rows(lake, source.table, fresh))


def _dead_letter_rows(fresh: Sequence[Committed]) -> pa.Table:
    schema = DEAD_LETTERS.arrow_schema()
    parts = [read_sidecar(f.path) for c in fresh for f in c.receipt.files_of("dead_letters")]
    return pa.concat_tables([schema.empty_table(), *(fitted(part, schema) for part in parts)])


def _gap_rows(lake: Lake, table: Table, fresh: Sequence[Committed]) -> pa.Table:
    """Gap events in commit order, with the table, the snapshot and the version of the commit that told them."""
    told = [c for c in fresh if c.receipt.files_of("gaps")]
    versions = _versions_of(lake, table, told)
    rows = []
    for c in told:
        events = [event for f in c.receipt.files_of("gaps") for event in read_sidecar(f.path).to_pylist()]
        version = versions.get(c.sequence_number)
        stamp = {"table_name": table.name, "snapshot_id": c.snapshot_id, "version": version}
        first = c.sequence_number * EVENTS_PER_COMMIT
        rows += [{**event, **stamp, "event_number": first + i} for i, event in enumerate(events)]
    return pa.Table.from_pylist(rows, schema=GAPS.arrow_schema())


def _versions_of(lake: Lake, table: Table, told: Sequence[Committed]) -> dict[int, str]:
    """The versions of commits by sequence number: as this process just copied them, or read from audit.receipts."""
    with _folding:
        known = {c.sequence_number: _versions.get((c.table_uuid, c.sequence_number)) for c in told}
    if all(known.values()):
        return {number: version for number, version in known.items() if version}
    after = receipt_rows(lake, table, after=told[0].sequence_number - 1)
    return dict(zip(after["sequence_number"].to_pylist(), after["version"].to_pylist(), strict=True))


def read_sidecar(path: str) -> pa.Table:
    """The rows of a sidecar. Raises Damaged when it is gone."""
    try:
        return pq.read_table(path, partitioning=None)
    except OSError as error:
        raise Damaged(f"sidecar {path}: {error}; its receipt names it") from error


def last_vector(lake: Lake, audit: Head, source: Head) -> Vector:
    """C at the last collected receipt, as audit.receipts says it, or read back from its row."""
    until, table = collected_until(audit, source), source.table
    if until == 0:
        return Vector(source.table_uuid, 0, Offsets(), None)
    stated = audit.property(vector_key(table.name))
    if stated is not None:
        vector = Vector.from_json(stated)
        if (vector.table_uuid, vector.sequence_number) == (source.table_uuid, until):
            return vector
    return _vector_of_row(lake, table, source.table_uuid, until)


def _vector_of_row(lake: Lake, table: Table, table_uuid: str, until: int) -> Vector:
    this = And(EqualTo("table_name", table.name), EqualTo("sequence_number", until), EqualTo("table_uuid", table_uuid))
    columns = ("sequence_number", "offsets", "commit_time")
    rows = lake.load(RECEIPTS).scan(this, selected_fields=columns).to_arrow().to_pylist()
    if not rows:
        raise NotFound(f"audit.receipts says it holds {table.name} up to receipt {until}, but that row is not there")
    offsets = {(o["topic"], o["kafka_partition"]): Position(o["kafka_epoch"], o["next"]) for o in rows[0]["offsets"]}
    return Vector(table_uuid, until, Offsets(offsets), rows[0]["commit_time"])


def _receipt_rows(lake: Lake, audit: Head, source: Head, fresh: Sequence[Committed]) -> Copies:
    vector = last_vector(lake, audit, source)
    rows = []
    for c in fresh:
        offsets = fold_offsets(vector.offsets, c.receipt)
        time = max(vector.commit_time, c.snapshot_time) if vector.commit_time else c.snapshot_time
        vector = Vector(c.table_uuid, c.sequence_number, offsets, time)
        with _folding:
            _versions[c.table_uuid, c.sequence_number] = offsets.version
        rows.append(_receipt_row(c, offsets, time))
    copied = pa.Table.from_pylist(rows, schema=RECEIPTS.arrow_schema())
    return Copies(copied, {vector_key(source.table.name): vector.to_json()})


def _receipt_row(committed: Committed, offsets: Offsets, time: datetime) -> dict[str, object]:
    receipt = committed.receipt
    vector = [
        {"topic": t, "kafka_partition": p, "kafka_epoch": at.epoch, "next": at.next}
        for (t, p), at in sorted(offsets.positions.items())
    ]
    return {
        "table_name": receipt.table,
        "table_uuid": committed.table_uuid,
        "sequence_number": committed.sequence_number,
        "snapshot_id": committed.snapshot_id,
        "commit_time": time,
        "kind": receipt.kind,
        "run_id": receipt.run_id,
        "code_version": receipt.code_version,
        "schema_ids": list(receipt.schema_ids),
        "ranges": [vars(r) for r in receipt.ranges],
        "files": [vars(f) for f in receipt.files],
        "dates": [vars(d) for d in receipt.dates],
        "offsets": vector,
        "version": offsets.version,
        "reverted": receipt.reverted,
        "precision_upgrades": receipt.precision_upgrades,
        "receipt_path": committed.path,
        "receipt_sha256": committed.sha256,
        "who": receipt.who,
        "why": receipt.why,
        "replaced": [vars(f) for f in receipt.replaced],
        "moved": [vars(m) for m in receipt.moved],
    }
