"""Forgetting: snapshots, and the files only they referred to. pyiceberg's own expiry deletes none.

What goes with a snapshot follows from how a history grows: a snapshot's manifests are those of its parent or new ones,
so one that the oldest retained snapshot does not list is listed by none. Where the history is not such a line (a
branch, a tag, a rollback), all that is retained is read. Data files stay: a reader that planned from a snapshot before
it expired may be reading them for a while yet, so they are left to the sweep (`orphans`), which waits.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from k2_core.contracts import AUDIT, INGESTED
from k2_core.errors import Damaged
from k2_core.keys import state_key
from k2_core.protocol.collected import collected_until
from k2_core.protocol.ports import Head, Ledger, Outpaced
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake
from k2_resources.lake.durable import delete
from k2_resources.lake.manifests import entries_of, manifests_of
from k2_resources.lake.receipts import (
    RECEIPT_SUMMARY,
    from_ms,
    known_receipt,
    ordered_snapshots,
    receipt_of,
    summary_of,
)

_FOLDERS = ("data", "metadata", "k2")
"""Folders under a table's location that K2 writes to."""
_STATE = state_key("").rpartition(".")[0]
"""What the names of the properties that name state files begin with."""


def expire(lake: Lake, at: Head, snapshot_ids: Sequence[int]) -> None:
    """Forget snapshots but those a branch or a tag names, then delete what only they referred to. Raises Outpaced.

    Manifests, receipts and sidecars go; a crash before that leaves them to a sweep, as data files are.
    """
    named = {ref.snapshot_id for ref in at.loaded.metadata.refs.values()}
    old = set(snapshot_ids) - named
    going = [s for s in ordered_snapshots(at.loaded) if s.snapshot_id in old]
    if not going:
        return
    doomed = _only_of(at.loaded, going)
    reach("expiring")
    try:
        at.loaded.maintenance.expire_snapshots().by_ids([s.snapshot_id for s in going]).commit()
    except CommitFailedException as error:
        raise Outpaced(f"{at.table.name}: {error}") from error
    except ValueError as error:  # a rival forgot some of them between our load and our commit
        if any(lake.load(at.table).snapshot_by_id(s.snapshot_id) is None for s in going):
            raise Outpaced(f"{at.table.name}: {error}") from error
        raise
    reach("expired")
    after = lake.head(at.table)
    if all(after.loaded.snapshot_by_id(s.snapshot_id) is None for s in going):
        delete(sorted(doomed - _states(after)))
    reach("forgotten")


def forget(ledger: Ledger, at: Head, before: datetime) -> int:
    """Forget the snapshots made before a time, and what only they referred to; returns how many.

    The head stays, and what a branch or a tag names, and of a table that topics feed everything that is not in every
    audit table yet. A rival that commits or forgets at the same time is no loss: there is a next time.
    """
    named = {ref.snapshot_id for ref in at.loaded.metadata.refs.values()}
    copied = min(collected_until(ledger.head(audit), at) for audit in AUDIT) if at.table in INGESTED else None
    old = [
        s.snapshot_id
        for s in ordered_snapshots(at.loaded)
        if from_ms(s.timestamp_ms) < before
        and s.snapshot_id not in named
        and (copied is None or (s.sequence_number or 0) <= copied)
    ]
    try:
        ledger.expire(at, old)
    except Outpaced:
        return 0
    return len(old)


def unreferenced(at: Head) -> list[str]:
    """Files under the table that no retained snapshot, no property and no metadata of it refers to."""
    return sorted(_listed(at.loaded) - referenced(at) - _metadata_log(at.loaded))


def referenced(at: Head) -> set[str]:
    """Every file a retained snapshot or a property of the head names, found from the head alone."""
    return _states(at) | _files_of(at.loaded, at.loaded.metadata.snapshots)


def _listed(loaded: IcebergTable) -> set[str]:
    location = Path(loaded.location())
    return {str(path) for folder in _FOLDERS for path in (location / folder).rglob("*") if path.is_file()}


def _states(at: Head) -> set[str]:
    return {value for key, value in at.properties.items() if key.startswith(_STATE)}


def _metadata_log(loaded: IcebergTable) -> set[str]:
    return {loaded.metadata_location, *(entry.metadata_file for entry in loaded.metadata.metadata_log)}


def _only_of(loaded: IcebergTable, going: Sequence[Snapshot]) -> set[str]:
    """Files that snapshots to be forgotten refer to and no other does; state files the head names among them."""
    kept = [s for s in ordered_snapshots(loaded) if s not in going]
    if not kept or not _is_line(loaded, going, kept[0]):
        return _metadata_of(loaded, going) - _metadata_of(loaded, kept)
    first = {m.manifest_path for m in manifests_of(kept[0], loaded.io)}
    return _metadata_of(loaded, going) - first


def _is_line(loaded: IcebergTable, going: Sequence[Snapshot], first: Snapshot) -> bool:
    """Whether every snapshot is the parent of the next, the forgotten ones before all others."""
    history = ordered_snapshots(loaded)
    follows = all(b.parent_snapshot_id == a.snapshot_id for a, b in itertools.pairwise(history))
    return follows and history[: len(going) + 1] == [*going, first] and len(loaded.metadata.refs) == 1


def _files_of(loaded: IcebergTable, snapshots: Collection[Snapshot]) -> set[str]:
    manifests = {m.manifest_path: m for s in snapshots for m in manifests_of(s, loaded.io)}
    entries = (e for m in manifests.values() for e in entries_of(m, loaded.io))
    alive = {e.data_file.file_path for e in entries if e.status != ManifestEntryStatus.DELETED}
    return _metadata_of(loaded, snapshots) | alive


def _metadata_of(loaded: IcebergTable, snapshots: Collection[Snapshot]) -> set[str]:
    """What snapshots are told by: manifest lists, manifests, receipts, sidecars, state files; no data files."""
    return {
        *(s.manifest_list for s in snapshots),
        *(m.manifest_path for s in snapshots for m in manifests_of(s, loaded.io)),
        *(path for s in snapshots for path in _k2_files(loaded, s)),
    }


def _k2_files(loaded: IcebergTable, snapshot: Snapshot) -> list[str]:
    """Receipt, sidecars and state of one commit; its data files are in the manifests."""
    if RECEIPT_SUMMARY not in summary_of(snapshot):
        return []
    try:
        committed = receipt_of(loaded, snapshot, known_receipt)
    except Damaged:  # `k2 verify` names it; what it would have named is left to a sweep
        return []
    assert committed is not None, "the summary was just looked at"
    return [committed.path, *(f.path for f in committed.receipt.files if f.kind != "data")]
