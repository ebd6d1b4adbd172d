"""Both launchers keep the same promises; and what only the warm one has to get right."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from k2_assets import launcher
from k2_assets.launcher import WarmRunLauncher
from k2_assets.runs import DIED_TAG, fail_dead_runs
from k2_resources.settings import Settings
from k2_tests.assets.conftest import QUIET

Status = dg.DagsterRunStatus
WARM = {"run_launcher": {"module": "k2_assets.launcher", "class": WarmRunLauncher.__name__}}
LAUNCHERS: dict[str, dict[str, Any]] = {"standard": {}, "fast": WARM}
PATIENCE_SECONDS = 60.0


def eventually(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (it := found()):
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.02)
    return it


@dataclass
class Launching:
    """Dagster with one launcher, and the jobs of k2_tests.assets.launched."""

    instance: dg.DagsterInstance
    workspace: BaseWorkspaceRequestContext
    folder: Path

    def launch(self, job: str, ops: dict[str, Any] | None = None) -> str:
        """Launch a run of a job, as the queue does."""
        remote = self.workspace.get_code_location("launched").get_repository("__repository__").get_full_job(job)
        run = create_run_for_test(
            self.instance,
            job_name=job,
            remote_job_origin=remote.get_remote_origin(),
            job_code_origin=remote.get_python_origin(),
            run_config={**QUIET, "ops": ops or {}},
        )
        self.instance.launch_run(run.run_id, self.workspace)
        return str(run.run_id)

    def launch_waiting(self) -> tuple[str, psutil.Process]:
        """Launch a run that waits. Returns it and its process, once its step has begun."""
        word = self.folder / "word"
        word.unlink(missing_ok=True)
        run_id = self.launch("waits", {"wait": {"config": {"file": str(word)}}})
        return run_id, psutil.Process(int(eventually(lambda: word.exists() and word.read_text())))

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def end(self, run_id: str) -> dg.DagsterRunStatus:
        """Wait for the end of a run, looking after the dead as the sensors do. Returns how it ended."""

        def is_over() -> bool:
            fail_dead_runs(self.instance)
            return self.run(run_id).is_finished

        eventually(is_over)
        return self.run(run_id).status

    def story(self, run_id: str) -> str:
        """What the events of a run say, errors included."""
        events = [entry.dagster_event for entry in self.instance.all_logs(run_id) if entry.dagster_event]
        return "\n".join(f"{event.message} {event.event_specific_data}" for event in events)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseWorkspaceRequestContext]:
    """A code server for the runs of both launchers; the warm one asks it where the code lies, and no more."""
    target = ModuleTarget("k2_tests.assets.launched", None, None, "launched")
    with (
        dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("code"))) as instance,
        WorkspaceProcessContext(instance, target) as context,
    ):
        yield context.create_request_context()


@pytest.fixture(params=LAUNCHERS)
def launching(
    request: pytest.FixtureRequest, tmp_path: Path, new_dagster_home: Path, workspace: BaseWorkspaceRequestContext
) -> Iterator[Launching]:
    home = shutil.copytree(new_dagster_home, tmp_path / "dagster")
    overrides = {"telemetry": {"enabled": False}, **LAUNCHERS[request.param]}
    with dg.DagsterInstance.local_temp(str(home), overrides=overrides) as instance:
        yield Launching(instance, workspace, tmp_path)
        instance.run_launcher.join()


fast_only = pytest.mark.parametrize("launching", ["fast"], indirect=True)


def warm_process() -> psutil.Process | None:
    """The fork server of this process."""
    found = [child for child in psutil.Process().children() if launcher.SERVER in " ".join(child.cmdline())]
    return found[0] if found else None


def test_a_run_is_a_process_of_its_own_that_says_how_it_ended(launching: Launching) -> None:
    word = launching.folder / "word"
    done = launching.launch("ends", {"leave_a_word": {"config": {"file": str(word)}}})
    failed = launching.launch("fails")
    assert (launching.end(done), launching.end(failed)) == (Status.SUCCESS, Status.FAILURE)
    assert int(word.read_text()) != os.getpid()
    assert "no such luck" in launching.story(failed)
    assert DIED_TAG not in launching.run(failed).tags


def test_a_run_that_is_killed_is_failed_and_its_death_is_told(launching: Launching) -> None:
    run_id, process = launching.launch_waiting()
    process.kill()
    assert launching.end(run_id) == Status.FAILURE
    assert str(process.pid) in launching.run(run_id).tags[DIED_TAG]
    assert launching.run(run_id).tags[DIED_TAG] in launching.story(run_id)


def test_a_run_that_is_terminated_is_canceled_and_its_process_ends(launching: Launching) -> None:
    run_id, process = launching.launch_waiting()
    assert launching.instance.run_launcher.terminate(run_id)
    assert launching.end(run_id) == Status.CANCELED
    eventually(lambda: has_ended(process))
    assert not launching.instance.run_launcher.terminate(run_id)


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more; its parent may be in no hurry to take note."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@fast_only
def test_a_killed_run_is_failed_without_anybody_looking(launching: Launching) -> None:
    run_id = launching.launch("dies")
    eventually(lambda: launching.run(run_id).is_finished)
    assert "was killed by SIGKILL" in launching.run(run_id).tags[DIED_TAG]


@fast_only
def test_run_monitoring_sees_the_health_of_a_run_launched_by_a_daemon_before_this_one(launching: Launching) -> None:
    run_id, process = launching.launch_waiting()
    with dg.DagsterInstance.from_ref(launching.instance.get_ref()) as later:
        run, of_later = launching.run(run_id), later.run_launcher
        assert of_later.supports_check_run_worker_health
        assert of_later.check_run_worker_health(run).status == WorkerStatus.RUNNING
        process.kill()
        eventually(lambda: of_later.check_run_worker_health(run).status == WorkerStatus.FAILED)
        assert str(process.pid) in str(of_later.check_run_worker_health(run).msg)


@fast_only
def test_a_process_of_another_daemon_can_terminate_a_run(launching: Launching) -> None:
    """The webserver does, and has launched nothing."""
    run_id, _ = launching.launch_waiting()
    with dg.DagsterInstance.from_ref(launching.instance.get_ref()) as webserver:
        assert webserver.run_launcher.terminate(run_id)
    assert launching.end(run_id) == Status.CANCELED


@fast_only
def test_a_run_that_cannot_be_loaded_fails_with_the_reason(launching: Launching) -> None:
    """It goes wrong before Dagster would tell, and must not stay as if it started."""
    remote = launching.workspace.get_code_location("launched").get_repository("__repository__").get_full_job("ends")
    run = create_run_for_test(launching.instance, job_name="ends", remote_job_origin=remote.get_remote_origin())
    launching.instance.launch_run(run.run_id, launching.workspace)
    eventually(lambda: launching.run(run.run_id).is_finished)
    assert launching.run(run.run_id).status == Status.FAILURE
    assert "could not execute it" in launching.story(run.run_id)


@fast_only
def test_a_killed_fork_server_takes_no_run_along_and_is_back_for_the_next(launching: Launching) -> None:
    run_id, process = launching.launch_waiting()
    before = warm_process()
    assert before is not None
    before.kill()
    after_id, other = launching.launch_waiting()
    after = warm_process()
    assert after is not None and after.pid != before.pid
    for waiting in (process, other):
        assert waiting.is_running()
        waiting.kill()
        eventually(lambda waiting=waiting: has_ended(waiting))
    assert (launching.end(run_id), launching.end(after_id)) == (Status.FAILURE, Status.FAILURE)


@fast_only
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux to name the threads of a process")
def test_the_fork_server_has_no_thread_and_no_connection_of_its_own(launching: Launching) -> None:
    """A fork has the thread that forked and no other, and shares what is open."""
    launching.end(launching.launch("fails"))
    warm = warm_process()
    assert warm is not None
    threads = {path.read_text().strip() for path in Path(f"/proc/{warm.pid}/task").glob("*/comm")}
    assert threads - {warm.name()} <= {"jemalloc_bg_thd"}, "Arrow's allocator knows of forks"
    assert warm.net_connections(kind="inet") == []
    assert [file.path for file in warm.open_files() if file.path.endswith((".db", ".parquet"))] == []


@fast_only
def test_a_change_of_code_or_configuration_starts_another_fork_server(
    launching: Launching, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, process = launching.launch_waiting()
    before = warm_process()
    config = shutil.copytree(Settings().config, launching.folder / "config")
    monkeypatch.setenv("K2_CONFIG", str(config))
    later = time.time() + 10
    os.utime(config / "feeds.yaml", (later, later))
    after = []
    for _ in range(2):
        launching.end(launching.launch("fails"))
        after.append(warm_process())
    assert before is not None and before not in after
    assert after[0] == after[1] is not None
    assert process.is_running()
    process.kill()
    assert launching.end(run_id) == Status.FAILURE
