"""What every peer stands on: one real broker with the records in it, one schema, and a table of its own made ahead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform

from k2_core.contracts import TRADES
from k2_resources.lake.catalog import CATALOG_NAME

CATALOG = CATALOG_NAME
"""One name for all: it is part of the rows of a SQL catalog."""
IDENTIFIER = TRADES.name
_PROPERTIES = {
    "write.parquet.compression-codec": "zstd",
    "write.distribution-mode": "none",
    "write.metadata.delete-after-commit.enabled": "true",
}


@dataclass(frozen=True)
class Ground:
    """One topic of Avro records under one schema id, and a folder for what peers keep."""

    bootstrap: str
    topic: str
    partitions: int
    records: int
    schema: dict[str, Any]
    schema_id: int
    registry_url: str
    home: Path


@dataclass(frozen=True)
class Started:
    """A peer about to run: its command, and where its table is. ends: whether it ends by itself when all is in."""

    command: list[str]
    catalog_file: Path
    ends: bool = True

    def table(self) -> Table:
        """Its table, loaded anew."""
        return catalog(self.catalog_file).load_table(IDENTIFIER)


def catalog(file: Path) -> SqlCatalog:
    """The catalog in a SQLite file, which Spark and Connect open by their JDBC catalog."""
    return SqlCatalog(CATALOG, uri=f"sqlite:///{file}?timeout=60", warehouse=f"file://{file.parent / 'warehouse'}")


def make_table(home: Path, schema: pa.Schema, *, daily: bool = False) -> Path:
    """Make an empty table in a catalog of its own; returns the file of that catalog. daily: partitioned by event day."""
    file = home / "catalog.db"
    (home / "warehouse").mkdir(parents=True)
    made = catalog(file)
    made.create_namespace(TRADES.namespace)
    table = made.create_table(IDENTIFIER, schema, properties=_PROPERTIES)
    if daily:
        source = table.schema().find_field("timestamp").field_id
        made.drop_table(IDENTIFIER)
        day = PartitionSpec(PartitionField(source, 1000, DayTransform(), "day"))
        made.create_table(IDENTIFIER, table.schema(), partition_spec=day, properties=_PROPERTIES)
    return file


def columns(*, timestamps: pa.DataType | None = None) -> pa.Schema:
    """The feed columns of trades, all nullable, as the peers' writers expect. timestamps: their type, if another."""
    replaced = {True: timestamps, False: None}
    types = {c.name: replaced[pa.types.is_timestamp(c.type)] or _nullable(c.type) for c in TRADES.feed_columns}
    return pa.schema([pa.field(name, type_) for name, type_ in types.items()])


def _nullable(type_: pa.DataType) -> pa.DataType:
    return pa.list_(type_.value_type) if pa.types.is_list(type_) else type_
