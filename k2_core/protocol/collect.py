"""Copy receipts and sidecars to the audit tables, each exactly once, each fenced on its own collected key."""

from __future__ import annotations

from k2_core.contracts import RECEIPTS, Table
from k2_core.errors import Damaged, FencedOut
from k2_core.keys import SWEPT_KEY, collected_key
from k2_core.protocol.collected import COLLECTED, collected_until
from k2_core.protocol.ports import Head, Ledger, Outpaced, Reach
from k2_core.protocol.retain import trim

__all__ = ["COLLECTED", "collect", "collected_until"]

ATTEMPTS_MAX = 5
"""Rival collectors do the same work; whoever loses a race finds less left to do."""
IDLE_RECEIPTS_MAX = 32
"""Receipts without a sidecar that pass before an audit table moves its key anyway: expiry waits for it."""


def collect(ledger: Ledger, table: Table, reach: Reach, source: Head | None = None, fewest: int = 1) -> int:
    """Copy everything not copied yet; returns the number of receipts that were new to audit.receipts.

    source: the head to collect from, when it was just made. fewest: receipts that are worth a commit of the audit
    table; fewer wait for the next time. Repeatable; runs after a commit and at the start of a run.
    """
    source = source or ledger.head(table)
    if fewest > 1 and _waiting(ledger, source) < fewest:
        return 0
    fresh, told = 0, 0
    for audit in COLLECTED:
        copied, told = _collect_into(ledger, source, audit, reach, told)
        fresh = copied if audit is RECEIPTS else fresh
    return fresh


def _waiting(ledger: Ledger, source: Head) -> int:
    until = collected_until(ledger.head(RECEIPTS), source)
    return sum(1 for mark in ledger.snapshots(source) if mark.sequence_number > until)


def _collect_into(ledger: Ledger, source: Head, audit: Table, reach: Reach, told: int) -> tuple[int, int]:
    for attempt in range(ATTEMPTS_MAX):
        try:
            return _collect_once(ledger, source, audit, reach, told)
        except (FencedOut, Outpaced):
            continue
        except Damaged:  # a rival copied what the files say, and they were forgotten since; or they are truly gone
            if attempt == ATTEMPTS_MAX - 1:
                raise
            source = ledger.head(source.table)
    raise FencedOut(f"{audit.name}: {ATTEMPTS_MAX} attempts to collect {source.table.name} lost to rivals")


def _collect_once(ledger: Ledger, source: Head, audit: Table, reach: Reach, told: int) -> tuple[int, int]:
    """Returns how many receipts were copied, and the sequence number the audit tables after this one may go up to."""
    at = ledger.head(audit)
    if trim(ledger, at):
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
