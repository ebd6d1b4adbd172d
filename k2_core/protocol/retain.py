"""What may be forgotten, and when: snapshots whose receipts are copied, files nobody can come back for."""

from __future__ import annotations

from collections.abc import Sequence

from k2_core.contracts import Table
from k2_core.keys import SWEPT_KEY
from k2_core.protocol.collected import COLLECTED, collected_until
from k2_core.protocol.commit import commit
from k2_core.protocol.ports import Change, Head, Ledger, Outpaced
from k2_core.receipts import Receipt

SNAPSHOTS_MAX = 100
"""Snapshots of a table. A commit copies its whole history several times: 20 ms without one, 70 at 100, 670 at 1,000."""
SNAPSHOTS_KEPT = 50
"""What is left after an expiry, so that one commit in fifty pays for it."""


def expire(ledger: Ledger, at: Head) -> int:
    """Forget the oldest snapshots once there are too many and every audit table holds their receipts.

    Returns how many. A rival that expires or commits at the same time is no loss: there is a next time.
    """
    marks = ledger.snapshots(at)
    if len(marks) < SNAPSHOTS_MAX:
        return 0
    collected = min(collected_until(ledger.head(audit), at) for audit in COLLECTED)
    return _forget(ledger, at, [m.snapshot_id for m in marks[:-SNAPSHOTS_KEPT] if m.sequence_number <= collected])


def trim(ledger: Ledger, audit: Head) -> int:
    """Forget the oldest snapshots of an audit table once there are too many: nobody copies anything from it."""
    marks = ledger.snapshots(audit)
    if len(marks) < SNAPSHOTS_MAX:
        return 0
    return _forget(ledger, audit, [m.snapshot_id for m in marks[:-SNAPSHOTS_KEPT]])


def _forget(ledger: Ledger, at: Head, snapshot_ids: Sequence[int]) -> int:
    if snapshot_ids:
        try:
            ledger.expire(at, snapshot_ids)
        except Outpaced:
            return 0
    return len(snapshot_ids)


def sweep(ledger: Ledger, table: Table, *, run_id: str, code_version: str, contract_version: str) -> int:
    """Delete files of crashed and defeated writers; returns how many.

    What is listed before the sweep number rises was written by somebody who planned before it, and is fenced out; what
    landed in between is referred to by the head after it.
    """
    at = ledger.head(table)
    found = set(ledger.unreferenced(at))
    if not found:
        return 0
    number = int(at.property(SWEPT_KEY) or 0) + 1
    receipt = Receipt(table.name, "maintenance", run_id, code_version, contract_version, ())
    after = commit(ledger, at, Change(receipt, properties={SWEPT_KEY: str(number)})).head
    lost = sorted(found & set(ledger.unreferenced(after)))
    ledger.delete(after, lost)
    return len(lost)
