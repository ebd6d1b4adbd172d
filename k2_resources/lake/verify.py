"""Prove a table from the tables alone: receipts balance, ranges are contiguous, files are what receipts say.

Reads metadata, receipts and file bytes, never a row; what needs rows (unique keys) is asked of a query engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyiceberg.expressions import EqualTo

from k2_core.contracts import DEAD_LETTERS, Table
from k2_core.errors import Damaged
from k2_core.offsets import Offsets
from k2_core.receipts import (
    Committed,
    DateRows,
    FileEntry,
    Imbalance,
    RangeCount,
    Receipt,
    check_ranges,
    fold_offsets,
)
from k2_resources.lake.catalog import Lake, offsets_in
from k2_resources.lake.durable import sha256_of
from k2_resources.lake.receipts import receipt_of, receipts_of
from k2_resources.lake.scans import receipt_rows


@dataclass(frozen=True)
class Proof:
    """What was proven of one table: the sums, and everything that does not add up."""

    table: str
    snapshot_id: int | None
    version: str
    receipts: int
    read: int
    written: int
    duplicates: int
    revisions: int
    dead: int
    rows: int
    orphans: int
    findings: tuple[Imbalance, ...]


def verify(lake: Lake, table: Table) -> Proof:
    """Prove one table at its head. Raises NotFound when it does not exist, Damaged when a receipt is unreadable."""
    loaded = lake.load(table)
    state = lake.state(table)
    assert state is not None
    receipts, findings = all_receipts(lake, table)
    ranges = [r for receipt in receipts for r in receipt.ranges]
    files = lake.files(table, state.snapshot_id) if state.snapshot_id is not None else ()
    stored = {f.path: f.rows for f in files}
    named = {f.path: f for receipt in receipts for f in receipt.files}
    findings += check_ranges(receipts)
    findings += _offsets(table, receipts, offsets_in(loaded.properties))
    findings += _files(table, named, stored)
    findings += _snapshots(lake, table)
    findings += _dead_letters(lake, table, receipts)
    rows = sum(stored.values())
    if rows != (stored_rows := sum(r.stored for r in ranges)):
        findings.append(Imbalance(table.name, f"holds {rows} rows, but its receipts stored {stored_rows}"))
    return Proof(
        table=table.name,
        snapshot_id=state.snapshot_id,
        version=state.offsets.version,
        receipts=len(receipts),
        read=sum(r.read for r in ranges),
        written=sum(r.written for r in ranges),
        duplicates=sum(r.duplicates for r in ranges),
        revisions=sum(r.revisions for r in ranges),
        dead=sum(r.dead for r in ranges),
        rows=rows,
        orphans=_orphans(loaded.location(), {*named, *stored}),
        findings=tuple(findings),
    )


def all_receipts(lake: Lake, table: Table) -> tuple[list[Receipt], list[Imbalance]]:
    """All receipts in commit order: the collected ones, then what the collector has not reached.

    With them, every collected one that differs from its receipt file.
    """
    rows = receipt_rows(lake, table).to_pylist()
    findings = [
        Imbalance(f"audit.receipts {table.name} {row['sequence_number']}", "is there more than once")
        for row, following in itertools.pairwise(rows)
        if row["sequence_number"] == following["sequence_number"]
    ]
    last = rows[-1]["sequence_number"] if rows else 0
    collected = [receipt_of_row(row) for row in rows]
    retained = {c.sequence_number: c for c in receipts_of(lake.load(table))}
    for row, receipt in zip(rows, collected, strict=True):
        original = retained.get(row["sequence_number"])
        if original is not None and not _same(original, receipt):
            where = f"audit.receipts {table.name} {row['sequence_number']}"
            findings.append(Imbalance(where, "differs from its receipt file"))
    return [*collected, *(c.receipt for s, c in sorted(retained.items()) if s > last)], findings


def _same(original: Committed, receipt: Receipt) -> bool:
    return replace(original.receipt, contract_version="") == replace(receipt, contract_version="")


def receipt_of_row(row: dict[str, Any]) -> Receipt:
    """A row of audit.receipts as the receipt it was copied from; the contract version is not copied."""
    return Receipt(
        table=row["table_name"],
        kind=row["kind"],
        run_id=row["run_id"],
        code_version=row["code_version"],
        contract_version="",
        ranges=tuple(RangeCount(**r) for r in row["ranges"]),
        schema_ids=tuple(row["schema_ids"]),
        files=tuple(FileEntry(**f) for f in row["files"]),
        dates=tuple(DateRows(**d) for d in row["dates"]),
        reverted=row["reverted"],
        precision_upgrades=row["precision_upgrades"],
        who=row["who"],
        why=row["why"],
    )


def _offsets(table: Table, receipts: Sequence[Receipt], head: Offsets) -> list[Imbalance]:
    folded = Offsets()
    try:
        for receipt in receipts:
            folded = fold_offsets(folded, receipt)
    except ValueError as error:
        return [Imbalance(table.name, f"a receipt goes back: {error}")]
    if folded == head:
        return []
    differ = sorted(k for k in {*folded.positions, *head.positions} if folded.positions.get(k) != head.positions.get(k))
    at, end = head.positions, folded.positions
    return [
        Imbalance(f"{t}[{p}]", f"{table.name} is at {at.get((t, p))}, its receipts end at {end.get((t, p))}")
        for t, p in differ
    ]


def _files(table: Table, named: dict[str, FileEntry], stored: dict[str, int]) -> list[Imbalance]:
    """Every named data file is in the table with its rows, every file there is named, all bytes are as written."""
    data = {path: entry for path, entry in named.items() if entry.kind == "data"}
    strangers, lost = sorted(stored.keys() - data.keys()), sorted(data.keys() - stored.keys())
    found = [Imbalance(path, f"is in {table.name} but no receipt names it") for path in strangers]
    found += [Imbalance(path, f"a receipt names it, but {table.name} lost it") for path in lost]
    for path, entry in sorted(named.items()):
        if entry.kind == "data" and stored.get(path, entry.rows) != entry.rows:
            found.append(Imbalance(path, f"holds {stored[path]} rows, its receipt says {entry.rows}"))
        if entry.kind != "state":
            found += _bytes(path, entry)
    return found


def _bytes(path: str, entry: FileEntry) -> list[Imbalance]:
    try:
        digest = sha256_of(path)
    except OSError as error:
        return [Imbalance(path, f"{error.strerror}; its receipt names it as {entry.kind}")]
    return [] if digest == entry.sha256 else [Imbalance(path, f"SHA-256 is {digest}, its receipt says {entry.sha256}")]


def _snapshots(lake: Lake, table: Table) -> list[Imbalance]:
    loaded = lake.load(table)
    found = []
    for snapshot in loaded.metadata.snapshots:
        try:
            if receipt_of(loaded, snapshot) is None:
                found.append(Imbalance(f"{table.name} snapshot {snapshot.snapshot_id}", "carries no K2 receipt"))
        except Damaged as error:
            found.append(Imbalance(f"{table.name} snapshot {snapshot.snapshot_id}", str(error)))
    return found


def _dead_letters(lake: Lake, table: Table, receipts: Sequence[Receipt]) -> list[Imbalance]:
    """Dead letters counted in collected receipts are in audit.dead_letters, each once."""
    columns = ("kafka_topic", "kafka_epoch", "kafka_partition", "kafka_offset")
    letters = lake.load(DEAD_LETTERS).scan(EqualTo("table_name", table.name), selected_fields=columns).to_arrow()
    found = len(letters)
    different = len(letters.group_by(list(columns)).aggregate([]))
    expected = sum(r.dead for r in receipts)
    problems = []
    if different != found:
        problems.append(Imbalance("audit.dead_letters", f"{found - different} letters of {table.name} are there twice"))
    if found != expected:
        problems.append(
            Imbalance("audit.dead_letters", f"{found} letters of {table.name}; its receipts count {expected}")
        )
    return problems


def _orphans(location: str, named: set[str]) -> int:
    """Files that no receipt names: what a killed writer left behind. Harmless; counted, not a finding."""
    root = Path(location)
    here = (str(p) for folder in ("data", "k2/dead_letters", "k2/gaps") for p in (root / folder).rglob("*.parquet"))
    return sum(1 for path in here if path not in named)
