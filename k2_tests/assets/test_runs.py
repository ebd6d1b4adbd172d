"""Runs whose process is gone."""

import os
import platform
import subprocess
import sys
import uuid

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData

from k2_assets.runs import BORN_TAG, HOST_TAG, PID_TAG, TABLE_TAG, fail_dead_runs, record_process
from k2_core.contracts import QUOTES, TRADES
from k2_tests.assets.conftest import DagsterHome

Status = dg.DagsterRunStatus


@pytest.fixture
def instance(another_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """Dagster without K2: these runs need none."""
    return another_instance


@pytest.fixture
def ended_process() -> dict[str, str]:
    """Tags of a process that has lived on this machine."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    tags = {
        PID_TAG: str(child.pid),
        BORN_TAG: str(psutil.Process(child.pid).create_time()),
        HOST_TAG: platform.node(),
    }
    child.kill()
    child.communicate()
    return tags


def add_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> str:
    run = dg.DagsterRun(job_name="ingest_trades", run_id=str(uuid.uuid4()), status=status, tags=tags)
    instance.add_run(run)
    return run.run_id


def status_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_a_started_run_of_an_ended_process_is_failed(
    instance: dg.DagsterInstance, ended_process: dict[str, str]
) -> None:
    run_id = add_run(instance, Status.STARTED, **ended_process)
    assert fail_dead_runs(instance) == [run_id]
    assert status_of(instance, run_id) == Status.FAILURE


def test_a_run_that_was_being_cancelled_is_cancelled(
    instance: dg.DagsterInstance, ended_process: dict[str, str]
) -> None:
    run_id = add_run(instance, Status.CANCELING, **ended_process)
    fail_dead_runs(instance)
    assert status_of(instance, run_id) == Status.CANCELED


def test_a_run_of_a_living_process_goes_on(instance: dg.DagsterInstance) -> None:
    run_id = add_run(instance, Status.STARTED)
    record_process(instance, run_id)
    assert fail_dead_runs(instance) == []
    assert status_of(instance, run_id) == Status.STARTED


def test_a_process_id_that_was_given_to_another_process_is_not_the_run(
    instance: dg.DagsterInstance, ended_process: dict[str, str]
) -> None:
    run_id = add_run(instance, Status.STARTED, **{**ended_process, PID_TAG: str(os.getpid())})
    assert fail_dead_runs(instance) == [run_id]


def test_runs_of_another_machine_are_left_to_it(instance: dg.DagsterInstance, ended_process: dict[str, str]) -> None:
    add_run(instance, Status.STARTED, **{**ended_process, HOST_TAG: "elsewhere"})
    assert fail_dead_runs(instance) == []


def test_a_sensor_leaves_the_runs_of_other_tables_to_theirs(
    instance: dg.DagsterInstance, ended_process: dict[str, str]
) -> None:
    of_quotes = add_run(instance, Status.STARTED, **{**ended_process, TABLE_TAG: QUOTES.name})
    of_nobody = add_run(instance, Status.STARTED, **ended_process)
    assert fail_dead_runs(instance, table=TRADES) == [of_nobody]
    assert fail_dead_runs(instance, table=QUOTES) == [of_quotes]


def test_runs_that_ended_stay_as_they_are(instance: dg.DagsterInstance, ended_process: dict[str, str]) -> None:
    run_id = add_run(instance, Status.SUCCESS, **ended_process)
    assert fail_dead_runs(instance) == []
    assert status_of(instance, run_id) == Status.SUCCESS


def test_an_ingest_run_nobody_took_up_is_failed_only_after_a_while(instance: dg.DagsterInstance) -> None:
    run_id = add_run(instance, Status.STARTING, **{TABLE_TAG: "market_data.trades"})
    assert fail_dead_runs(instance) == []
    assert fail_dead_runs(instance, starting_seconds_max=0.0) == [run_id]


def test_the_process_that_dagsters_launcher_logged_counts_too(
    instance: dg.DagsterInstance, ended_process: dict[str, str]
) -> None:
    for pid, dead in ((os.getpid(), False), (int(ended_process[PID_TAG]), True)):
        run_id = add_run(instance, Status.STARTING)
        run = instance.get_run_by_id(run_id)
        assert run is not None
        instance.report_engine_event("Started process for run", run, EngineEventData.in_process(pid))
        assert fail_dead_runs(instance) == ([run_id] if dead else [])


def test_a_run_names_its_process(home: DagsterHome) -> None:
    run = home.instance.get_run_by_id(home.run(TRADES).run_id)
    assert run is not None
    assert (run.tags[PID_TAG], run.tags[HOST_TAG]) == (str(os.getpid()), platform.node())
