"""Which files hold a snapshot, for readers: manifests never change, so each is read once, whichever snapshot lists it.

A new snapshot lists the manifests of its parent and a few new ones: planning it costs those few.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from cachetools import LRUCache
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from k2_core.contracts import Table
from k2_core.errors import Damaged
from k2_resources.lake.files import DataFileEntry, FieldIds, file_entry
from k2_resources.lake.manifests import manifests_of

_FILES_MAX = 200_000
"""Files whose bounds stay in memory, of some 1 kB each: all of a table's history that is not compacted."""

_planning = threading.Lock()
_planned: LRUCache[tuple[str, int], tuple[DataFileEntry, ...]] = LRUCache(
    _FILES_MAX, getsizeof=lambda files: max(1, len(files))
)
"""Files by manifest and by the schema whose names their bounds were read with."""


def planned_files(loaded: IcebergTable, snapshot: Snapshot) -> tuple[DataFileEntry, ...]:
    """Every data file of a snapshot, in the order of its manifests. Raises OSError, and Damaged for delete files.

    K2 never writes delete files, and a reader of data files alone would show rows that another engine deleted.
    """
    files: list[DataFileEntry] = []
    for manifest in manifests_of(snapshot, loaded.io):
        if manifest.content == ManifestContent.DATA:
            files += _files_in(loaded, manifest)
        elif manifest.has_added_files() or manifest.has_existing_files():
            raise Damaged(
                f"{'.'.join(loaded.name())}: snapshot {snapshot.snapshot_id} has delete files, which K2 does not read; "
                "rewrite the table without them"
            )
    return tuple(files)


def field_ids(loaded: IcebergTable, table: Table) -> FieldIds:
    """The field id of each column of a contract, where files of the table may differ in their columns; else none.

    A column the table does not have yet has an id that no file holds.
    """
    schema = loaded.schema()
    names = [column.name for column in table.columns]
    if schema.schema_id == 0 and len(loaded.metadata.schemas) == 1 and set(names) <= set(schema.column_names):
        return ()
    ids = {field.name: field.field_id for field in schema.fields}
    unused = loaded.metadata.last_column_id + 1
    return tuple((name, ids.get(name, unused + i)) for i, name in enumerate(names))


def _files_in(loaded: IcebergTable, manifest: ManifestFile) -> Sequence[DataFileEntry]:
    key = manifest.manifest_path, loaded.metadata.current_schema_id
    with _planning:
        known = _planned.get(key)
    if known is not None:
        return known
    entries = manifest.fetch_manifest_entry(loaded.io, discard_deleted=True)
    files = tuple(file_entry(loaded, entry.data_file) for entry in entries)
    with _planning:
        if len(files) <= _FILES_MAX:
            _planned[key] = files
    return files
