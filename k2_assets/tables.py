"""The tables a topic feeds, as Dagster shows them: keys, columns, lineage."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

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
    return iceberg_spec(
        table,
        topics,
        GROUPS[table.name],
        f"One row is {table.grain}. Written only by batches of the commit protocol; see docs/DATA.md.",
        # a column a feed states comes from the field of that name; the judge's and the log's own columns from none
        {column.name: [dg.TableColumnDep(topic, column.name) for topic in topics] for column in table.feed_columns},
        skippable=True,
        partitions_def=DAILY,
    )


def iceberg_spec(
    table: Table,
    deps: Sequence[dg.AssetKey],
    group: str,
    description: str,
    lineage: Mapping[str, Sequence[dg.TableColumnDep]] = MappingProxyType({}),
    **more: Any,
) -> dg.AssetSpec:
    """Describe a table of the lake as every asset of one is described. more: what else an AssetSpec takes."""
    metadata = {"dagster/column_schema": column_schema(table), "dagster/table_name": table.name}
    if lineage:
        metadata["dagster/column_lineage"] = dg.TableColumnLineage(lineage)
    return dg.AssetSpec(
        asset_key(table),
        deps=deps,
        description=description,
        group_name=group,
        kinds={"iceberg"},
        owners=[OWNER],
        metadata=metadata,
        **more,
    )


def column_schema(table: Table) -> dg.TableSchema:
    """Project a contract to what Dagster shows of columns."""
    unique = table.key if len(table.key) == 1 else ()
    return dg.TableSchema([shown_column(column, unique=column.name in unique) for column in table.columns])
