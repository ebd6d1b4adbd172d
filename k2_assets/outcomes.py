"""What Dagster's storage holds of checks and partitions, for the tour and for tests."""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter

from k2_assets.checks import told_checks
from k2_assets.tables import asset_key
from k2_core.contracts import Table


def check_outcomes(dagster_home: Path, table: Table, days: Iterable[date]) -> dict[tuple[str, date], str]:
    """The last status of every check that batches are told by, on each date: SUCCEEDED, FAILED or MISSING."""
    found: dict[tuple[str, date], str] = {}
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        for name in told_checks(table):
            key = dg.AssetCheckKey(asset_key(table), name)
            for day in days:
                only = PartitionKeyFilter(key=day.isoformat())
                records = instance.event_log_storage.get_asset_check_execution_history(key, 1, partition_filter=only)
                found[name, day] = records[0].status.value if records else "MISSING"
    return found


def materialized_days(dagster_home: Path, table: Table) -> set[date]:
    """The dates Dagster shows as materialized."""
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        return {date.fromisoformat(key) for key in instance.get_materialized_partitions(asset_key(table))}
