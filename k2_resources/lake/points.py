"""Points of a table's history: the commit that reached a version, and the last one before an instant.

The copies of receipts tell all that was collected, for ever; what was not collected yet is retained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pyiceberg.expressions import (
    And,
    BooleanExpression,
    EqualTo,
    GreaterThan,
    LessThanOrEqual,
    NotEqualTo,
)
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from k2_core.contracts import Table
from k2_core.offsets import Offsets
from k2_resources.lake.copies import Vector, vector_key
from k2_resources.lake.history import copied_offsets
from k2_resources.lake.receipts import RECEIPT_SUMMARY, from_ms, ordered_snapshots, receipts_of, summary_of

_LOOK_BACK = (timedelta(hours=1), timedelta(days=1), timedelta(days=60), None)
"""How far before an instant its last commit is looked for: near first, where a feed that runs has one."""


@dataclass(frozen=True)
class Point:
    """One commit of a table. commit_time: running maximum of the snapshot timestamps up to it."""

    snapshot_id: int
    sequence_number: int
    commit_time: datetime


def point_of_version(receipts: IcebergTable | None, loaded: IcebergTable, table: Table, version: str) -> Point | None:
    """The first commit after which a table was at a version; None where none is known."""
    told = [] if receipts is None else _rows(receipts, _own(loaded, table, EqualTo("version", version)))
    if told:
        return _point(min(told, key=lambda row: int(row["sequence_number"])))
    return next((point for point, offsets in _uncollected(receipts, loaded, table) if offsets.version == version), None)


def point_as_of(receipts: IcebergTable | None, loaded: IcebergTable, table: Table, instant: datetime) -> Point | None:
    """The last commit of a table at or before an instant; None where the first came later."""
    late = [point for point, _ in _uncollected(receipts, loaded, table) if point.commit_time <= instant]
    if late or receipts is None:
        return late[-1] if late else None
    for back in _LOOK_BACK:
        told = _rows(receipts, _own(loaded, table, _between(instant, back)))
        if told:
            return _point(max(told, key=lambda row: int(row["sequence_number"])))
    return None


def has_advanced(snapshot: Snapshot) -> bool:
    """Whether a commit moved C: one without a receipt and a rewrite do not."""
    brief = json.loads(summary_of(snapshot).get(RECEIPT_SUMMARY, "{}"))
    if "ranges" not in brief:  # too many of them for the summary, or no receipt at all
        return str(brief.get("kind", "maintenance")) != "maintenance"
    counts = [count for counted in brief["ranges"].values() for count in counted]
    has_moved = any(start < end for _, start, end, *_ in counts)
    return has_moved or (bool(counts) and str(brief["kind"]) != "batch")


def named_elsewhere(receipts: IcebergTable, loaded: IcebergTable, table: Table, **named: Any) -> bool:
    """Whether a table of the same name, dropped since, had a commit with this snapshot_id or version."""
    where: BooleanExpression = EqualTo("table_name", table.name)
    for name, value in named.items():
        where = And(where, EqualTo(name, value))
    others = And(where, NotEqualTo("table_uuid", str(loaded.metadata.table_uuid)))
    return bool(_rows(receipts, others))


def _uncollected(receipts: IcebergTable | None, loaded: IcebergTable, table: Table) -> Iterator[tuple[Point, Offsets]]:
    """Retained commits whose receipts are not copied yet, in commit order, each with C after it."""
    vector = _collected(receipts, loaded, table)
    offsets, time = vector.offsets, vector.commit_time
    told = {c.sequence_number: c for c in receipts_of(loaded, vector.sequence_number)}
    for snapshot in ordered_snapshots(loaded):
        number = snapshot.sequence_number or 0
        if number <= vector.sequence_number:
            continue
        made = from_ms(snapshot.timestamp_ms)
        time = made if time is None else max(time, made)
        if number in told:
            offsets = offsets.advanced(told[number].receipt.ends())
        yield Point(snapshot.snapshot_id, number, time), offsets


def _collected(receipts: IcebergTable | None, loaded: IcebergTable, table: Table) -> Vector:
    """Where the copies of receipts end: as audit.receipts states it, or as its rows tell."""
    uuid = str(loaded.metadata.table_uuid)
    nothing = Vector(uuid, 0, Offsets(), None)
    if receipts is None:
        return nothing
    stated = receipts.properties.get(vector_key(table.name))
    if stated is not None and (vector := Vector.from_json(stated)).table_uuid == uuid:
        return vector
    last = max((s.sequence_number or 0 for s in loaded.metadata.snapshots), default=0)
    offsets, number = copied_offsets(receipts, table, uuid, last)
    rows = _rows(receipts, _own(loaded, table, EqualTo("sequence_number", number))) if number else []
    return Vector(uuid, number, offsets, rows[0]["commit_time"]) if rows else nothing


def _between(instant: datetime, back: timedelta | None) -> BooleanExpression:
    until = LessThanOrEqual("commit_time", instant.isoformat())
    return until if back is None else And(until, GreaterThan("commit_time", (instant - back).isoformat()))


def _own(loaded: IcebergTable, table: Table, where: BooleanExpression) -> BooleanExpression:
    of_table = And(EqualTo("table_name", table.name), EqualTo("table_uuid", str(loaded.metadata.table_uuid)))
    return And(of_table, where)


def _rows(receipts: IcebergTable, where: BooleanExpression) -> list[dict[str, Any]]:
    columns = ("snapshot_id", "sequence_number", "commit_time")
    rows: list[dict[str, Any]] = receipts.scan(where, selected_fields=columns).to_arrow().to_pylist()
    return rows


def _point(row: dict[str, Any]) -> Point:
    return Point(row["snapshot_id"], row["sequence_number"], row["commit_time"])
