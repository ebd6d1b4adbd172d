"""The tables a topic feeds, as Dagster shows them: keys, columns, lineage."""

import dagster as dg

from k2_assets.partitions import DAILY
from k2_assets.topics import topic_key
from k2_core.contracts import Column, Table
from k2_core.feeds import Feed, feeds_of

OWNER = "team:market_data"


def asset_key(table: Table) -> dg.AssetKey:
    """The asset of a table has the table's own name."""
    return dg.AssetKey(table.name.split("."))


def table_spec(table: Table, feeds: tuple[Feed, ...]) -> dg.AssetSpec:
    """Describe one table. It is skippable: a run reports the dates its receipts name, not the table as such."""
    return dg.AssetSpec(
        asset_key(table),
        deps=[topic_key(feed) for feed in feeds_of(table, feeds)],
        description=f"One row is {table.grain}. Written only by batches of the commit protocol; see docs/DATA.md.",
        group_name=table.namespace,
        kinds={"iceberg"},
        owners=[OWNER],
        skippable=True,
        partitions_def=DAILY,
        metadata={"dagster/column_schema": column_schema(table), "dagster/table_name": table.name},
    )


def column_schema(table: Table) -> dg.TableSchema:
    """Project a contract to what Dagster shows of columns."""
    unique = table.key if len(table.key) == 1 else ()
    return dg.TableSchema([_column(column, unique=column.name in unique) for column in table.columns])


def _column(column: Column, *, unique: bool) -> dg.TableColumn:
    choices = [f"one of {', '.join(column.choices)}"] if column.choices else []
    constraints = dg.TableColumnConstraints(nullable=column.nullable, unique=unique, other=choices)
    unit = f" Unit: {column.unit}." if column.unit else ""
    return dg.TableColumn(column.name, str(column.type), f"{column.doc}{unit}", constraints)
