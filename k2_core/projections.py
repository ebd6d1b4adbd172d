"""How rows of a tick table are shown: SELECT lists projected from the contract.

Belongs here: SQL expressions made of column names of contracts only. What is asked for is in sql/*.sql, with its
values bound as parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import pyarrow as pa

from k2_core.contracts import Column, Table

Decimals = Literal["string", "number"]
Shape = Literal["json", "text", "columns"]
"""json: one object per row as text. text: every column as text. columns: every column in its contract type."""
KEY = ("at_us", "source_order", "platform_order", "message_id", "revision")
"""The total order, as the steps of a statement name it; two revisions of one message differ in the last alone."""
_LEAST = "(-9223372036854775808)::BIGINT"
_KEY_VALUES = (
    "epoch_us(timestamp)",
    f"coalesce(source_sequence, {_LEAST})",
    f"coalesce(platform_sequence, {_LEAST})",
    "message_id",
    "revision",
)
KEY_PREFIX = "key_"
"""Before the names of KEY in a result that shows columns, so that none is taken for a shown one."""
_INSTANT = "strftime({0}, '%Y-%m-%dT%H:%M:%S.%fZ')"


def shown_columns(table: Table, fields: Sequence[str] = ()) -> tuple[Column, ...]:
    """The columns an answer shows, in contract order: what the feed said, its revision and its date; not our lineage.

    fields: these instead, lineage among them if named; empty = all. Raises KeyError for a name the table has not.
    """
    if unknown := set(fields) - {column.name for column in table.columns}:
        raise KeyError(", ".join(sorted(unknown)))
    if fields:
        return tuple(column for column in table.columns if column.name in fields)
    return tuple(column for column in table.columns if column.origin != "lineage")


@lru_cache(maxsize=512)
def select_list(table: Table, shape: Shape, fields: tuple[str, ...], decimals: Decimals) -> str:
    """The SELECT list that shows rows in a shape. decimals: how JSON writes them; text keeps all eight digits."""
    columns = shown_columns(table, fields)
    if shape == "json":
        members = ", ".join(f"'{c.name}': {_json(c, decimals)}" for c in columns)
        return f"to_json({{{members}}})::VARCHAR AS json"
    return ",\n    ".join(f"{_text(c) if shape == 'text' else c.name} AS {c.name}" for c in columns)


def key_list(prefix: str = "") -> str:
    """The SELECT list of the total order over rows of a table, its names behind a prefix.

    Nulls in the two sequences sort below every number. Computed of the rows that are shown, not of those sorted.
    """
    return ", ".join(f"{expression} AS {prefix}{name}" for name, expression in zip(KEY, _KEY_VALUES, strict=True))


def duckdb_type(type_: pa.DataType) -> str:
    """The name DuckDB has for a type of a contract."""
    if pa.types.is_decimal(type_):
        return f"DECIMAL({type_.precision},{type_.scale})"
    if pa.types.is_list(type_):
        return f"{duckdb_type(type_.value_type)}[]"
    if pa.types.is_map(type_):
        return f"MAP({duckdb_type(type_.key_type)}, {duckdb_type(type_.item_type)})"
    if pa.types.is_struct(type_):
        return f"STRUCT({', '.join(f'{field.name} {duckdb_type(field.type)}' for field in type_)})"
    return _PRIMITIVES[type_]


_PRIMITIVES: dict[pa.DataType, str] = {
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.date32(): "DATE",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}


def _json(column: Column, decimals: str) -> str:
    if pa.types.is_timestamp(column.type):
        return _INSTANT.format(column.name)
    if pa.types.is_decimal(column.type) and decimals == "string":
        return f"{column.name}::VARCHAR"
    return column.name


def _text(column: Column) -> str:
    if pa.types.is_timestamp(column.type):
        return _INSTANT.format(column.name)
    if pa.types.is_nested(column.type):
        return f"to_json({column.name})::VARCHAR"
    return f"{column.name}::VARCHAR"
