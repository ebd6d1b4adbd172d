"""How far the audit tables are: the key on each that says which receipt of a table it holds last."""

from __future__ import annotations

from k2_core.contracts import DEAD_LETTERS, GAPS, RECEIPTS
from k2_core.keys import collected_key
from k2_core.protocol.ports import Head

COLLECTED = (RECEIPTS, DEAD_LETTERS, GAPS)
"""Receipts first: the rows of a sidecar name the version that only its receipt's copy knows."""


def collected_until(audit: Head, source: Head) -> int:
    """Sequence number of the last receipt an audit table holds of one table; 0 for a table that is another one now."""
    value = audit.property(collected_key(source.table.name))
    if value is None:
        return 0
    table_uuid, sequence_number = value.rsplit(":", 1)
    return int(sequence_number) if table_uuid == source.table_uuid else 0
