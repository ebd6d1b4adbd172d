"""Iceberg tables as the protocol's ledger: compare-and-swap over their properties plus receipts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table import Transaction

from k2_core.contracts import Table
from k2_core.protocol.ports import Change, Expected, Head, Landed, Outpaced, SnapshotMark, Staged
from k2_core.receipts import Committed
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake, head_of
from k2_resources.lake.copies import copies
from k2_resources.lake.durable import delete
from k2_resources.lake.fence import Fence
from k2_resources.lake.receipts import RECEIPT_SUMMARY, ordered_snapshots, receipt_of, receipts_of, summary_of
from k2_resources.lake.retention import expire, unreferenced
from k2_resources.lake.staging import stage, write_data


class IcebergLedger:
    """The lake as the protocol commits to it. Holds no state of its own."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def head(self, table: Table) -> Head:
        """Load the head once. Raises NotFound, Unreachable."""
        return self.lake.head(table)

    def stage(self, at: Head, change: Change) -> Staged:
        """Write every file of a change durably; nothing refers to them yet."""
        return stage(at, change)

    def swap(self, at: Head, staged: Staged, expected: Expected) -> Landed:
        """Commit once, fenced. A race lost to maintenance only is tried again by pyiceberg itself."""
        fence = Fence(table=at.table.name, expected=dict(expected))
        reach("committing")
        after = _transact(at.loaded, staged.handle.paths, staged.properties, fence, staged.summary)
        reach("committed")
        landed = self.landed(head_of(at.table, after), staged)
        assert landed is not None, "a commit that succeeded is in the history"
        return landed

    def landed(self, at: Head, staged: Staged) -> Landed | None:
        """Look a staged change up by the receipt file that only it names."""
        for snapshot in reversed(ordered_snapshots(at.loaded)):
            if staged.receipt_path in summary_of(snapshot).get(RECEIPT_SUMMARY, ""):
                committed = receipt_of(at.loaded, snapshot)
                assert committed is not None, "the summary was just looked at"
                return Landed(committed, at)
        return None

    def receipts(self, at: Head, after: int) -> Sequence[Committed]:
        """Receipts of the retained snapshots past one sequence number, in commit order. Raises Damaged."""
        return receipts_of(at.loaded, after)

    def copies(self, audit: Head, source: Head, fresh: Sequence[Committed]) -> pa.Table:
        """What an audit table has to hold of these receipts."""
        return copies(self.lake, audit, source, fresh)

    def append(self, audit: Head, copies: Any, properties: Mapping[str, str], expected: Expected) -> None:
        """Append copies and set properties, both or neither. Raises FencedOut, Outpaced."""
        paths = [f.path for f in write_data(audit, copies)]
        _transact(audit.loaded, paths, properties, Fence(table=audit.table.name, expected=dict(expected)), {})

    def snapshots(self, at: Head) -> Sequence[SnapshotMark]:
        """The retained history, oldest first."""
        return [SnapshotMark(s.snapshot_id, s.sequence_number or 0) for s in ordered_snapshots(at.loaded)]

    def expire(self, at: Head, snapshot_ids: Sequence[int]) -> None:
        """Forget snapshots, then delete what only they referred to. Raises Outpaced."""
        expire(self.lake, at, snapshot_ids)

    def unreferenced(self, at: Head) -> Sequence[str]:
        """Files under the table that nothing refers to."""
        return unreferenced(at)

    def delete(self, at: Head, files: Sequence[str]) -> None:
        """Delete files; one that is gone already is no error."""
        delete(files)


def _transact(
    loaded: IcebergTable,
    paths: Sequence[str],
    properties: Mapping[str, str | None],
    fence: Fence,
    summary: Mapping[str, str],
) -> IcebergTable:
    """Append and set properties as one commit. Without files only a receipt is worth a snapshot. Raises Outpaced."""
    transaction = Transaction(loaded)
    transaction._stage((), (fence,))  # type: ignore[arg-type]  # any requirement that can validate itself will do
    if paths or summary:
        with transaction.update_snapshot(snapshot_properties=dict(summary)).merge_append() as append:
            for path in paths:
                append.append_data_file(parquet_file_to_data_file(loaded.io, loaded.metadata, path))
    if kept := {key: value for key, value in properties.items() if value is not None}:
        transaction.set_properties(kept)
    if gone := [key for key, value in properties.items() if value is None]:
        transaction.remove_properties(*gone)
    try:
        return transaction.commit_transaction()
    except CommitFailedException as error:
        raise Outpaced(f"{fence.table}: {error}") from error
