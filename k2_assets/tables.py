"""The tables a topic feeds, as Dagster shows them: keys, columns, lineage."""

import dagster as dg

from k2_assets.partitions import DAILY
from k2_assets.topics import OWNER, shown_column, topic_key
from k2_core.contracts import COVERAGE, INSTRUMENTS, QUOTES, TRADES, Table
from k2_core.feeds import Feed, feeds_of

GROUPS = {TRADES.name: "ticks", QUOTES.name: "ticks", INSTRUMENTS.name: "reference", COVERAGE.name: "audit"}
"""What people look for them under."""


def asset_key(table: Table) -> dg.AssetKey:
    """The asset of a table has the table's own name."""
    return dg.AssetKey(table.name.split("."))


def table_spec(table: Table, feeds: tuple[Feed, ...]) -> dg.AssetSpec:
    """Describe one table. It is skippable: a run reports the dates its receipts name, not the table as such."""
    topics = [topic_key(feed) for feed in feeds_of(table, feeds)]
    return dg.AssetSpec(
        asset_key(table),
        deps=topics,
        description=f"One row is {table.grain}. Written only by batches of the commit protocol; see docs/DATA.md.",
        group_name=GROUPS[table.name],
        kinds={"iceberg"},
        owners=[OWNER],
        skippable=True,
        partitions_def=DAILY,
        metadata={
            "dagster/column_schema": column_schema(table),
            "dagster/column_lineage": _lineage(table, topics),
            "dagster/table_name": table.name,
        },
    )


def _lineage(table: Table, topics: list[dg.AssetKey]) -> dg.TableColumnLineage:
    """A column a feed states comes from the field of that name; the judge's and the log's own columns from none."""
    return dg.TableColumnLineage(
        {column.name: [dg.TableColumnDep(topic, column.name) for topic in topics] for column in table.feed_columns}
    )


def column_schema(table: Table) -> dg.TableSchema:
    """Project a contract to what Dagster shows of columns."""
    unique = table.key if len(table.key) == 1 else ()
    return dg.TableSchema([shown_column(column, unique=column.name in unique) for column in table.columns])
