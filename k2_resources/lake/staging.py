"""The files of a commit: data, sidecars, state, receipt; each durable before anybody is told of it."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile

from k2_core.errors import Damaged
from k2_core.keys import offset_key, state_key
from k2_core.protocol.ports import Change, Head, Staged
from k2_core.receipts import FileEntry
from k2_core.states import STATE_SCHEMA, state_from, state_table
from k2_core.verdict import State
from k2_resources.failpoints import reach
from k2_resources.lake.durable import Written, write_bytes, write_parquet
from k2_resources.lake.layout import data_file, layout_of
from k2_resources.lake.receipts import RECEIPT_SUMMARY


@dataclass(frozen=True)
class Files:
    """Data files of a staged change, in the order they are appended."""

    data: tuple[DataFile, ...]


def stage(at: Head, change: Change) -> Staged:
    """Write every file of a change durably. Raises OSError when the disk does not take one."""
    written = write_data(at, change.rows)
    data = [FileEntry("data", w.path, w.rows, w.sha256) for w in written]
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
    summary = {RECEIPT_SUMMARY: receipt.summary(path, sha256)}
    return Staged(receipt, path, properties, summary, Files(tuple(data_file(at.loaded, w) for w in written)))


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


def write_data(at: Head, rows: pa.Table | None) -> list[Written]:
    """Write one file per table partition, rows in contract order."""
    if rows is None or not len(rows):
        return []
    if at.table.partition is None:
        return [_write_table(at, rows, "data")]
    values = rows[at.table.partition]
    days = sorted(pc.unique(values).to_pylist())
    return [
        _write_table(at, rows if len(days) == 1 else rows.filter(pc.equal(values, day)), f"data/{day}") for day in days
    ]


def _write_table(at: Head, rows: pa.Table, folder: str) -> Written:
    layout = layout_of(at.loaded)
    path = f"{at.loaded.location()}/{folder}/{uuid.uuid4()}.parquet"
    return write_parquet(path, rows.select(layout.schema.names).cast(layout.schema), layout.bounded)


def _write_sidecars(at: Head, change: Change) -> list[FileEntry]:
    entries = []
    for kind, rows in (("dead_letters", change.dead_letters), ("gaps", change.gaps)):
        if rows is not None and len(rows):
            path = _path(at, kind, "parquet")
            entries.append(FileEntry(kind, path, len(rows), write_parquet(path, rows).sha256))  # type: ignore[arg-type]
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
