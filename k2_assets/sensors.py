"""Sensors: compare the offsets committed in Iceberg with the log, and ask for one run at a time.

They read no message and keep no truth: the cursor is a hint about time, and without it a run starts a little later.
"""

import json
import threading
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Self

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from k2_assets.engine import Engine, open_engine
from k2_assets.ingest import ingest_config
from k2_assets.reports import unreported
from k2_assets.runs import ATTEMPT_TAG, DIED_TAG, START_TAG, TABLE_TAG, UNDER_WAY, fail_dead_runs
from k2_assets.topics import observe
from k2_core.contracts import Table
from k2_core.errors import Halted, K2Error
from k2_core.offsets import OffsetRange
from k2_core.protocol.planning import Plan
from k2_resources import clock
from k2_resources.bindings import K2Resource
from k2_resources.settings import Settings

INTERVAL_SECONDS = 4
"""The daemon loops every 5 s; asking for 5 would be a few milliseconds short every other time."""
OBSERVED_SECONDS = 60.0
"""Between two observations of a topic: lineage wants to know the lag, not to be a metrics store."""
BACK_OFF_SECONDS, BACK_OFF_SECONDS_MAX = 4.0, 300.0
"""After attempt n the next one waits 4 s x 2^n, five minutes at most."""
_BACK_OFF_DOUBLINGS_MAX = 10
"""Beyond it the limit holds anyway; attempts are not bounded, powers are."""


@dataclass(frozen=True)
class Cursor:
    """Hints of one sensor, in seconds since the epoch: since when records wait, when the topics were observed."""

    waiting_since: float | None = None
    observed_at: float = 0.0

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read a cursor; anything that is none is no hint."""
        try:
            return cls(**json.loads(text or "{}"))
        except (ValueError, TypeError):
            return cls()

    def __str__(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Wanted:
    """A run worth asking for: what it shall read, and the name of where it starts."""

    ranges: tuple[OffsetRange, ...]
    start: str


def ingest_sensor(table: Table, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """Define the sensor of one table."""

    @dg.sensor(
        name=f"{table.short_name}_sensor",
        job=job,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Ask for a run when records wait for {table.name}: enough of them, or for long enough.",
    )
    def watch(context: dg.SensorEvaluationContext, k2: K2Resource) -> dg.SensorResult | dg.SkipReason:
        try:
            return _tick(context, kept_engine(k2.settings()), table)
        except Halted as error:
            context.log.warning(f"{table.name} is halted: {error.code}: {error}")
            return dg.SkipReason(f"halted: {error.code}: {error}")
        except K2Error as error:
            return dg.SkipReason(f"{error.code}: {error}")

    return watch


def _tick(context: dg.SensorEvaluationContext, engine: Engine, table: Table) -> dg.SensorResult:
    for run_id in fail_dead_runs(context.instance, table=table):
        context.log.warning(f"run {run_id} was failed: its process is gone")
    now, cursor = clock.now(), Cursor.parse(context.cursor)
    plan = engine.plan(table)
    is_due = now.timestamp() - cursor.observed_at >= OBSERVED_SECONDS
    observations = observe(engine, table) if is_due else []
    observed_at = now.timestamp() if is_due else cursor.observed_at
    since = _waiting_since(plan, cursor, now)
    answer = _answer(context.instance, engine, plan, since, now)
    asked = isinstance(answer, dg.RunRequest)
    return dg.SensorResult(
        run_requests=[answer] if isinstance(answer, dg.RunRequest) else None,
        skip_reason=None if isinstance(answer, dg.RunRequest) else answer,
        cursor=str(Cursor(None if asked else since, observed_at)),
        asset_events=observations,
    )


def _waiting_since(plan: Plan, cursor: Cursor, now: datetime) -> float | None:
    if not plan.ranges:
        return None
    return min(cursor.waiting_since or now.timestamp(), now.timestamp())


def _answer(
    instance: dg.DagsterInstance, engine: Engine, plan: Plan, since: float | None, now: datetime
) -> dg.RunRequest | str:
    """One run to ask for, or why none."""
    under_way = instance.get_runs(dg.RunsFilter(tags={TABLE_TAG: plan.table.name}, statuses=UNDER_WAY), limit=1)
    if under_way:
        return f"run {under_way[0].run_id} is under way"
    wanted = _wanted(instance, engine, plan, since, now)
    if isinstance(wanted, str):
        return wanted
    return _attempt(instance, plan.table, wanted, now)


def _wanted(
    instance: dg.DagsterInstance, engine: Engine, plan: Plan, since: float | None, now: datetime
) -> Wanted | str:
    settings = engine.settings
    age_seconds = 0.0 if since is None else now.timestamp() - since
    if plan.ranges and (plan.rows_max >= settings.batch_rows_min or age_seconds >= settings.batch_age_seconds):
        return Wanted(plan.ranges, _start(engine, plan.table))
    if plan.ranges:
        return f"{plan.rows_max:,} records wait for {age_seconds:.1f} of {settings.batch_age_seconds:g} s"
    behind = unreported(instance, engine.lake, plan.table)
    return "nothing waits" if behind is None else Wanted((), behind)


def _start(engine: Engine, table: Table) -> str:
    """Name where a run starts: C with its epochs, so that a topic made anew does not look like its old beginning."""
    state = engine.lake.state(table)
    assert state is not None, f"{table.name} was planned, so it exists"
    return f"{state.table_uuid[:8]}-{state.offsets.version[:16]}"


def _attempt(instance: dg.DagsterInstance, table: Table, wanted: Wanted, now: datetime) -> dg.RunRequest | str:
    """Ask again for a start that a run has been asked for, later each time: a run key is used up even by a failure."""
    tags = {TABLE_TAG: table.name, START_TAG: wanted.start}
    before = instance.get_run_records(dg.RunsFilter(tags=tags))
    attempts = max((int(r.dagster_run.tags.get(ATTEMPT_TAG, 0)) for r in before), default=0)
    was_killed = attempts == 1 and any(DIED_TAG in r.dagster_run.tags for r in before)
    # one killed process says nothing about the batch; a second one may have been killed by it
    if before and not was_killed:
        ended = max(r.end_time or r.update_timestamp.timestamp() for r in before)
        wait_seconds = ended + back_off_seconds(attempts) - now.timestamp()
        if wait_seconds > 0:
            return f"attempt {attempts} ended without moving on; the next one waits {wait_seconds:.0f} s"
    return dg.RunRequest(
        run_key=f"{table.name}:{wanted.start}:{attempts + 1}",
        run_config=dg.RunConfig(ops={table.short_name: ingest_config(wanted.ranges)}),
        tags={**tags, ATTEMPT_TAG: str(attempts + 1)},
    )


def back_off_seconds(attempts: int) -> float:
    """How long to wait after so many attempts."""
    return min(BACK_OFF_SECONDS * 2.0 ** min(attempts, _BACK_OFF_DOUBLINGS_MAX), BACK_OFF_SECONDS_MAX)


_kept: dict[Settings, tuple[tuple[str, str], Engine]] = {}
_keeping = threading.Lock()


def kept_engine(settings: Settings) -> Engine:
    """An engine that stays open between ticks, one per settings; opened anew when a server has another address.

    The one before is left to the garbage collector: a tick in another thread may still hold it.
    """
    with _keeping:
        addresses = (settings.bootstrap(), settings.registry())
        if settings not in _kept or _kept[settings][0] != addresses:
            _kept[settings] = addresses, open_engine(settings)
        return _kept[settings][1]
