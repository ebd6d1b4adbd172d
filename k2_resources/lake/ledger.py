"""Iceberg tables as the protocol's ledger: compare-and-swap over their properties plus receipts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table import Transaction

from k2_core.contracts import Table
from k2_core.protocol.ports import Change, Expected, Head, Landed, Outpaced, SnapshotMark, Staged
from k2_core.receipts import Committed
from k2_resources.failpoints import reach
from k2_resources.lake import manifests
from k2_resources.lake.catalog import Lake, head_of
from k2_resources.lake.copies import Copies, copies
from k2_resources.lake.durable import delete
from k2_resources.lake.fence import Fence
from k2_resources.lake.folding import folded, outgrown
from k2_resources.lake.layout import data_file
from k2_resources.lake.receipts import (
    RECEIPT_SUMMARY,
    known_receipt,
    ordered_snapshots,
    receipt_of,
    receipts_of,
    summary_of,
)
from k2_resources.lake.retention import expire, unreferenced
from k2_resources.lake.staging import stage, write_data


class IcebergLedger:
    """The lake as the protocol commits to it. Holds nothing that the lake does not say better, only sooner."""

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
        after = self._transacted(at, staged, fence)
        landed = self.landed(head_of(at.table, after), staged)
        assert landed is not None, "a commit that succeeded is in the history"
        return landed

    def _transacted(self, at: Head, staged: Staged, fence: Fence) -> IcebergTable:
        return transact(at.loaded, staged.handle.data, staged.properties, fence, staged.summary)

    def landed(self, at: Head, staged: Staged) -> Landed | None:
        """Look a staged change up by the receipt file that only it names."""
        for snapshot in reversed(ordered_snapshots(at.loaded)):
            if staged.receipt_path in summary_of(snapshot).get(RECEIPT_SUMMARY, ""):
                committed = receipt_of(at.loaded, snapshot, known_receipt)
                assert committed is not None, "the summary was just looked at"
                return Landed(committed, at)
        return None

    def receipts(self, at: Head, after: int) -> Sequence[Committed]:
        """Receipts of the retained snapshots past one sequence number, in commit order. Raises Damaged."""
        return receipts_of(at.loaded, after)

    def copies(self, audit: Head, source: Head, fresh: Sequence[Committed]) -> Copies:
        """What an audit table has to hold of these receipts."""
        return copies(self.lake, audit, source, fresh)

    def append(self, audit: Head, copies: Any, properties: Mapping[str, str], expected: Expected) -> None:
        """Append copies and set properties, both or neither. Raises FencedOut, Outpaced, Unreachable."""
        with self._outpaced_when_forgotten(audit):
            self._append(audit, copies, properties, expected)

    def _append(self, audit: Head, copies: Copies, properties: Mapping[str, str], expected: Expected) -> None:
        small = outgrown(audit) if len(copies) else []
        written = write_data(audit, folded(small, copies.rows))
        properties = {**copies.properties, **properties}
        expected = {**{key: audit.property(key) for key in copies.properties}, **expected}
        fence = Fence(table=audit.table.name, expected=expected)
        transact(audit.loaded, [data_file(audit.loaded, w) for w in written], properties, fence, {}, replaced=small)

    def snapshots(self, at: Head) -> Sequence[SnapshotMark]:
        """The retained history, oldest first."""
        return [SnapshotMark(s.snapshot_id, s.sequence_number or 0) for s in ordered_snapshots(at.loaded)]

    def expire(self, at: Head, snapshot_ids: Sequence[int]) -> None:
        """Forget snapshots, then delete what only they referred to. Raises Outpaced."""
        with self._outpaced_when_forgotten(at):
            expire(self.lake, at, snapshot_ids)

    def unreferenced(self, at: Head) -> Sequence[str]:
        """Files under the table that nothing refers to. Raises Outpaced when they changed under its eyes."""
        with self._outpaced_when_forgotten(at):
            found = unreferenced(at)
        reach("sweeping")
        return found

    def delete(self, at: Head, files: Sequence[str]) -> None:
        """Delete files; one that is gone already is no error."""
        reach("deleting")
        delete(files)
        reach("swept")

    @contextmanager
    def _outpaced_when_forgotten(self, at: Head) -> Iterator[None]:
        """A file that a head names and that is gone is no damage once others went on from there."""
        before = at.loaded.metadata_location
        try:
            yield
        except FileNotFoundError as error:
            if self.lake.pointer(at.table) == before:
                raise
            raise Outpaced(f"{at.table.name}: {error}; it was forgotten meanwhile") from error


def transact(
    loaded: IcebergTable,
    files: Sequence[DataFile],
    properties: Mapping[str, str | None],
    fence: Fence,
    summary: Mapping[str, str],
    *,
    replaced: Sequence[DataFile] = (),
    produce: Callable[[Transaction, Mapping[str, str]], manifests.Producer] | None = None,
) -> IcebergTable:
    """Append and set properties as one commit. Without files only a receipt is worth a snapshot. Raises Outpaced."""
    produce = produce or (manifests.replace if replaced else manifests.append)
    transaction = Transaction(loaded)
    transaction._stage((), (fence,))  # type: ignore[arg-type]  # any requirement that can validate itself will do
    producer = None
    if files or summary:
        with produce(transaction, summary) as producer:
            for file in files:
                producer.append_data_file(file)
            for file in replaced:
                producer.delete_data_file(file)
    if kept := {key: value for key, value in properties.items() if value is not None}:
        transaction.set_properties(kept)
    if gone := [key for key, value in properties.items() if value is None]:
        transaction.remove_properties(*gone)
    try:
        after = transaction.commit_transaction()
    except (CommitFailedException, ValidationException) as error:
        raise Outpaced(f"{fence.table}: {error}") from error
    if producer is not None and (own := after.snapshot_by_id(producer.snapshot_id)) is not None:
        delete(producer.remember(own))
    return after
