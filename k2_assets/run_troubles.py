"""What Dagster says is wrong: runs that failed, and checks whose newest evaluation failed.

Runs that changed since the last look name the candidates, so that a look costs the same however long the history is;
the history of each candidate then says which of its evaluations is the newest.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecordStatus,
)
from dagster._core.storage.dagster_run import RunRecord
from dagster._core.storage.tags import PARTITION_NAME_TAG, WILL_RETRY_TAG
from dagster_shared.error import SerializableErrorInfo

from k2_assets.day_watch import BLOCKED_TAG
from k2_assets.runs import DIED_TAG
from k2_core.alerts import Condition, Fire
from k2_core.errors import FencedOut, K2Error, PartitionPaused
from k2_core.notices import section
from k2_core.standing import HALT_CODES
from k2_core.windows import from_us, to_us

RUNS_MAX = 200
"""Runs one look takes in; a warm stack ends two in five seconds."""
_OVERLAP = timedelta(seconds=5)
"""Read again at each look: a run that ended elsewhere may be written a moment after one that ended later."""
_FIRST_LOOK = timedelta(days=1)
"""How far back a watch that knows nothing looks for failed runs; of checks it reads every newest evaluation."""
WATCHED_OTHERWISE = frozenset({"freshness", "lag"})
"""Checks that speak of what the watch itself looks at each time, also when no run evaluates them."""
TOLD_OTHERWISE = frozenset({*HALT_CODES, PartitionPaused.code, FencedOut.code})
"""Codes of failed runs that are told as what they are: a topic that stands still. Who was fenced out lost nothing: the
rows are in by the other writer, or come with the next run; where they do not, the lag is told."""
IMPLIED_BY = {"completeness": "sequence_gaps"}
"""Check -> the one that says the same of its table and date, and says where: who is told of that is told."""
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]

Changes = dict[str, Condition | None]


def ended_runs(instance: dg.DagsterInstance, runs_us: int | None, now_us: int) -> Sequence[RunRecord]:
    """Runs that ended since, oldest change first. runs_us: the last change seen; None at a first look."""
    after = from_us(now_us) - _FIRST_LOOK if runs_us is None else from_us(runs_us) - _OVERLAP
    wanted = dg.RunsFilter(statuses=_ENDED, updated_after=after)
    return instance.get_run_records(wanted, limit=RUNS_MAX, order_by="update_timestamp", ascending=True)


def seen_until(records: Sequence[RunRecord], runs_us: int | None, now_us: int) -> int:
    """The last change of a run that has been looked at.

    After a full look the next begins right behind it: hundreds of runs may have been changed within one overlap.
    """
    started = now_us - _FIRST_LOOK // timedelta(microseconds=1) if runs_us is None else runs_us
    last = max((to_us(record.update_timestamp) for record in records), default=started)
    return last + _OVERLAP // timedelta(microseconds=1) if len(records) >= RUNS_MAX else last


def failed_runs(instance: dg.DagsterInstance, records: Iterable[RunRecord]) -> Changes:
    """Jobs whose newest run of some that ended failed, by job and partition; None where it succeeded."""
    newest: dict[tuple[str, str], RunRecord] = {}
    for record in records:
        run = record.dagster_run
        if run.status == dg.DagsterRunStatus.CANCELED or run.tags.get(WILL_RETRY_TAG) == "true":
            continue
        named = _job(run), run.tags.get(PARTITION_NAME_TAG, "")
        if named not in newest or _ended_at(newest[named]) <= _ended_at(record):
            newest[named] = record
    changes: Changes = {}
    for (job, partition), record in newest.items():
        over = Condition("run", job, "", "", partition=partition).key
        failed = record.dagster_run.status == dg.DagsterRunStatus.FAILURE
        changes[over] = _failure(instance, record.dagster_run, job, partition) if failed else None
    return changes


def failed_checks(instance: dg.DagsterInstance, records: Iterable[RunRecord], firing: Mapping[str, Fire]) -> Changes:
    """Checks that runs evaluated and that may have turned: what their newest evaluation says."""
    found: dict[str, tuple[dg.AssetCheckKey, str | None]] = {}
    for evaluation in _evaluations(instance, records):
        key = evaluation.asset_check_key
        condition = _condition(key, evaluation, "")
        fire = firing.get(condition.key)
        known = None if fire is None else fire.condition.severity
        if (None if evaluation.passed else condition.severity) != known:
            found[condition.key] = key, evaluation.partition
    return _newest(instance, found.values())


def all_failed_checks(instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey]) -> Changes:
    """Every check and partition whose newest evaluation failed: what a watch that knows nothing begins with."""
    watched = [key for key in keys if key.name not in WATCHED_OTHERWISE]
    infos = instance.event_log_storage.get_asset_check_partition_info(watched)
    passed = AssetCheckExecutionRecordStatus.SUCCEEDED
    return _newest(instance, [(i.check_key, i.partition_key) for i in infos if i.latest_execution_status != passed])


def without_echoes(changes: Changes, firing: Mapping[str, Fire]) -> Changes:
    """Leave out what only repeats something else that is wrong; what is over stays."""

    def is_echo(condition: Condition) -> bool:
        table, _, name = condition.subject.rpartition(" ")
        if condition.kind != "check" or name not in IMPLIED_BY:
            return False
        cause = Condition("check", f"{table} {IMPLIED_BY[name]}", "", "", partition=condition.partition).key
        return changes[cause] is not None if cause in changes else cause in firing

    return {key: condition for key, condition in changes.items() if condition is None or not is_echo(condition)}


def _evaluations(instance: dg.DagsterInstance, records: Iterable[RunRecord]) -> Iterable[dg.AssetCheckEvaluation]:
    for record in records:
        logged = instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        for entry in logged:
            if entry.dagster_event is not None:
                evaluation = entry.dagster_event.asset_check_evaluation_data
                if evaluation.check_name not in WATCHED_OTHERWISE:
                    yield evaluation


def _newest(instance: dg.DagsterInstance, asked: Iterable[tuple[dg.AssetCheckKey, str | None]]) -> Changes:
    """The newest evaluation of each check and partition; one that is only planned says nothing yet."""
    changes: Changes = {}
    for key, partition in asked:
        records = instance.event_log_storage.get_asset_check_execution_history(
            key,
            limit=1,
            status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
            partition_filter=PartitionKeyFilter(key=partition),
        )
        for record in records:
            if record.evaluation is not None:
                condition = _condition(key, record.evaluation, record.run_id)
                changes[condition.key] = None if record.evaluation.passed else condition
    return changes


def _condition(key: dg.AssetCheckKey, evaluation: dg.AssetCheckEvaluation, run_id: str) -> Condition:
    return Condition(
        "check",
        f"{'.'.join(key.asset_key.path)} {key.name}",
        evaluation.description or "the check failed",
        section(key.name, "check"),
        "warn" if evaluation.severity == dg.AssetCheckSeverity.WARN else "error",
        evaluation.partition or "",
        run_id,
    )


def _failure(instance: dg.DagsterInstance, run: dg.DagsterRun, job: str, partition: str) -> Condition | None:
    """Why a run failed; None when something else tells it."""
    if BLOCKED_TAG in run.tags:  # the check that blocked it is told, as of this run, which evaluated it last
        return None
    died = run.tags.get(DIED_TAG)
    error = None if died else _error(instance, run.run_id)
    code = _CODES.get(error.cls_name or "", "") if error else ""
    if code in TOLD_OTHERWISE:
        return None
    said = died or (_sentence(error) if error else "it ended before any step said why")
    return Condition("run", job, said, section(code, "run"), partition=partition, run_id=run.run_id)


def _error(instance: dg.DagsterInstance, run_id: str) -> SerializableErrorInfo | None:
    """The innermost error of the first step that failed."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        data = entry.dagster_event.step_failure_data if entry.dagster_event is not None else None
        error = data.error if data is not None else None
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return error
    return None


def _sentence(error: SerializableErrorInfo) -> str:
    """An error in one line. Its own class leads the message already."""
    return " ".join(error.message.split())


def _job(run: dg.DagsterRun) -> str:
    """What people call a run: its job, or the assets somebody chose."""
    if run.asset_selection and run.job_name.startswith("__"):
        return ", ".join(sorted(".".join(key.path) for key in run.asset_selection))
    return run.job_name


def _ended_at(record: RunRecord) -> float:
    return record.end_time or record.update_timestamp.timestamp()


def _codes(kind: type[K2Error]) -> dict[str, str]:
    found = {kind.__name__: kind.code}
    for below in kind.__subclasses__():
        found |= _codes(below)
    return found


_CODES = _codes(K2Error)
"""Class of an error, as a run's log names it -> its code."""
