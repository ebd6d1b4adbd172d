"""What a proof is made from: a table and the audit tables, each loaded once, and its receipts in commit order.

A proof may run while others commit. Files are listed first, then the audit tables are loaded, then the table itself:
what is listed and named by nothing was not committed by then, and every receipt the audit tables say they hold is in
the history found after. What was committed since is beyond their collected key and not judged. What was forgotten
since takes files with it that were still due here: `is_outdated` says so, and a proof starts again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pyiceberg.expressions import EqualTo
from pyiceberg.table import Table as IcebergTable

from k2_core.contracts import AUDIT, RECEIPTS, Table
from k2_core.errors import Damaged
from k2_core.protocol.collect import collected_until
from k2_core.protocol.ports import Head
from k2_core.receipts import Committed, DateRows, FileEntry, Imbalance, MovedRows, RangeCount, Receipt
from k2_resources.lake.catalog import Lake
from k2_resources.lake.receipts import ordered_snapshots, receipt_of

Row = Mapping[str, Any]

_OURS = ("data", "k2/dead_letters", "k2/gaps", "k2/receipts", "k2/state")
"""Folders of a table that only commits write to."""


@dataclass(frozen=True)
class Life:
    """A data file between two commits: the one that put it in, and the one that took it out; None while it is there."""

    entry: FileEntry
    came: int
    went: int | None


@dataclass(frozen=True)
class Evidence:
    """One table at its head, and what the audit tables held just before.

    stored: path and rows of every data file of the head, as often as the head holds it. originals: the receipts of
    retained snapshots, by sequence number. copies: the rows of audit.receipts. history: all receipts in commit order,
    originals where there are any, copies otherwise. former: receipts of dropped tables that had this name. files:
    what lay in the folders of the table before anything was loaded. findings: snapshots whose receipt or manifests
    cannot be read.
    """

    table: Table
    files: frozenset[str]
    source: Head
    audits: Mapping[str, Head]
    stored: tuple[tuple[str, int], ...]
    history: tuple[Committed, ...]
    originals: Mapping[int, Committed]
    copies: tuple[Row, ...]
    former: tuple[Committed, ...]
    findings: tuple[Imbalance, ...]

    @property
    def loaded(self) -> IcebergTable:
        """The table as it was loaded."""
        loaded: IcebergTable = self.source.loaded
        return loaded

    @property
    def receipts(self) -> list[Receipt]:
        return [c.receipt for c in self.history]

    def until(self, audit: Table) -> int:
        """Sequence number of the last receipt an audit table says it holds."""
        return collected_until(self.audits[audit.name], self.source)

    def collected(self, audit: Table) -> list[Committed]:
        """The receipts whose rows an audit table holds."""
        until = self.until(audit)
        return [c for c in self.history if c.sequence_number <= until]

    @cached_property
    def lives(self) -> Mapping[str, Life]:
        """When each data file that a receipt names came, and went. One a receipt names twice is told once."""
        found: dict[str, Life] = {}
        for c in self.history:
            found |= {f.path: Life(f, c.sequence_number, None) for f in c.receipt.files_of("data")}
            for f in c.receipt.replaced:
                if f.path in found:
                    found[f.path] = replace(found[f.path], went=c.sequence_number)
        return found

    def is_held(self, life: Life) -> bool:
        """Whether a retained snapshot refers to a data file: the head, or one that came before it was replaced."""
        if life.went is None:
            return True
        numbers = (s.sequence_number or 0 for s in self.loaded.metadata.snapshots)
        return any(life.came <= number < life.went for number in numbers)

    def may_be_gone(self, committed: Committed) -> bool:
        """Whether its sidecars may: the snapshot expired, and every audit table holds a copy."""
        is_copied = all(committed.sequence_number <= self.until(audit) for audit in AUDIT)
        return is_copied and committed.sequence_number not in self.originals

    def is_outdated(self, lake: Lake) -> bool:
        """Whether snapshots that were loaded have been forgotten since, and their files may be gone."""
        return any(
            {s.snapshot_id for s in head.loaded.metadata.snapshots}
            - {s.snapshot_id for s in lake.load(head.table).metadata.snapshots}
            for head in (self.source, *self.audits.values())
        )


def gather(lake: Lake, table: Table) -> Evidence:
    """Load everything a proof needs, once. Raises NotFound."""
    files = _listed(Path(lake.load(table).location()))
    audits = {audit.name: lake.head(audit) for audit in reversed(AUDIT)}
    source = lake.head(table)
    loaded = source.loaded
    originals, findings = _originals(table, loaded)
    findings += _lost_manifests(table, loaded)
    of_name = audits[RECEIPTS.name].loaded.scan(EqualTo("table_name", table.name)).to_arrow()
    rows = of_name.sort_by("sequence_number").to_pylist()
    copies = [row for row in rows if row["table_uuid"] == str(loaded.metadata.table_uuid)]
    receipts = {row["sequence_number"]: committed_of_row(row) for row in copies} | originals
    return Evidence(
        table=table,
        files=frozenset(files),
        source=source,
        audits=audits,
        stored=_stored(loaded),
        history=tuple(receipts[number] for number in sorted(receipts)),
        originals=originals,
        copies=tuple(copies),
        former=tuple(committed_of_row(row) for row in rows if row["table_uuid"] != str(loaded.metadata.table_uuid)),
        findings=tuple(findings),
    )


def _listed(location: Path) -> Collection[str]:
    return [str(path) for folder in _OURS for path in (location / folder).rglob("*") if path.is_file()]


def _stored(loaded: IcebergTable) -> tuple[tuple[str, int], ...]:
    """Path and rows of every data file of the head, of those manifests that are there."""
    head = loaded.current_snapshot()
    if head is None or not Path(head.manifest_list).exists():
        return ()
    manifests = [m for m in head.manifests(loaded.io) if Path(m.manifest_path).exists()]
    entries = (entry for m in manifests for entry in m.fetch_manifest_entry(loaded.io))
    return tuple((entry.data_file.file_path, entry.data_file.record_count) for entry in entries)


def _lost_manifests(table: Table, loaded: IcebergTable) -> list[Imbalance]:
    """Manifest lists and manifests that a retained snapshot refers to and that are not there."""
    lost: dict[str, int] = {}
    for snapshot in ordered_snapshots(loaded):
        if not Path(snapshot.manifest_list).exists():
            lost[snapshot.manifest_list] = snapshot.snapshot_id
            continue
        for manifest in snapshot.manifests(loaded.io):
            if not Path(manifest.manifest_path).exists():
                lost[manifest.manifest_path] = snapshot.snapshot_id
    return [Imbalance(path, f"is not there; snapshot {by} of {table.name} refers to it") for path, by in lost.items()]


def _originals(table: Table, loaded: IcebergTable) -> tuple[dict[int, Committed], list[Imbalance]]:
    """Receipts of the retained snapshots by sequence number; a snapshot without a readable one is a finding."""
    found: dict[int, Committed] = {}
    findings = []
    for snapshot in ordered_snapshots(loaded):
        where = f"{table.name} snapshot {snapshot.snapshot_id}"
        try:
            committed = receipt_of(loaded, snapshot)
        except (Damaged, ValueError, TypeError, KeyError) as error:
            findings.append(Imbalance(where, f"its receipt cannot be read: {error}"))
            continue
        if committed is None:
            findings.append(Imbalance(where, "carries no K2 receipt"))
        else:
            found[committed.sequence_number] = committed
    return found, findings


def committed_of_row(row: Row) -> Committed:
    """A row of audit.receipts as the commit it tells of; its time is the running maximum."""
    return Committed(
        receipt_of_row(row),
        row["table_uuid"],
        row["snapshot_id"],
        row["sequence_number"],
        row["commit_time"],
        row["receipt_path"],
        row["receipt_sha256"],
    )


def receipt_of_row(row: Row) -> Receipt:
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
        replaced=tuple(FileEntry(**f) for f in row.get("replaced") or ()),
        moved=tuple(MovedRows(**m) for m in row.get("moved") or ()),
    )
