"""Dagster's own storage: which runs anything shown depends on, and how a run is taken away with all it left.

1.13 has no pruning. `DagsterInstance.delete_run` deletes the events of a run, which un-materializes what it was the
last to materialize, and leaves behind: check evaluations, tags (SQLite enforces no foreign keys), the file with the
run's own events, captured logs. Works on SQLite and Postgres; tables are those of the pinned version.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecordStatus,
)
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetEventTagsTable
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as EventsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster._core.storage.runs.schema import RunTagsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.sqlalchemy_compat import db_select
from dagster._core.storage.tags import BACKFILL_ID_TAG

from k2_assets.reports import MARK

OBSERVATIONS_KEPT = 50
"""Newest observations of an asset that are looked through for a mark, and kept where no run logged them."""
RUNLESS_MAX = 10_000
"""Observations outside runs that one pruning takes away: a dozen topics, each minute, make as many in half a day."""
_IDS_MAX = 500
"""Ids in one statement."""
_RUNLESS = ""
"""Run id of events that no run logged."""
_SHOWN_EVENTS = (dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION)
_PLANNED = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
_ACTIVE_BACKFILLS = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]


def shown_runs(instance: dg.DagsterInstance) -> set[str]:
    """Runs that hold the newest event of any kind of any asset and partition, or the newest evaluation of any check.

    Of materializations, observations, plans; of evaluations also the newest that is more than planned; and every run
    of a backfill that goes on.
    """
    storage = _events(instance)
    found: set[str] = set()
    for key in instance.all_asset_keys():
        ids: set[int] = set()
        for event_type in (*_SHOWN_EVENTS, _PLANNED):
            ids |= set(storage.get_latest_storage_id_by_partition(key, event_type).values())
        found |= _runs_of(storage, ids) | _newest_of_asset(instance, key)
    for check in _check_keys(storage):
        found |= _newest_of_check(storage, check)
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=_ACTIVE_BACKFILLS)):
        found |= set(instance.get_run_ids(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill.backfill_id})))
    return found - {_RUNLESS}


def forget_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Take a finished run away with all it left. Last goes its own row: cut short, it is found and ended again."""
    storage, runs = _events(instance), instance.run_storage
    assert isinstance(runs, SqlRunStorage), f"run storage is {type(runs).__name__}"
    with storage.index_connection() as connection:
        connection.execute(AssetCheckExecutionsTable.delete().where(AssetCheckExecutionsTable.c.run_id == run_id))
        storage.delete_events_for_run(connection, run_id)
    if isinstance(storage, SqliteEventLogStorage):
        _remove_files(storage, run_id)
    # the local manager keeps everything of a run in one folder; others are asked for what they keep of it
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    with runs.connect() as connection:
        connection.execute(RunTagsTable.delete().where(RunTagsTable.c.run_id == run_id))
    runs.delete_run(run_id)


def forget_observations(instance: dg.DagsterInstance, before: datetime) -> int:
    """Take away observations that no run logged, from before an instant, but for the newest of each asset.

    Returns how many: at most RUNLESS_MAX, the oldest.
    """
    storage = _events(instance)
    observed, naive = dg.DagsterEventType.ASSET_OBSERVATION, before.astimezone(UTC).replace(tzinfo=None)
    kept = {
        record.storage_id
        for key in instance.all_asset_keys()
        for record in instance.fetch_observations(key, limit=OBSERVATIONS_KEPT).records
    }
    old = (
        (EventsTable.c.run_id == _RUNLESS)
        & (EventsTable.c.dagster_event_type == observed.value)
        & (EventsTable.c.timestamp < naive)
    )
    with storage.index_connection() as connection:
        rows = connection.execute(db_select([EventsTable.c.id]).where(old).order_by(EventsTable.c.id))
        ids = [row[0] for row in rows if row[0] not in kept][:RUNLESS_MAX]
        for some in _chunks(ids):
            connection.execute(AssetEventTagsTable.delete().where(AssetEventTagsTable.c.event_id.in_(some)))
            connection.execute(EventsTable.delete().where(EventsTable.c.id.in_(some)))
    if storage.is_run_sharded and ids:
        # the copy in the file of events without a run: pages of assets read the index
        with storage.run_connection(_RUNLESS) as connection:
            connection.execute(EventsTable.delete().where(old))
    return len(ids)


def storage_bytes(instance: dg.DagsterInstance) -> int | None:
    """Bytes of everything Dagster keeps on this machine; None where its events lie in a server."""
    if not isinstance(instance.event_log_storage, SqliteEventLogStorage):
        return None
    home = Path(instance.root_directory)
    found = 0
    for file in home.rglob("*"):
        with suppress(FileNotFoundError):  # a run that ends meanwhile folds its log into its file
            found += file.stat().st_size if file.is_file() else 0
    return found


def _events(instance: dg.DagsterInstance) -> SqlEventLogStorage:
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage), f"event storage is {type(storage).__name__}"
    return storage


def _runs_of(storage: SqlEventLogStorage, ids: Iterable[int]) -> set[str]:
    """Runs that logged some events."""
    found: set[str] = set()
    with storage.index_connection() as connection:
        for some in _chunks(sorted(ids)):
            rows = connection.execute(db_select([EventsTable.c.run_id]).where(EventsTable.c.id.in_(some)))
            found.update(row[0] for row in rows)
    return found


def _newest_of_asset(instance: dg.DagsterInstance, key: dg.AssetKey) -> set[str]:
    """Runs of the newest events of an asset whatever their partition, which may be none.

    Also of the newest mark: without it the next report would begin at the first receipt.
    """
    planned = instance.event_log_storage.get_latest_planned_materialization_info(key)
    observed = instance.fetch_observations(key, limit=OBSERVATIONS_KEPT).records
    marked = [r for r in observed if r.asset_observation is not None and MARK in r.asset_observation.metadata]
    newest = (*instance.fetch_materializations(key, limit=1).records, *observed[:1], *marked[:1])
    return {record.run_id for record in newest} | ({planned.run_id} if planned else set())


def _check_keys(storage: SqlEventLogStorage) -> list[dg.AssetCheckKey]:
    """Every check that was ever evaluated."""
    table = AssetCheckExecutionsTable.c
    with storage.index_connection() as connection:
        rows = connection.execute(db_select([table.asset_key, table.check_name]).distinct()).fetchall()
    keys = ((dg.AssetKey.from_db_string(asset), name) for asset, name in rows)
    return [dg.AssetCheckKey(asset, name) for asset, name in keys if asset is not None]


def _newest_of_check(storage: SqlEventLogStorage, key: dg.AssetCheckKey) -> set[str]:
    found: set[str] = set()
    for info in storage.get_asset_check_partition_info([key]):
        found.add(info.latest_planned_run_id)
        if info.latest_execution_status == AssetCheckExecutionRecordStatus.PLANNED:
            completed = storage.get_asset_check_execution_history(
                key,
                limit=1,
                status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
                partition_filter=PartitionKeyFilter(key=info.partition_key),
            )
            found |= {record.run_id for record in completed}
    return found


def _remove_files(storage: SqliteEventLogStorage, run_id: str) -> None:
    shard = Path(storage.path_for_shard(run_id))
    for file in (shard, *(shard.with_name(f"{shard.name}-{part}") for part in ("wal", "shm"))):
        file.unlink(missing_ok=True)


def _chunks(ids: list[int]) -> Iterator[list[int]]:
    return (ids[at : at + _IDS_MAX] for at in range(0, len(ids), _IDS_MAX))
