"""Small files folded into larger ones: an audit table gains a file of a few rows with every copy, for ever.

Files are folded 32 at a time with the rows that come next, those again when there are 32 of them, and so on: after
n copies there are some 32 log32(n) files, and each row was written log32(n) times. The fold is the append itself, so
it is fenced like one, and readers see the same rows before and after.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile, ManifestEntryStatus
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from k2_core.protocol.ports import Head
from k2_resources.lake.manifests import entries_of, manifests_of
from k2_resources.lake.receipts import summary_of

FILES_MIN = 32
"""Files of about the same rows that are folded into one."""
_LOOK_EVERY = 8
"""Appends between two looks into the manifests, which cost as much as the append."""
_FILE_BYTES_MAX = 4 * 2**20
"""Larger files are no burden to a scan, and 32 of them would be one to memory: letters hold whatever was sent."""


def outgrown(audit: Head) -> list[DataFile]:
    """Files to write anew as one, together with what comes next; mostly none."""
    snapshot = audit.loaded.current_snapshot()
    files = 0 if snapshot is None else int(summary_of(snapshot).get("total-data-files", 0))
    if files < FILES_MIN or files % _LOOK_EVERY:
        return []
    levels: dict[tuple[object, int], list[DataFile]] = defaultdict(list)
    for file in _files(audit.loaded, snapshot) if snapshot else ():
        if file.file_size_in_bytes <= _FILE_BYTES_MAX:
            levels[file.partition, _level(file.record_count)].append(file)
    return next((files for files in levels.values() if len(files) >= FILES_MIN), [])


def folded(files: Sequence[DataFile], rows: pa.Table) -> pa.Table:
    """The rows of some files and further ones as one table."""
    if not files:
        return rows
    stored = [_read(file.file_path, rows.schema) for file in files]
    return pa.concat_tables([*stored, rows], promote_options="default").select(rows.schema.names).cast(rows.schema)


def _read(path: str, schema: pa.Schema) -> pa.Table:
    """A file with the columns it has of a schema; what was added to the table since is missing."""
    rows = pq.read_table(path, partitioning=None)
    known = pa.schema([field for field in schema if field.name in rows.column_names])
    return rows.select(known.names).cast(known)


def _level(rows: int) -> int:
    """0 below 32 rows, 1 below 1024, ..."""
    return (rows.bit_length() - 1) // 5


def _files(loaded: IcebergTable, head: Snapshot) -> Iterable[DataFile]:
    for manifest in manifests_of(head, loaded.io):
        for entry in entries_of(manifest, loaded.io):
            if entry.status != ManifestEntryStatus.DELETED:
                yield entry.data_file
