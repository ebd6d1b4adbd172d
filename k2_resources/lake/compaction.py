"""Rewriting data files: many small ones become few sorted ones, in one fenced commit that moves rows and changes none.

A rewrite trusts nothing it read: each file taken out must be, byte for byte, what the receipt of its commit says, so
that no altered row is ever given a new receipt; and the rows of the files put in are counted from their bytes. It races
with batches without harm: they only add files, and another rewrite moves `k2.compacted`, which the fence compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, LessThanOrEqual
from pyiceberg.manifest import DataFile, ManifestEntry, ManifestEntryStatus
from pyiceberg.table import Table as IcebergTable

from k2_core.compaction import (
    LINEAGE_KEY,
    Group,
    Limits,
    Slice,
    StoredFile,
    bundles,
    counted,
    groups,
    moved,
    slices,
)
from k2_core.contracts import CONTRACT_VERSION, RECEIPTS, Table
from k2_core.errors import Damaged, FencedOut
from k2_core.keys import COMPACTED_KEY
from k2_core.protocol.commit import commit
from k2_core.protocol.ports import Change, Head, Staged
from k2_core.provenance import LogPartition
from k2_core.receipts import FileEntry, Receipt
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake
from k2_resources.lake.durable import Written, sha256_of, write_bytes
from k2_resources.lake.fence import Fence
from k2_resources.lake.files import ColumnBounds
from k2_resources.lake.layout import data_file, layout_of
from k2_resources.lake.ledger import IcebergLedger, transact
from k2_resources.lake.manifests import entries_of, manifests_of
from k2_resources.lake.receipts import RECEIPT_SUMMARY, known_receipt, receipt_of
from k2_resources.lake.staging import write_data

PLANS_MAX = 5
"""Plans lost to a rival before a run gives up: the rival does the same work."""


@dataclass(frozen=True)
class Rewritten:
    """What one commit rewrote."""

    table: str
    dates: tuple[date, ...]
    files_in: int
    files_out: int
    rows: int
    snapshot_id: int


def compact(
    lake: Lake,
    table: Table,
    limits: Limits,
    open_date: date,
    *,
    run_id: str,
    code_version: str,
    is_time_up: Callable[[], bool] = lambda: False,
) -> Iterator[Rewritten]:
    """Rewrite what is worth it, yielding each commit. open_date: the first exchange date that is not closed.

    Raises Damaged, after all else is done, for files that are not what their receipts say; those stay as they are.
    Raises FencedOut when rivals won too often. Stops between two commits once the time is up; the next run goes on.
    """
    receipt = Receipt(table.name, "maintenance", run_id, code_version, CONTRACT_VERSION, ())
    damage: dict[tuple[Group, ...], Damaged] = {}
    for _ in range(PLANS_MAX):
        try:
            planned = groups(stored_files(lake.head(table)), open_date, limits)
            for bundle in bundles(planned, limits.rows_max):
                if is_time_up():
                    break
                if bundle in damage:
                    continue
                try:
                    yield _rewrite(lake, table, bundle, limits, receipt)
                except Damaged as error:
                    damage[bundle] = error
        except (FencedOut, FileNotFoundError):  # the head of the plan was forgotten while it was read
            continue
        if damage:
            raise next(iter(damage.values()))
        return
    raise FencedOut(f"{table.name}: {PLANS_MAX} plans to rewrite files were lost to rivals")


def stored_files(at: Head) -> list[StoredFile]:
    """The data files of a head, as a plan needs them."""
    return [_stored_file(at.loaded, entry) for entry in _alive(at.loaded)]


def _alive(loaded: IcebergTable) -> Iterator[ManifestEntry]:
    head = loaded.current_snapshot()
    for manifest in manifests_of(head, loaded.io) if head else ():
        yield from (e for e in entries_of(manifest, loaded.io) if e.status != ManifestEntryStatus.DELETED)


def _stored_file(loaded: IcebergTable, entry: ManifestEntry) -> StoredFile:
    file = entry.data_file
    first, last = ColumnBounds(loaded, file.lower_bounds), ColumnBounds(loaded, file.upper_bounds)
    return StoredFile(
        path=file.file_path,
        sequence_number=entry.sequence_number or 0,
        exchange_date=date.fromordinal(date(1970, 1, 1).toordinal() + first.of("exchange_date")),
        rows=file.record_count,
        is_sorted=file.sort_order_id is not None,
        is_mixed=first.of("revision") != last.of("revision") and first.of("revision") == 0,
    )


def _rewrite(lake: Lake, table: Table, bundle: Sequence[Group], limits: Limits, receipt: Receipt) -> Rewritten:
    at = lake.head(table)
    number = str(int(at.property(COMPACTED_KEY) or 0) + 1)
    told = replace(receipt, why="rewritten: " + "; ".join(map(str, bundle)))
    try:
        landed = commit(Compactor(lake, bundle, limits), at, Change(told, properties={COMPACTED_KEY: number}))
    except (Damaged, OSError) as error:
        if _is_outdated(lake, at):
            raise FencedOut(f"{table.name}: {error}; it was forgotten meanwhile, plan again") from error
        raise
    done = landed.committed.receipt
    return Rewritten(
        table.name,
        tuple(group.exchange_date for group in bundle),
        len(done.replaced),
        len(done.files),
        done.rows_moved,
        landed.committed.snapshot_id,
    )


def _is_outdated(lake: Lake, at: Head) -> bool:
    """Whether snapshots of a head were forgotten since, and with them files it could still read."""
    now = {s.snapshot_id for s in lake.load(at.table).metadata.snapshots}
    return any(s.snapshot_id not in now for s in at.loaded.metadata.snapshots)


@dataclass(frozen=True)
class _Rewrite:
    """Files of a staged rewrite: those that come, and those that go."""

    data: tuple[DataFile, ...]
    replaced: tuple[DataFile, ...]


class Compactor(IcebergLedger):
    """The ledger as a rewrite commits to it: files come in the place of others, in one snapshot."""

    def __init__(self, lake: Lake, bundle: Sequence[Group], limits: Limits) -> None:
        super().__init__(lake)
        self._bundle, self._limits = bundle, limits

    def stage(self, at: Head, change: Change) -> Staged:
        """Write the rows of the bundle anew, and the receipt. Raises Damaged, FencedOut."""
        stored = {entry.data_file.file_path: entry.data_file for entry in _alive(at.loaded)}
        taken = [file for group in self._bundle for file in group.files]
        if gone := [file.path for file in taken if file.path not in stored]:
            raise FencedOut(f"{at.table.name}: {gone[0]} was rewritten meanwhile; plan again")
        originals = _proven(self.lake, at, taken)
        before, after = Counter[LogPartition](), Counter[LogPartition]()
        data, entries = [], []
        for group in self._bundle:
            files = _dataset(at, group)
            before += _counted(files)
            for written in _written(at, group, files, self._limits.rows_max):
                after += counted(pq.read_table(written.path, columns=list(LINEAGE_KEY), partitioning=None))
                data.append(data_file(at.loaded, written, _order_of(at, group)))
                entries.append(FileEntry("data", written.path, written.rows, written.sha256))
        if before != after:
            raise Damaged(f"{at.table.name}: {before} rows were read, {after} written; nothing was committed")
        reach("data_written")
        receipt = replace(change.receipt, files=tuple(entries), replaced=originals, moved=moved(before, after))
        path = f"{at.loaded.location()}/k2/receipts/{uuid4()}.json"
        summary = {RECEIPT_SUMMARY: receipt.summary(path, write_bytes(path, receipt.to_json()))}
        reach("receipt_written")
        replaced = tuple(stored[file.path] for file in taken)
        return Staged(receipt, path, change.properties, summary, _Rewrite(tuple(data), replaced))

    def _transacted(self, at: Head, staged: Staged, fence: Fence) -> IcebergTable:
        files = staged.handle
        return transact(at.loaded, files.data, staged.properties, fence, staged.summary, replaced=files.replaced)


def _order_of(at: Head, group: Group) -> int | None:
    return at.loaded.metadata.default_sort_order_id if group.closes else None


def _proven(lake: Lake, at: Head, files: Sequence[StoredFile]) -> tuple[FileEntry, ...]:
    """The files as the receipts of their commits name them, each proven to be that. Raises Damaged."""
    named = _named(lake, at, {file.sequence_number for file in files})
    found = []
    for file in files:
        entry = named.get(file.path)
        if entry is None:
            raise Damaged(f"{file.path} is in {at.table.name}, but no receipt names it; it is not rewritten")
        try:
            digest = sha256_of(file.path)
        except OSError as error:
            raise Damaged(f"{file.path}: {error.strerror}; {at.table.name} holds it") from error
        if (digest, file.rows) != (entry.sha256, entry.rows):
            told = f"SHA-256 is {digest}, rows {file.rows}; its receipt says {entry.sha256}, {entry.rows}"
            raise Damaged(f"{file.path}: {told}. It is not rewritten; see `k2 verify`.")
        found.append(entry)
    return tuple(found)


def _named(lake: Lake, at: Head, numbers: set[int]) -> dict[str, FileEntry]:
    """Data files of some commits by path: from the copies of their receipts, and from those not copied yet."""
    this = And(
        EqualTo("table_name", at.table.name),
        EqualTo("table_uuid", at.table_uuid),
        GreaterThanOrEqual("sequence_number", min(numbers)),
        LessThanOrEqual("sequence_number", max(numbers)),
    )
    rows = lake.load(RECEIPTS).scan(this, selected_fields=("sequence_number", "files")).to_arrow().to_pylist()
    copied = {row["sequence_number"]: row["files"] for row in rows}
    entries = [FileEntry(**file) for number in numbers & copied.keys() for file in copied[number]]
    for snapshot in at.loaded.metadata.snapshots:
        if snapshot.sequence_number in numbers - copied.keys():
            committed = receipt_of(at.loaded, snapshot, known_receipt)
            entries += committed.receipt.files if committed else ()
    return {entry.path: entry for entry in entries if entry.kind == "data"}


def _dataset(at: Head, group: Group) -> ds.Dataset:
    """The files of a group as one; columns that came to the table after a file was written are null in it."""
    return ds.dataset([file.path for file in group.files], schema=layout_of(at.loaded).schema, format="parquet")


def _counted(files: ds.Dataset) -> Counter[LogPartition]:
    found = Counter[LogPartition]()
    for batch in files.to_batches(columns=list(LINEAGE_KEY)):
        found += counted(pa.Table.from_batches([batch]))
    return found


def _written(at: Head, group: Group, files: ds.Dataset, rows_max: int) -> Iterator[Written]:
    """Write the rows of a group in order, first versions and revisions apart: the common read opens only the former."""
    revisions = []
    for part in _slices(at, group, files, rows_max):
        rows = _ordered(at, files.to_table(filter=part))
        is_first = pc.equal(rows["revision"], 0)
        yield from write_data(at, rows.filter(is_first))
        revisions.append(rows.filter(pc.invert(is_first)))
    yield from write_data(at, _ordered(at, pa.concat_tables(revisions)))


def _ordered(at: Head, rows: pa.Table) -> pa.Table:
    """By the sort of the contract, nulls first, as the sort order of the table says; ties as they were committed."""
    keys = {}
    for name in at.table.sort:
        if rows[name].null_count:
            keys[f"{name} is there"] = pc.is_valid(rows[name])
        keys[name] = rows[name]
    return rows.take(pc.sort_indices(pa.table(keys), [(name, "ascending") for name in keys]))


def _slices(at: Head, group: Group, files: ds.Dataset, rows_max: int) -> Sequence[pc.Expression | None]:
    if group.rows <= rows_max:
        return [None]
    lead, *others = at.table.sort
    counts: Counter[object] = Counter()
    for batch in files.to_batches(columns=[lead]):
        values, numbers = pc.value_counts(batch[lead]).flatten()
        counts.update(dict(zip(values.to_pylist(), numbers.to_pylist(), strict=True)))

    def seconds(value: object) -> npt.NDArray[np.int64]:
        if not others:
            return np.empty(0, np.int64)
        column = files.to_table(columns=others[:1], filter=pc.field(lead) == value)[others[0]]
        found: npt.NDArray[np.int64] = column.cast(_whole(column.type)).to_numpy().astype(np.int64)
        return found

    return [_filter(part, files.schema, lead, others) for part in slices(counts, rows_max, seconds)]


def _whole(type_: pa.DataType) -> pa.DataType:
    """The integers a time or a date is stored as."""
    return pa.int32() if pa.types.is_date32(type_) else pa.int64()


def _filter(part: Slice, schema: pa.Schema, lead: str, others: Sequence[str]) -> pc.Expression:
    this = (pc.field(lead) >= part.first) & (pc.field(lead) <= part.last)
    for edge, is_start in ((part.start, True), (part.end, False)):
        if edge is not None:
            type_ = schema.field(others[0]).type
            at = pa.scalar(edge, _whole(type_)).cast(type_)
            this &= pc.field(others[0]) >= at if is_start else pc.field(others[0]) < at
    return this
