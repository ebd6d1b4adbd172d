"""What checks of a batch ask beside its receipt: columns as they are, letters nobody could read, when rows arrived."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import And, EqualTo, In
from pyiceberg.types import NestedField

from k2_core.contracts import DEAD_LETTERS, Table
from k2_core.quality import Reason
from k2_core.receipts import RangeCount
from k2_core.tables import LINEAGE_NAMES
from k2_resources.lake.catalog import Lake
from k2_resources.lake.iceberg import iceberg_schema

UNREADABLE = (
    Reason.BAD_MAGIC,
    Reason.UNKNOWN_SCHEMA,
    Reason.WRONG_RECORD,
    Reason.TRUNCATED,
    Reason.TRAILING_BYTES,
    Reason.UNDECODABLE,
)
"""Reasons of dead letters whose schema could not be read as that of the table."""
_SHOWN = (*LINEAGE_NAMES, "schema_id", "reason", "detail")
_ID = re.compile(r"\b\d+: ")
_ARRIVED = ("kafka_topic", "ingestion_timestamp")


def column_differences(lake: Lake, table: Table) -> list[dict[str, str]]:
    """Columns in which a table differs from its contract: column, contract, table; none for one that is not there."""
    if lake.state(table) is None:
        return []
    stated = {field.name: _described(field) for field in iceberg_schema(table).fields}
    stored = {field.name: _described(field) for field in lake.load(table).schema().fields}
    names = [name for name in {**stated, **stored} if stated.get(name) != stored.get(name)]
    return [
        {"column": name, "contract": stated.get(name, "absent"), "table": stored.get(name, "absent")} for name in names
    ]


def _described(field: NestedField) -> str:
    """The type of a column, and whether it may be null. The ids inside a type are the table's own."""
    return f"{_ID.sub('', str(field.field_type))}{'' if field.required else ', null'}"


def unreadable_letters(lake: Lake, table: Table, ranges: Iterable[RangeCount]) -> list[dict[str, Any]]:
    """Dead letters of some ranges of a table whose schema could not be read, in log order, without their bytes."""
    deadly = [r for r in ranges if r.dead]
    if not deadly or lake.state(DEAD_LETTERS) is None:
        return []
    where = And(EqualTo("table_name", table.name), In("reason", [reason.value for reason in UNREADABLE]))
    rows = lake.load(DEAD_LETTERS).scan(where, selected_fields=_SHOWN).to_arrow()
    ordered = rows.sort_by([(name, "ascending") for name in LINEAGE_NAMES]).to_pylist()
    return [row for row in ordered if any(_holds(r, row) for r in deadly)]


def _holds(r: RangeCount, letter: dict[str, Any]) -> bool:
    place = (letter["kafka_topic"], letter["kafka_epoch"], letter["kafka_partition"])
    return place == (r.topic, r.kafka_epoch, r.kafka_partition) and r.start <= letter["kafka_offset"] < r.end


def arrivals(table: Table, paths: Iterable[str]) -> pa.Table:
    """Topic and ingestion time of the rows of some data files; those that were rewritten since are passed over."""
    schema = pa.schema([table.arrow_schema().field(name) for name in _ARRIVED])
    parts = [schema.empty_table()]
    for path in paths:
        with suppress(FileNotFoundError):
            parts.append(pq.read_table(path, columns=list(_ARRIVED), partitioning=None).cast(schema))
    return pa.concat_tables(parts)
