"""Avro schemas projected from the contracts: what a feed sends.

Names and defaults are BACKWARD compatible from the first version: the record keeps its full name, what may be
absent has a default, enums have a default symbol.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from k2_core.contracts import Column, Table

NAMESPACE = "k2.market_data"
_DEFAULT_CHOICE = {"side": "UNKNOWN"}
"""What a symbol means that a newer writer has and this reader has not; a choice without an honest answer has none."""
_DEFAULTS: dict[str, Any] = {"trade_conditions": [], "quality_flags": 0}
"""Fields an older writer may lack without being wrong."""


def avro_schema(table: Table) -> dict[str, Any]:
    """The V2 record of one table: the columns a feed states, in contract order."""
    return {
        "type": "record",
        "name": table.record,
        "namespace": NAMESPACE,
        "doc": table.grain,
        "fields": [_field(column) for column in table.feed_columns],
    }


def _field(column: Column) -> dict[str, Any]:
    field: dict[str, Any] = {"name": column.name, "type": _type(column), "doc": column.doc}
    if column.nullable:
        return {**field, "type": ["null", field["type"]], "default": None}
    if column.name in _DEFAULTS:
        field["default"] = _DEFAULTS[column.name]
    return field


def _type(column: Column) -> Any:
    if column.choices:
        name = "".join(word.capitalize() for word in column.name.split("_"))
        enum = {"type": "enum", "name": name, "symbols": list(column.choices)}
        default = _DEFAULT_CHOICE.get(column.name)
        return {**enum, "default": default} if default else enum
    return _arrow_to_avro(column.type)


def _arrow_to_avro(type_: pa.DataType) -> Any:
    if pa.types.is_decimal(type_):
        return {"type": "bytes", "logicalType": "decimal", "precision": type_.precision, "scale": type_.scale}
    if pa.types.is_timestamp(type_):
        return {"type": "long", "logicalType": "timestamp-micros"}
    if pa.types.is_list(type_):
        return {"type": "array", "items": _arrow_to_avro(type_.value_type)}
    if pa.types.is_map(type_):
        return {"type": "map", "values": _arrow_to_avro(type_.item_type)}
    return {
        pa.string(): "string",
        pa.int64(): "long",
        pa.int32(): "int",
        pa.date32(): {"type": "int", "logicalType": "date"},
    }[type_]
