"""Receipts as snapshots carry them: a summary entry that names the receipt file and its SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from k2_core.errors import Damaged
from k2_core.keys import PREFIX
from k2_core.receipts import Committed, Receipt

RECEIPT_SUMMARY = f"{PREFIX}receipt"


def from_ms(timestamp_ms: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)


def summary_of(snapshot: Snapshot) -> dict[str, str]:
    """The summary as plain words, the operation among them."""
    summary = snapshot.summary
    return {} if summary is None else {"operation": summary.operation.value, **summary.additional_properties}


def ordered_snapshots(loaded: IcebergTable) -> list[Snapshot]:
    """The retained history in commit order."""
    return sorted(loaded.metadata.snapshots, key=lambda s: s.sequence_number or 0)


def receipts_of(loaded: IcebergTable, after: int = 0) -> list[Committed]:
    """Receipts of the retained snapshots past one sequence number, in commit order. Raises Damaged."""
    late = (s for s in ordered_snapshots(loaded) if (s.sequence_number or 0) > after)
    return [c for c in (receipt_of(loaded, s, known_receipt) for s in late) if c is not None]


def receipt_of(
    loaded: IcebergTable, snapshot: Snapshot, read: Callable[[str, str], Receipt] | None = None
) -> Committed | None:
    """The receipt of one snapshot, its file read and proven; None where nobody left one. Raises Damaged."""
    brief = summary_of(snapshot).get(RECEIPT_SUMMARY)
    if brief is None:
        return None
    entry = json.loads(brief)
    return Committed(
        (read or read_receipt)(entry["file"], entry["sha256"]),
        str(loaded.metadata.table_uuid),
        snapshot.snapshot_id,
        snapshot.sequence_number or 0,
        from_ms(snapshot.timestamp_ms),
        entry["file"],
        entry["sha256"],
    )


def read_receipt(path: str, sha256: str) -> Receipt:
    """Read a receipt file and prove it is the one the snapshot names. Raises Damaged."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise Damaged(f"receipt {path}: {error.strerror}; its snapshot names it") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise Damaged(f"receipt {path}: SHA-256 is {found}, its snapshot says {sha256}")
    return Receipt.from_json(content)


@lru_cache(maxsize=256)
def known_receipt(path: str, sha256: str) -> Receipt:
    """A receipt as it was when this process first read it: enough to go on with, no proof of what is there now.

    Each is asked for by every audit table that waits for a sidecar, dozens of commits on end. Raises Damaged.
    """
    return read_receipt(path, sha256)
