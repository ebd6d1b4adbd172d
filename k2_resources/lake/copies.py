"""What audit tables hold of receipts: copies of the receipts with C at each, and the rows of their sidecars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import And, EqualTo

from k2_core.contracts import DEAD_LETTERS, GAPS, RECEIPTS, Table
from k2_core.errors import Damaged, NotFound
from k2_core.offsets import Offsets, Position
from k2_core.protocol.collect import collected_until
from k2_core.protocol.ports import Head
from k2_core.receipts import Committed, fold_offsets
from k2_resources.lake.catalog import Lake
from k2_resources.lake.scans import receipt_rows

EVENTS_PER_COMMIT = 10_000_000
"""Room for the events of one commit between the numbers of two; a commit holds fewer records than that."""


@dataclass(frozen=True)
class Vector:
    """Where the fold of receipts stands: C, its commit time, and the sequence number of the last receipt."""

    sequence_number: int
    offsets: Offsets
    commit_time: datetime | None


def copies(lake: Lake, audit: Head, source: Head, fresh: Sequence[Committed]) -> pa.Table:
    """The rows one audit table gains from these receipts. Raises Damaged when a sidecar is gone."""
    if audit.table is RECEIPTS:
        return _receipt_rows(lake, audit, source, fresh)
    if audit.table is DEAD_LETTERS:
        return _dead_letter_rows(fresh)
    return _gap_rows(lake, source.table, fresh)


def _dead_letter_rows(fresh: Sequence[Committed]) -> pa.Table:
    schema = DEAD_LETTERS.arrow_schema()
    parts = [_read_sidecar(f.path) for c in fresh for f in c.receipt.files_of("dead_letters")]
    return pa.concat_tables([schema.empty_table(), *(part.select(schema.names).cast(schema) for part in parts)])


def _gap_rows(lake: Lake, table: Table, fresh: Sequence[Committed]) -> pa.Table:
    """Gap events in commit order, with the snapshot and the version of the commit that saw them."""
    told = [c for c in fresh if c.receipt.files_of("gaps")]
    versions = {}
    if told:
        after = receipt_rows(lake, table, after=told[0].sequence_number - 1)
        versions = dict(zip(after["sequence_number"].to_pylist(), after["version"].to_pylist(), strict=True))
    rows = []
    for c in told:
        events = [event for f in c.receipt.files_of("gaps") for event in _read_sidecar(f.path).to_pylist()]
        stamp = {"snapshot_id": c.snapshot_id, "version": versions.get(c.sequence_number)}
        first = c.sequence_number * EVENTS_PER_COMMIT
        rows += [{**event, **stamp, "event_number": first + i} for i, event in enumerate(events)]
    return pa.Table.from_pylist(rows, schema=GAPS.arrow_schema())


def _read_sidecar(path: str) -> pa.Table:
    try:
        return pq.read_table(path, partitioning=None)
    except OSError as error:
        raise Damaged(f"sidecar {path}: {error}; its receipt names it") from error


def last_vector(lake: Lake, table: Table, until: int, table_uuid: str) -> Vector:
    """C at the last collected receipt, read back from audit.receipts."""
    if until == 0:
        return Vector(0, Offsets(), None)
    this = And(EqualTo("table_name", table.name), EqualTo("sequence_number", until), EqualTo("table_uuid", table_uuid))
    columns = ("sequence_number", "offsets", "commit_time")
    rows = lake.load(RECEIPTS).scan(this, selected_fields=columns).to_arrow().to_pylist()
    if not rows:
        raise NotFound(f"audit.receipts says it holds {table.name} up to receipt {until}, but that row is not there")
    offsets = {(o["topic"], o["kafka_partition"]): Position(o["kafka_epoch"], o["next"]) for o in rows[0]["offsets"]}
    return Vector(until, Offsets(offsets), rows[0]["commit_time"])


def _receipt_rows(lake: Lake, audit: Head, source: Head, fresh: Sequence[Committed]) -> pa.Table:
    vector = last_vector(lake, source.table, collected_until(audit, source), source.table_uuid)
    offsets, time = vector.offsets, vector.commit_time
    rows = []
    for committed in fresh:
        offsets = fold_offsets(offsets, committed.receipt)
        time = max(time, committed.snapshot_time) if time else committed.snapshot_time
        rows.append(_receipt_row(committed, offsets, time))
    return pa.Table.from_pylist(rows, schema=RECEIPTS.arrow_schema())


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
        "ranges": [asdict(r) for r in receipt.ranges],
        "files": [asdict(f) for f in receipt.files],
        "dates": [asdict(d) for d in receipt.dates],
        "offsets": vector,
        "version": offsets.version,
        "reverted": receipt.reverted,
        "precision_upgrades": receipt.precision_upgrades,
        "receipt_path": committed.path,
        "receipt_sha256": committed.sha256,
        "who": receipt.who,
        "why": receipt.why,
    }
