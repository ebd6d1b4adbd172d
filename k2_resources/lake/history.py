"""A snapshot that was forgotten, as the copies of its receipts still tell it: its C, and the files it held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyiceberg.expressions import And, BooleanExpression, EqualTo, LessThanOrEqual, Or
from pyiceberg.table import Table as IcebergTable

from k2_core.contracts import Table
from k2_core.offsets import Offsets, Position


@dataclass(frozen=True)
class Past:
    """One commit of a table. files: every data file it left there. rewrites: those that rewrites after it put in."""

    sequence_number: int
    commit_time: datetime
    offsets: Offsets
    files: frozenset[str]
    rewrites: frozenset[str]


def recall(receipts: IcebergTable, table: Table, table_uuid: str, snapshot_id: int) -> Past | None:
    """Look a snapshot up in audit.receipts; None for one that never was, or whose receipt is not copied yet."""
    of_table = And(EqualTo("table_name", table.name), EqualTo("table_uuid", table_uuid))
    told = _rows(
        receipts, And(of_table, EqualTo("snapshot_id", snapshot_id)), "sequence_number", "commit_time", "offsets"
    )
    if not told:
        return None
    number = told[0]["sequence_number"]
    up_to_it, rewrites = LessThanOrEqual("sequence_number", number), EqualTo("kind", "maintenance")
    columns = [name for name in ("sequence_number", "files", "replaced") if name in receipts.schema().column_names]
    stored = _rows(receipts, And(of_table, Or(up_to_it, rewrites)), *columns)
    before = [row for row in stored if row["sequence_number"] <= number]
    replaced = {f["path"] for row in before for f in row.get("replaced") or ()}
    later = _data_files(row for row in stored if row["sequence_number"] > number)
    return Past(number, told[0]["commit_time"], offsets_of(told[0]["offsets"]), _data_files(before) - replaced, later)


def _data_files(rows: Iterable[dict[str, Any]]) -> frozenset[str]:
    return frozenset(f["path"] for row in rows for f in row["files"] if f["kind"] == "data")


def copied_offsets(receipts: IcebergTable, table: Table, table_uuid: str, number: int) -> tuple[Offsets, int]:
    """C at the last copied receipt up to one sequence number, and the number of that; nothing and 0 without one."""
    of_table = And(EqualTo("table_name", table.name), EqualTo("table_uuid", table_uuid))
    for this in (EqualTo("sequence_number", number), LessThanOrEqual("sequence_number", number)):
        told = _rows(receipts, And(of_table, this), "sequence_number", "offsets")
        if told:
            last = max(told, key=lambda row: int(row["sequence_number"]))
            return offsets_of(last["offsets"]), last["sequence_number"]
    return Offsets(), 0


def offsets_of(stated: Sequence[dict[str, Any]]) -> Offsets:
    """C as a row of audit.receipts states it."""
    return Offsets({(o["topic"], o["kafka_partition"]): Position(o["kafka_epoch"], o["next"]) for o in stated})


def _rows(receipts: IcebergTable, this: BooleanExpression, *columns: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = receipts.scan(this, selected_fields=columns).to_arrow().to_pylist()
    return rows
