"""The commit protocol: files first, each durable, then one fenced transaction of rows, offsets, state and receipt."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io.pyarrow import parquet_file_to_data_file, schema_to_pyarrow
from pyiceberg.table import Table as IcebergTable

from k2_core.contracts import Table
from k2_core.errors import Damaged, FencedOut
from k2_core.offsets import Offsets
from k2_core.receipts import Committed, FileEntry, Receipt
from k2_core.states import STATE_SCHEMA, state_from, state_table
from k2_core.verdict import State
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake, offsets_in
from k2_resources.lake.durable import write_bytes, write_parquet
from k2_resources.lake.fence import CONTRACT_KEY, SWEPT_KEY, Fence, offset_key, paused_key, state_key, topic_key
from k2_resources.lake.receipts import RECEIPT_SUMMARY, receipt_of, summary_of

ATTEMPTS_MAX = 10
"""Times a commit that lost only to maintenance is tried again; each attempt already holds pyiceberg's own retries."""


@dataclass(frozen=True)
class Head:
    """What one load of a table says to a writer: everything a batch plans from, and the fence compares."""

    table: Table
    loaded: IcebergTable
    offsets: Offsets

    def property(self, key: str) -> str | None:
        value: str | None = self.loaded.properties.get(key)
        return value

    def is_paused(self, topic: str, kafka_partition: int) -> bool:
        return self.property(paused_key(topic, kafka_partition)) is not None


@dataclass(frozen=True)
class Change:
    """All that one commit brings. `properties` are further k2.* keys to set; what a commit sets is fenced, too."""

    receipt: Receipt
    rows: pa.Table | None = None
    dead_letters: pa.Table | None = None
    gaps: pa.Table | None = None
    states: Mapping[str, State] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)


def head(lake: Lake, table: Table) -> Head:
    """Load the head once. Raises NotFound."""
    loaded = lake.load(table)
    return Head(table, loaded, offsets_in(loaded.properties))


def read_state(at: Head, topic: str) -> State:
    """Sequence state of one topic as the head names it. Raises Damaged when its file is gone or another one."""
    path = at.property(state_key(topic))
    if path is None:
        return {}
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise Damaged(f"state file of {topic}: {path}: {error.strerror}") from error
    found, named = hashlib.sha256(content).hexdigest(), PurePath(path).stem.rpartition("-")[2]
    if found != named:
        raise Damaged(f"state file of {topic}: {path}: SHA-256 is {found}, its name says {named}")
    return state_from(pq.read_table(io.BytesIO(content)))


def commit(lake: Lake, at: Head, change: Change) -> Committed:
    """Commit once: rows, next offsets, state and receipt in one fenced transaction.

    Raises FencedOut when another writer changed what the batch relied on; then nothing of it is in the table.
    """
    data = _write_data(at, change.rows)
    reach("data_written")
    sidecars = _write_sidecars(at, change)
    reach("sidecars_written")
    states = _write_states(at, change.states)
    reach("state_written")
    receipt = replace(change.receipt, files=(*data, *sidecars, *(entry for _, entry in states.items())))
    path = _path(at, "receipts", "json")
    sha256 = write_bytes(path, receipt.to_json())
    reach("receipt_written")
    properties = {
        **{offset_key(t, p): str(position) for (t, p), position in receipt.ends().items()},
        **{state_key(topic): entry.path for topic, entry in states.items()},
        **change.properties,
    }
    fence = Fence(table=at.table.name, expected={key: at.property(key) for key in _relied_on(receipt, properties)})
    return _publish(lake, at, _Swap([f.path for f in data], properties, fence, receipt.summary(path, sha256), path))


def _relied_on(receipt: Receipt, properties: Mapping[str, str]) -> set[str]:
    topics = {r.topic for r in receipt.ranges}
    paused = {paused_key(r.topic, r.kafka_partition) for r in receipt.ranges}
    return {*properties, *map(topic_key, topics), *map(state_key, topics), *paused, CONTRACT_KEY, SWEPT_KEY}


@dataclass(frozen=True)
class _Swap:
    """What the catalog is told: files, properties, the fence, and the receipt by which the commit is recognised."""

    paths: Sequence[str]
    properties: dict[str, str]
    fence: Fence
    summary: str
    receipt_path: str


def _publish(lake: Lake, at: Head, swap: _Swap) -> Committed:
    """Swap the head. A conflict with maintenance is tried again; an unknown outcome is looked up, never guessed."""
    loaded = at.loaded
    for _ in range(ATTEMPTS_MAX):
        try:
            reach("committing")
            _transact(loaded, swap.paths, swap.properties, swap.fence, {RECEIPT_SUMMARY: swap.summary})
        except CommitFailedException:
            loaded = lake.load(at.table)
            continue
        except Exception:  # a lost answer, a lost lock, a fence: only the history knows what happened
            if (landed := _landed(lake, at.table, swap.receipt_path)) is None:
                raise
            return landed
        reach("committed")
        found = _landed(lake, at.table, swap.receipt_path)
        assert found is not None, "a commit that succeeded is in the history"
        return found
    raise FencedOut(f"{at.table.name}: {ATTEMPTS_MAX} attempts lost to other commits; plan again")


def _transact(
    loaded: IcebergTable, paths: Sequence[str], properties: dict[str, str], fence: Fence, summary: dict[str, str]
) -> None:
    """Append and set properties as one commit. Without files only a receipt is worth a snapshot."""
    transaction = loaded.transaction()
    transaction._stage((), (fence,))  # type: ignore[arg-type]  # any requirement that can validate itself will do
    if paths or summary:
        with transaction.update_snapshot(snapshot_properties=summary).merge_append() as append:
            for path in paths:
                append.append_data_file(parquet_file_to_data_file(loaded.io, loaded.metadata, path))
    transaction.set_properties(properties)
    transaction.commit_transaction()


def _landed(lake: Lake, table: Table, receipt_path: str) -> Committed | None:
    """Look a commit up by the receipt it names: the only proof that it happened."""
    loaded = lake.load(table)
    for snapshot in sorted(loaded.metadata.snapshots, key=lambda s: s.sequence_number or 0, reverse=True):
        if receipt_path in summary_of(snapshot).get(RECEIPT_SUMMARY, ""):
            return receipt_of(loaded, snapshot)
    return None


def _write_data(at: Head, rows: pa.Table | None) -> list[FileEntry]:
    """One file per table partition, rows in contract order."""
    if rows is None or not len(rows):
        return []
    if at.table.partition is None:
        return [_write_table(at, rows, "data")]
    values = rows[at.table.partition]
    days = sorted(pc.unique(values).to_pylist())
    return [_write_table(at, rows.filter(pc.equal(values, day)), f"data/{day}") for day in days]


def _write_table(at: Head, rows: pa.Table, folder: str) -> FileEntry:
    schema = schema_to_pyarrow(at.loaded.schema(), include_field_ids=True)
    path = f"{at.loaded.location()}/{folder}/{uuid.uuid4()}.parquet"
    return FileEntry("data", path, len(rows), write_parquet(path, rows.select(schema.names).cast(schema)))


def _write_sidecars(at: Head, change: Change) -> list[FileEntry]:
    entries = []
    for kind, rows in (("dead_letters", change.dead_letters), ("gaps", change.gaps)):
        if rows is not None and len(rows):
            path = _path(at, kind, "parquet")
            entries.append(FileEntry(kind, path, len(rows), write_parquet(path, rows)))  # type: ignore[arg-type]
    return entries


def _write_states(at: Head, states: Mapping[str, State]) -> dict[str, FileEntry]:
    entries = {}
    for topic, state in states.items():
        rows, content = state_table(state), io.BytesIO()
        assert rows.schema.equals(STATE_SCHEMA)
        pq.write_table(rows, content)
        # its name holds its digest, and no name is used twice: a reader sees tampering, the fence sees every commit
        sha256 = hashlib.sha256(content.getvalue()).hexdigest()
        path = f"{at.loaded.location()}/k2/state/{uuid.uuid4().hex}-{sha256}.parquet"
        entries[topic] = FileEntry("state", path, len(rows), write_bytes(path, content.getvalue()))
    return entries


def _path(at: Head, folder: str, ending: str) -> str:
    return f"{at.loaded.location()}/k2/{folder}/{uuid.uuid4()}.{ending}"


def append_once(at: Head, rows: pa.Table | None, key: str, value: str) -> None:
    """Append rows and move one k2.* key, both or neither. Raises FencedOut, CommitFailedException."""
    data = _write_data(at, rows)
    fence = Fence(table=at.table.name, expected={key: at.property(key)})
    _transact(at.loaded, [f.path for f in data], {key: value}, fence, {})
