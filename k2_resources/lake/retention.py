"""Forgetting: snapshots, and the files only they referred to. pyiceberg's own expiry deletes none."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from k2_core.errors import Damaged
from k2_core.keys import state_key
from k2_core.protocol.ports import Head, Outpaced
from k2_resources.lake.catalog import Lake
from k2_resources.lake.durable import delete
from k2_resources.lake.receipts import RECEIPT_SUMMARY, receipt_of, summary_of

_FOLDERS = ("data", "metadata", "k2")
"""Folders under a table's location that K2 writes to."""


def expire(lake: Lake, at: Head, snapshot_ids: Sequence[int]) -> None:
    """Forget snapshots, then delete what only they referred to. Raises Outpaced.

    A crash between the two leaves files that a sweep finds.
    """
    going = [s for s in at.loaded.metadata.snapshots if s.snapshot_id in set(snapshot_ids)]
    doomed = _files_of_snapshots(at.loaded, going)
    try:
        at.loaded.maintenance.expire_snapshots().by_ids(list(snapshot_ids)).commit()
    except CommitFailedException as error:
        raise Outpaced(f"{at.table.name}: {error}") from error
    after = lake.head(at.table)
    if after.loaded.snapshot_by_id(snapshot_ids[0]) is None:
        delete(sorted(doomed - _referenced(after)))


def unreferenced(at: Head) -> Sequence[str]:
    """Files under the table that no retained snapshot, no property and no metadata of it refers to."""
    location = Path(at.loaded.location())
    found = {str(path) for folder in _FOLDERS for path in (location / folder).rglob("*") if path.is_file()}
    return sorted(found - _referenced(at) - _metadata_log(at.loaded))


def _referenced(at: Head) -> set[str]:
    """Every file a retained snapshot or a property of the head names, found from the head alone."""
    states = {value for key, value in at.properties.items() if key.startswith(state_key("")[: -len(".0")])}
    return states | _files_of_snapshots(at.loaded, at.loaded.metadata.snapshots)


def _metadata_log(loaded: IcebergTable) -> set[str]:
    return {loaded.metadata_location, *(entry.metadata_file for entry in loaded.metadata.metadata_log)}


def _files_of_snapshots(loaded: IcebergTable, snapshots: Collection[Snapshot]) -> set[str]:
    manifests = {m.manifest_path: m for s in snapshots for m in s.manifests(loaded.io)}
    return {
        *(s.manifest_list for s in snapshots),
        *manifests,
        *_data_files(loaded, manifests.values()),
        *(path for s in snapshots for path in _k2_files(loaded, s)),
    }


def _data_files(loaded: IcebergTable, manifests: Iterable[ManifestFile]) -> set[str]:
    """Files that are alive in a manifest; one it says was deleted belongs to the snapshots before."""
    entries = (e for m in manifests for e in m.fetch_manifest_entry(loaded.io, discard_deleted=False))
    return {e.data_file.file_path for e in entries if e.status != ManifestEntryStatus.DELETED}


def _k2_files(loaded: IcebergTable, snapshot: Snapshot) -> list[str]:
    """Receipt, sidecars and state of one commit; its data files are in the manifests."""
    if RECEIPT_SUMMARY not in summary_of(snapshot):
        return []
    try:
        committed = receipt_of(loaded, snapshot)
    except Damaged:  # `k2 verify` names it; what it would have named is left to a sweep
        return []
    assert committed is not None, "the summary was just looked at"
    return [committed.path, *(f.path for f in committed.receipt.files if f.kind != "data")]
