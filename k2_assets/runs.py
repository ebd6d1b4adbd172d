"""Runs and the processes behind them. Dagster's own launcher never notices that a worker died."""

import platform
from collections.abc import Mapping
from datetime import datetime

import dagster as dg
import psutil

from k2_core.contracts import Table
from k2_resources import clock

TABLE_TAG = "k2/table"
"""Table a run ingests into; single flight goes by it."""
START_TAG = "k2/start"
"""Digest of the offsets a run was planned to start from."""
ATTEMPT_TAG = "k2/attempt"
"""How many runs were asked for that start, this one included."""
DIED_TAG = "k2/died"
"""Why a run that was failed by K2 counted as dead; a run that failed by itself has none."""
PID_TAG, BORN_TAG, HOST_TAG = "k2/pid", "k2/process_started", "k2/host"
"""The process of a run: its id, its start in seconds since the epoch (ids are used again), and the machine."""

UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_CLAIMED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
"""Statuses that claim a living process; a queued run has none and is the daemon's to start."""

STARTING_SECONDS_MAX = 60.0
"""A worker names its process within 4 s, within 15 s on a busy laptop; after a minute of silence there is none."""
_BORN_TOLERANCE_SECONDS = 2.0
"""The kernel counts in ticks since boot, and a clock may be stepped a little."""


def record_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Tag a run with the process it runs in; the first thing a run does."""
    me = psutil.Process()
    tags = {PID_TAG: str(me.pid), BORN_TAG: f"{me.create_time():.3f}", HOST_TAG: platform.node()}
    instance.add_run_tags(run_id, tags)


def fail_dead_runs(
    instance: dg.DagsterInstance, starting_seconds_max: float = STARTING_SECONDS_MAX, table: Table | None = None
) -> list[str]:
    """Fail every run whose process is gone, so that single flight and pools open again. Returns their ids.

    starting_seconds_max: how long an ingest run may go without naming a process; 0 when no stack can be running.
    table: leave the runs of other tables to their own sensors.
    """
    dead = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=_CLAIMED)):
        run = record.dagster_run
        if table is not None and run.tags.get(TABLE_TAG, table.name) != table.name:
            continue
        reason = _death(instance, run, record.update_timestamp, starting_seconds_max)
        if reason is not None and end_run(instance, run.run_id, reason):
            dead.append(run.run_id)
    return dead


def end_run(instance: dg.DagsterInstance, run_id: str, reason: str) -> bool:
    """Fail a run whose process is gone, or cancel it where that was asked. False when it has ended meanwhile."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return False
    instance.add_run_tags(run_id, {DIED_TAG: reason})
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, reason)
    else:
        instance.report_run_failed(run, reason)
    return True


def process_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> psutil.Process | None:
    """The living process of a run; None when it has none, none yet, or one of another machine."""
    if PID_TAG in run.tags:
        pid, lives = int(run.tags[PID_TAG]), run.tags.get(HOST_TAG) == platform.node() and _is_alive(run.tags)
    else:
        pid, at = _launched(instance, run.run_id) or (0, 0.0)
        lives = bool(pid) and _was_alive(pid, at)
    return psutil.Process(pid) if lives else None


def why_dead(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """Why the process of a run counts as dead; None while it may live. Runs of other machines are theirs to judge."""
    tags = run.tags
    if PID_TAG in tags:
        gone = tags.get(HOST_TAG) == platform.node() and not _is_alive(tags)
        return f"its process {tags[PID_TAG]} is gone" if gone else None
    launched = _launched(instance, run.run_id)
    return f"its process {launched[0]} is gone" if launched is not None and not _was_alive(*launched) else None


def _death(
    instance: dg.DagsterInstance, run: dg.DagsterRun, updated: datetime, starting_seconds_max: float
) -> str | None:
    """Why a run counts as dead: its process is gone, or none has taken it up for too long."""
    reason = why_dead(instance, run)
    # what other jobs there are may start slowly, but not while nothing runs that could start them
    if reason is None and PID_TAG not in run.tags and (TABLE_TAG in run.tags or not starting_seconds_max):
        silent = (clock.now() - updated).total_seconds()
        if silent >= starting_seconds_max and _launched(instance, run.run_id) is None:
            return f"no process took it up for {silent:.0f} s"
    return reason


def _is_alive(tags: Mapping[str, str]) -> bool:
    born = _born(int(tags[PID_TAG]))
    return born is not None and abs(born - float(tags[BORN_TAG])) <= _BORN_TOLERANCE_SECONDS


def _was_alive(pid: int, at: float) -> bool:
    """Whether the process that has the id now had it then."""
    born = _born(pid)
    return born is not None and born <= at + _BORN_TOLERANCE_SECONDS


def _born(pid: int) -> float | None:
    """Start of a process in seconds since the epoch; None when there is none, or only its remains."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return float("-inf")


def _launched(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """Process id and time that Dagster's own launcher logged; None before it did."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event is not None else None
        if pid is not None:
            return int(str(pid.value)), entry.timestamp
    return None
