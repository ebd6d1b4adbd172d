"""Runs as storage knows them, without executing anything: dozens of them cost what one executed run does."""

import tempfile
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import dagster as dg
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEvent,
    StepMaterializationData,
)
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster_shared.error import SerializableErrorInfo

Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation
_STEP = "step"
_KINDS = {
    dg.AssetMaterialization: (dg.DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData),
    dg.AssetObservation: (dg.DagsterEventType.ASSET_OBSERVATION, AssetObservationData),
    dg.AssetCheckEvaluation: (dg.DagsterEventType.ASSET_CHECK_EVALUATION, lambda evaluation: evaluation),
}
"""Event as code logs it -> its type and data in the log."""


def begin(instance: dg.DagsterInstance, job: str = "ingest_trades", tags: Mapping[str, str] | None = None) -> str:
    """Make a run that is under way."""
    run = dg.DagsterRun(job, str(uuid.uuid4()), status=dg.DagsterRunStatus.STARTED, tags=tags or {})
    instance.add_run(run)
    storage = instance.event_log_storage
    assert isinstance(storage, SqliteEventLogStorage)
    Path(storage.path_for_shard(run.run_id)).write_bytes(_empty_log())
    storage._initialized_dbs.add(run.run_id)
    return run.run_id


@cache
def _empty_log() -> bytes:
    """The file of a run that has logged nothing: its migrations take a tenth of a second, a copy none."""
    with tempfile.TemporaryDirectory() as directory:
        storage = SqliteEventLogStorage(directory)
        with storage.run_connection("empty"):
            pass
        return Path(storage.path_for_shard("empty")).read_bytes()


def plan(instance: dg.DagsterInstance, run_id: str, key: dg.AssetKey, partition: str | None) -> None:
    """Log that a run is going to materialize a partition, as one launched from the UI does."""
    data = AssetMaterializationPlannedData(key, partition)
    _log(instance, run_id, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, data)


def log(instance: dg.DagsterInstance, run_id: str, *events: Event) -> None:
    """Log events as `context.log_event` of a step does."""
    for event in events:
        kind, data = _KINDS[type(event)]
        _log(instance, run_id, kind, data(event))


def fail_step(instance: dg.DagsterInstance, run_id: str, error: Exception) -> None:
    """Log that the step of a run raised, and end the run."""
    told = SerializableErrorInfo(f"{type(error).__name__}: {error}\n", [], type(error).__name__)
    _log(instance, run_id, dg.DagsterEventType.STEP_FAILURE, StepFailureData(told, None))
    end(instance, run_id, fails=True)


def end(instance: dg.DagsterInstance, run_id: str, *, fails: bool = False) -> None:
    """End a run."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    if fails:
        instance.report_run_failed(run)
    else:
        _log(instance, run_id, dg.DagsterEventType.RUN_SUCCESS, None)


def _log(instance: dg.DagsterInstance, run_id: str, kind: dg.DagsterEventType, data: object) -> None:
    step = None if kind == dg.DagsterEventType.RUN_SUCCESS else _STEP
    instance.report_dagster_event(DagsterEvent(kind.value, "job", step_key=step, event_specific_data=data), run_id)
