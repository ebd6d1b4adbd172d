"""Pruning: Dagster's own runs and events, kept for days and not for ever, without anything shown changing."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from k2_assets.runs import record_process
from k2_assets.storage import forget_observations, forget_run, shown_runs, storage_bytes
from k2_assets.topics import OWNER
from k2_core.feeds import Feed
from k2_resources import clock
from k2_resources.bindings import K2Resource
from k2_resources.settings import Settings

ASSET = dg.AssetKey(["upkeep", "dagster_runs"])
CRON = "17 * * * *"
"""Each hour, at a minute when little else begins."""
_SUCCEEDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED]
_FAILED = [dg.DagsterRunStatus.FAILURE]


@dataclass(frozen=True)
class Pruned:
    """What one pruning did. shown: runs that stay because what is shown depends on them. left: those for next time."""

    runs: int
    observations: int
    shown: int
    left: int


def prune(instance: dg.DagsterInstance, settings: Settings, now: datetime) -> Pruned:
    """Take away finished runs past their days, oldest first, at most `pruned_runs_max`, but none that is shown."""
    kept_until = now - timedelta(days=settings.run_days_kept)
    failed_until = now - timedelta(days=settings.failed_run_days_kept)
    shown = shown_runs(instance)
    old = [*_ended_before(instance, failed_until, _FAILED), *_ended_before(instance, kept_until, _SUCCEEDED)]
    wanted = [run_id for run_id in old if run_id not in shown]
    for run_id in wanted[: settings.pruned_runs_max]:
        forget_run(instance, run_id)
    done = min(len(wanted), settings.pruned_runs_max)
    return Pruned(done, forget_observations(instance, kept_until), len(shown), len(wanted) - done)


def _ended_before(instance: dg.DagsterInstance, until: datetime, statuses: list[dg.DagsterRunStatus]) -> list[str]:
    """Finished runs that nothing changed since an instant, oldest first."""
    wanted = dg.RunsFilter(statuses=statuses, updated_before=until)
    return list(reversed(instance.get_run_ids(wanted)))


@dg.asset(
    key=ASSET,
    group_name="upkeep",
    kinds={"dagster"},
    owners=[OWNER],
    description="Runs and events of Dagster itself. Materializing it prunes what is older than the settings say, but "
    "never a run that holds the newest materialization, observation, plan or check evaluation of anything.",
)
def dagster_runs(context: dg.AssetExecutionContext, k2: K2Resource) -> dg.MaterializeResult:
    """Prune once."""
    record_process(context.instance, context.run.run_id)
    done = prune(context.instance, k2.settings(), clock.now())
    kept_bytes = storage_bytes(context.instance)
    metadata = {
        "runs_pruned": done.runs,
        "observations_pruned": done.observations,
        "runs_shown": done.shown,
        "runs_left": done.left,
        **({} if kept_bytes is None else {"storage_bytes": kept_bytes}),
    }
    return dg.MaterializeResult(metadata=metadata)


def pruning_definitions(_settings: Settings, _feeds: tuple[Feed, ...]) -> dg.Definitions:
    """Define the pruning of Dagster's runs and its schedule."""
    job = dg.define_asset_job(
        "prune_runs",
        selection=dg.AssetSelection.assets(ASSET),
        description="Take away Dagster's runs that nothing shown depends on.",
        executor_def=dg.in_process_executor,
    )
    schedule = dg.ScheduleDefinition(
        name="prune_runs", job=job, cron_schedule=CRON, default_status=dg.DefaultScheduleStatus.RUNNING
    )
    return dg.Definitions(assets=[dagster_runs], jobs=[job], schedules=[schedule])
