"""The `fast` launcher: a run is a fork of a process that has imported everything and holds the definitions resolved.

With Dagster's own launcher each run is a new interpreter that imports for seconds. Here a fork server does it once.
Each run is still a process, and a run in Dagster: it can be watched, terminated and killed alone. Forks are made where
runs are dequeued: Dagster's daemon needs the code and the environment that otherwise only the code server needs.
"""

import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from dagster._core.errors import DagsterLaunchFailedError
from dagster._core.events import EngineEventData, JobFailureData
from dagster._core.instance import InstanceRef
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._grpc.impl import core_execute_run
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster._utils.interrupts import capture_interrupts

from k2_assets.runs import end_run, process_of, record_process, why_dead
from k2_resources.settings import Settings

PRELOADED = "k2_assets.warm"
"""What the fork server imports before its first fork."""
SERVER = "multiprocessing.forkserver"
"""The words of a fork server's command line."""
_POLL_SECONDS = 0.01
_DYING_SECONDS = 0.5
"""After a kill a process may still be there for a moment, but forks no more."""

_REPOSITORY = Path(__file__).resolve().parents[1]
_PACKAGES = ("k2_core", "k2_resources", "k2_feeds", "k2_assets")
"""Where the code of a run lies; a change in it outdates the forks."""


class Forks:
    """The fork server of this process: one, whatever the number of launchers."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOADED])
        self._starting = threading.Lock()
        self._as_of: float | None = None

    def start(self, ref: InstanceRef, run_id: str) -> ForkServerProcess:
        """Fork a process for a run. Raises DagsterLaunchFailedError when there is nothing to fork."""
        with self._starting:
            self._refresh()
            try:
                return self._fork(ref, run_id)
            except (OSError, EOFError):
                _end_fork_server()
                time.sleep(_DYING_SECONDS)
            try:
                return self._fork(ref, run_id)
            except (OSError, EOFError) as error:
                said = "the fork server ended before it made a process; why is in the log of Dagster's daemon"
                raise DagsterLaunchFailedError(said) from error  # type: ignore[no-untyped-call]

    def _fork(self, ref: InstanceRef, run_id: str) -> ForkServerProcess:
        process = self._context.Process(target=execute, args=(ref, run_id))
        process.start()
        return process

    def _refresh(self) -> None:
        """Begin with another fork server when the code changed: forks carry what it was when the server started."""
        changed = _changed_at()
        if changed != self._as_of:
            self._as_of = changed
            _end_fork_server()


_forks = Forks()


class WarmRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Launches each run as a fork of one warm process, which is started with the first run and after it died."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._watchers: list[threading.Thread] = []
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "WarmRunLauncher":
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Fork a process for the run and watch over it. Raises DagsterLaunchFailedError when there is none to fork."""
        run = context.dagster_run
        process = _forks.start(self._instance.get_ref(), run.run_id)
        pid = process.pid
        assert pid is not None, "it was started"
        self._instance.report_engine_event(f"Forked a warm process for run (pid: {pid})", run, _named(pid), type(self))
        watcher = threading.Thread(target=self._await_end, args=(run.run_id, process), daemon=True)
        watcher.start()
        self._watchers = [*(other for other in self._watchers if other.is_alive()), watcher]

    def join(self, timeout: int = 30) -> None:
        """Wait until the processes launched here have ended and their runs were looked at."""
        for watcher in self._watchers:
            watcher.join(timeout)

    def terminate(self, run_id: str) -> bool:
        """Interrupt the process of a run, from whichever process this is asked in. False when it has none."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        process = process_of(self._instance, run)
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
                return True
        if reason := why_dead(self._instance, run):
            end_run(self._instance, run_id, reason)
        return False

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Say whether the process of a run lives; it may have been launched by a daemon before this one."""
        reason = why_dead(self._instance, run)
        return CheckRunHealthResult(WorkerStatus.FAILED if reason else WorkerStatus.RUNNING, reason)

    def _await_end(self, run_id: str, process: ForkServerProcess) -> None:
        """Fail a run whose process ended without a word, at once: sensors notice within seconds, monitoring later."""
        process.join()
        if process.pid and psutil.pid_exists(process.pid):
            with suppress(psutil.NoSuchProcess):  # the fork server was killed, its forks were not
                psutil.Process(process.pid).wait()
        if self.has_instance:
            end_run(self._instance, run_id, _story(process))


def execute(ref: InstanceRef, run_id: str) -> None:
    """Execute one run in this process. Whatever goes wrong is told in the run's events; an exit code says no more."""
    with capture_interrupts(), dg.DagsterInstance.from_ref(ref) as instance:
        try:
            record_process(instance, run_id)
            for _ in _events(instance, run_id):
                pass
        except BaseException:  # interrupts too: the run must not stay as it is
            _tell_failure(instance, run_id)


def _events(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.DagsterEvent]:
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.job_code_origin is not None, f"run {run_id} was launched"
    return core_execute_run(recon_job_from_origin(run.job_code_origin), run, instance, inject_env_vars=True)


def _tell_failure(instance: dg.DagsterInstance, run_id: str) -> None:
    """Fail a run that Dagster left unfinished; nothing to do where it has told the failure itself."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return
    error = serializable_error_info_from_exc_info(sys.exc_info())
    instance.report_run_failed(run, "the process of the run could not execute it", JobFailureData(error=error))


def _named(pid: int) -> EngineEventData:
    """Metadata by which others find the process of a run that has not named it itself."""
    return EngineEventData(metadata={"pid": dg.MetadataValue.text(str(pid))})


def _story(process: ForkServerProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"its process {process.pid} was killed by {signal.Signals(-code).name}"
    return f"its process {process.pid} ended before the run did"


def _changed_at() -> float:
    """When the code or the configuration of a run was changed last, in seconds since the epoch."""
    sources = [path for name in _PACKAGES for path in (_REPOSITORY / name).rglob("*.py")]
    return max(path.stat().st_mtime for path in (*sources, *Settings().config.rglob("*.yaml")))


def _end_fork_server() -> None:
    """Replace the warm process, if there is one, by one with the code as it is. Runs under way are left alone."""
    for server in filter(_is_fork_server, psutil.Process().children()):
        server.kill()
        while server in psutil.Process().children():
            forkserver.ensure_running()  # only the standard library may find it dead; then it starts another
            time.sleep(_POLL_SECONDS)


def _is_fork_server(process: psutil.Process) -> bool:
    try:
        return SERVER in " ".join(process.cmdline())
    except psutil.Error:
        return False
