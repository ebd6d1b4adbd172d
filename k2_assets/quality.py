"""Every asset check as Dagster is given it, and the job that asks those of a day once it is over."""

from collections.abc import Iterator
from datetime import UTC, timedelta

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from k2_assets.checks import CHECKS, check_definitions
from k2_assets.tables import asset_key
from k2_core.contracts import INGESTED
from k2_core.derived_tables import BARS
from k2_core.feeds import Feed
from k2_resources.settings import Settings

DAY_JOB = "check_days"
_AT = "30 2 * * *"
"""UTC: every exchange's day before has ended, and its bars are final an hour after that."""


def quality_definitions(_settings: Settings, feeds: tuple[Feed, ...]) -> dg.Definitions:
    """Define the checks of every table, and when those that read a whole day are asked."""
    job = dg.define_asset_job(
        DAY_JOB,
        selection=dg.AssetSelection.checks(*_day_checks()),
        description=f"Ask the checks that read rows, of the exchange date in the tag {PARTITION_NAME_TAG}.",
        executor_def=dg.in_process_executor,
    )

    @dg.schedule(
        name=DAY_JOB,
        job=job,
        cron_schedule=_AT,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="The day before, once it is over everywhere.",
    )
    def daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        day = context.scheduled_execution_time.astimezone(UTC).date() - timedelta(days=1)
        # Dagster 1.13 sees no partitions in a job of checks alone and refuses a partition_key; checks read this tag
        return dg.RunRequest(run_key=f"{DAY_JOB}:{day}", tags={PARTITION_NAME_TAG: day.isoformat()})

    checks = [check for table in (*INGESTED, *BARS) for check in check_definitions(table, feeds)]
    return dg.Definitions(asset_checks=checks, jobs=[job], schedules=[daily])


def _day_checks() -> Iterator[dg.AssetCheckKey]:
    for check in CHECKS:
        if check.tier != "batch":
            yield from (dg.AssetCheckKey(asset_key(table), check.name) for table in check.tables)
