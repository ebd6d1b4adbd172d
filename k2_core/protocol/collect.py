"""Copy receipts and sidecars to the audit tables, each exactly once, each fenced on its own collected key."""

from __future__ import annotations

from k2_core.contracts import DEAD_LETTERS, GAPS, RECEIPTS, Table
from k2_core.errors import FencedOut
from k2_core.keys import SWEPT_KEY, collected_key
from k2_core.protocol.ports import Head, Ledger, Outpaced, Reach

ATTEMPTS_MAX = 5
"""Rival collectors do the same work; whoever loses a race finds less left to do."""
IDLE_RECEIPTS_MAX = 32
"""Receipts without a sidecar that pass before an audit table moves its key anyway: expiry waits for it."""
COLLECTED = (RECEIPTS, DEAD_LETTERS, GAPS)
"""Receipts first: the rows of a sidecar name the version that only its receipt's copy knows."""


def collect(ledger: Ledger, table: Table, reach: Reach, source: Head | None = None) -> int:
    """Copy everything not copied yet; returns the number of receipts that were new to audit.receipts.

    source: the head to collect from, when it was just made. Repeatable; runs after a commit and at the start of a run.
    """
    source = source or ledger.head(table)
    fresh, told = 0, 0
    for audit in COLLECTED:
        copied, told = _collect_into(ledger, source, audit, reach, told)
        fresh = copied if audit is RECEIPTS else fresh
    return fresh


def _collect_into(ledger: Ledger, source: Head, audit: Table, reach: Reach, told: int) -> tuple[int, int]:
    for _ in range(ATTEMPTS_MAX):
        try:
            return _collect_once(ledger, source, audit, reach, told)
        except (FencedOut, Outpaced):
            continue
    raise FencedOut(f"{audit.name}: {ATTEMPTS_MAX} attempts to collect {source.table.name} lost to rivals")


def _collect_once(ledger: Ledger, source: Head, audit: Table, reach: Reach, told: int) -> tuple[int, int]:
    """Returns how many receipts were copied, and the sequence number the audit tables after this one may go up to."""
    at = ledger.head(audit)
    until = collected_until(at, source)
    fresh = [c for c in ledger.receipts(source, until) if audit is RECEIPTS or c.sequence_number <= told]
    if not fresh:
        return 0, told or until
    copies = ledger.copies(at, source, fresh)
    if not len(copies) and len(fresh) < IDLE_RECEIPTS_MAX:
        return 0, told
    reach(f"collecting_{audit.short_name}")
    key, last = collected_key(source.table.name), fresh[-1]
    expected = {key: at.property(key), SWEPT_KEY: at.property(SWEPT_KEY)}
    ledger.append(at, copies, {key: f"{last.table_uuid}:{last.sequence_number}"}, expected)
    reach(f"collected_{audit.short_name}")
    return len(fresh), told or last.sequence_number


def collected_until(audit: Head, source: Head) -> int:
    """Sequence number of the last receipt an audit table holds of one table; 0 for a table that is another one now."""
    value = audit.property(collected_key(source.table.name))
    if value is None:
        return 0
    table_uuid, sequence_number = value.rsplit(":", 1)
    return int(sequence_number) if table_uuid == source.table_uuid else 0
