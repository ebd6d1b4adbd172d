"""Project a contract to Iceberg: schema with ids and docs, partition by identity, sort order, properties."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

import pyarrow as pa
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
)

from k2_core.contracts import CONTRACT_VERSION, Table
from k2_core.errors import Misconfigured
from k2_core.keys import CONTRACT_KEY
from k2_resources.lake.durable import ROW_GROUP_ROWS

PROPERTIES = {
    "format-version": "2",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "write.parquet.row-group-limit": str(ROW_GROUP_ROWS),
    "write.metadata.metrics.default": "truncate(64)",
    CONTRACT_KEY: CONTRACT_VERSION,
}
"""Merged manifests and few metadata files keep a commit at the cost of the first; other engines follow the rest."""

_PRIMITIVES: dict[pa.DataType, IcebergType] = {
    pa.string(): StringType(),
    pa.binary(): BinaryType(),
    pa.bool_(): BooleanType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.date32(): DateType(),
}


@cache  # every engine that is opened compares it with the tables there are
def iceberg_schema(table: Table) -> Schema:
    """Columns in contract order, ids from 1, docs from the contract."""
    ids = itertools.count(len(table.columns) + 1)
    return Schema(
        *(
            NestedField(i, c.name, _type(c.type, ids), required=not c.nullable, doc=c.doc)
            for i, c in enumerate(table.columns, start=1)
        )
    )


def missing_columns(table: Table, schema: Schema) -> list[NestedField]:
    """Columns of a contract that a table made by an older K2 does not have. Raises Misconfigured when one is required.

    What may not be null has no value for the rows that are there: no later contract may bring such a column.
    """
    stated = iceberg_schema(table).fields
    missing = [field for field in stated if field.name not in schema.column_names]
    required = [field.name for field in missing if field.required]
    if required:
        raise Misconfigured(f"{table.name} was made by another K2: it has no {', '.join(required)}")
    return missing


def partition_spec(table: Table, schema: Schema) -> PartitionSpec:
    if table.partition is None:
        return PartitionSpec()
    source = schema.find_field(table.partition).field_id
    return PartitionSpec(PartitionField(source, PARTITION_FIELD_ID_START, IdentityTransform(), table.partition))


def sort_order(table: Table, schema: Schema) -> SortOrder:
    fields = (schema.find_field(name).field_id for name in table.sort)
    return SortOrder(
        *(
            SortField(f, IdentityTransform(), direction=SortDirection.ASC, null_order=NullOrder.NULLS_FIRST)
            for f in fields
        )
    )


def _type(type_: pa.DataType, ids: Iterator[int]) -> IcebergType:
    if pa.types.is_decimal(type_):
        return DecimalType(type_.precision, type_.scale)
    if pa.types.is_timestamp(type_):
        return TimestamptzType()
    if pa.types.is_map(type_):
        return MapType(next(ids), _type(type_.key_type, ids), next(ids), _type(type_.item_type, ids), False)
    if pa.types.is_list(type_):
        return ListType(next(ids), _type(type_.value_type, ids), element_required=not type_.value_field.nullable)
    if pa.types.is_struct(type_):
        return StructType(*(NestedField(next(ids), f.name, _type(f.type, ids), required=not f.nullable) for f in type_))
    return _PRIMITIVES[type_]
