"""How the files of a table are laid out: Arrow schema with field ids, columns with bounds, the DataFile of one."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pyarrow as pa
from cachetools import LRUCache, cached
from pyiceberg.io.pyarrow import (
    StatisticsCollector,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table as IcebergTable

from k2_resources.lake.durable import Written

BOUNDED_COLUMNS = (
    "symbol",
    "exchange",
    "timestamp",
    "exchange_date",
    "revision",
    "source_sequence",
    "kafka_topic",
    "kafka_epoch",
    "kafka_partition",
    "kafka_offset",
    "table_name",
    "table_uuid",
    "sequence_number",
    "snapshot_id",
    "commit_time",
    "feed",
    "event_number",
)
"""Columns that somebody asks a range of. Bounds of all 22 columns of a trade cost a fifth of its encoding, and make
every manifest three times as long."""
_PLAN = {
    "write.metadata.metrics.default": "none",
    **{f"write.metadata.metrics.column.{column}": "truncate(64)" for column in BOUNDED_COLUMNS},
}


@dataclass(frozen=True)
class Layout:
    """One schema of one table as Arrow and Parquet see it."""

    schema: pa.Schema
    plan: dict[int, StatisticsCollector]
    paths: dict[str, int]

    @property
    def bounded(self) -> list[str]:
        """The columns of it that have bounds."""
        return [name for name in self.schema.names if name in BOUNDED_COLUMNS]


@cached(
    LRUCache(64),  # a schema with an id never changes
    key=lambda loaded: (loaded.metadata.table_uuid, loaded.metadata.current_schema_id),
    lock=threading.Lock(),
)
def layout_of(loaded: IcebergTable) -> Layout:
    """The layout of a table's current schema."""
    schema = loaded.schema()
    return Layout(
        pa.schema([_small(field) for field in schema_to_pyarrow(schema, include_field_ids=True)]),
        compute_statistics_plan(schema, _PLAN),
        parquet_path_to_id_mapping(schema),
    )


def data_file(loaded: IcebergTable, written: Written, sort_order_id: int | None = None) -> DataFile:
    """A file just written, as a manifest lists it; nothing of it is read again.

    sort_order_id: stated of the files of a closed date only; by it a plan knows them.
    """
    layout = layout_of(loaded)
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=written.metadata, stats_columns=layout.plan, parquet_column_mapping=layout.paths
    )
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=written.path,
        file_format=FileFormat.PARQUET,
        partition=statistics.partition(loaded.spec(), loaded.schema()),
        file_size_in_bytes=written.size_bytes,
        sort_order_id=sort_order_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )
    file.spec_id = loaded.metadata.default_spec_id  # no part of the record: a reader takes it from the manifest
    return file


def _small(field: pa.Field) -> pa.Field:
    """A field with 32-bit offsets, as the rows come; its ids stay, and those within it."""
    return field.with_type(_small_type(field.type))


def _small_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(type_):
        return pa.string()
    if pa.types.is_large_binary(type_):
        return pa.binary()
    if pa.types.is_large_list(type_):
        return pa.list_(_small(type_.value_field))
    if pa.types.is_map(type_):
        return pa.map_(_small(type_.key_field), _small(type_.item_field))
    if pa.types.is_struct(type_):
        return pa.struct([_small(field) for field in type_])
    return type_
