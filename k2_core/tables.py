"""What a table contract is made of: columns with a meaning each, a grain, a key, an order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")
PRICE = pa.decimal128(18, 8)
"""Ten integer and eight fractional digits: the largest value is 9,999,999,999.99999999."""
VENDOR_DATA = pa.map_(pa.string(), pa.string())
CONDITIONS = pa.list_(pa.field("element", pa.string(), nullable=False))

Origin = Literal["feed", "judge", "lineage"]


@dataclass(frozen=True)
class Column:
    """One column: what it means and who states it.

    origin: `feed` columns travel in Avro, `judge` columns are decided by the verdict, `lineage` columns name the
    Kafka record. `content` columns decide whether two rows with one key say the same.
    """

    name: str
    type: pa.DataType
    doc: str
    nullable: bool = False
    unit: str = ""
    content: bool = False
    origin: Origin = "feed"
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table of the lake: its grain, key, partition and order."""

    name: str
    grain: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    partition: str | None = None
    sort: tuple[str, ...] = ()
    record: str | None = None
    """Name of its Avro record; None for a table no topic feeds."""
    dated_by: str = "exchange_date"
    """Column whose date stands in the key of a source without ids."""

    @property
    def namespace(self) -> str:
        return self.name.split(".")[0]

    @property
    def short_name(self) -> str:
        return self.name.split(".")[1]

    @property
    def content(self) -> tuple[str, ...]:
        """Names of the content columns, in contract order."""
        return tuple(column.name for column in self.columns if column.content)

    @property
    def feed_columns(self) -> tuple[Column, ...]:
        """What a feed sends: the fields of the Avro record, in contract order."""
        return tuple(column for column in self.columns if column.origin == "feed")

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def arrow_schema(self, *, origins: tuple[Origin, ...] = ("feed", "judge", "lineage")) -> pa.Schema:
        """Project to Arrow: the given origins, in contract order, docs as field metadata."""
        return pa.schema(
            pa.field(c.name, c.type, nullable=c.nullable, metadata={"doc": c.doc})
            for c in self.columns
            if c.origin in origins
        )


REVISION = Column(
    "revision",
    pa.int32(),
    "0 = as first received; 1.. = later content for the same key. Readers take the newest.",
    origin="judge",
)
LINEAGE = (
    Column("kafka_topic", pa.string(), "Topic the record came from.", origin="lineage"),
    Column("kafka_epoch", pa.int32(), "Incarnation of that topic, counted from 0.", origin="lineage"),
    Column("kafka_partition", pa.int32(), "Kafka partition of the record.", origin="lineage"),
    Column("kafka_offset", pa.int64(), "Kafka offset of the record.", origin="lineage"),
)
LINEAGE_NAMES = tuple(column.name for column in LINEAGE)
"""Which record of which topic incarnation a row came from; the first three are its log partition."""


def fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give rows the columns of a schema, in its order; null where rows written by an older K2 have none.

    Raises KeyError when a column is missing that may not be null.
    """
    columns = []
    for field in schema:
        if field.name not in rows.column_names and field.nullable:
            columns.append(pa.nulls(len(rows), field.type))
        else:
            columns.append(rows[field.name].cast(field.type))
    return pa.table(columns, schema=schema)
