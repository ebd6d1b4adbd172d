"""Writers as processes of their own: killed, stopped in the middle of a commit, and woken up again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from k2_assets.engine import ingest_until_caught_up, open_engine
from k2_core.errors import FencedOut, K2Error
from k2_resources.settings import Settings

KILLED = -signal.SIGKILL
FENCED_OUT = FencedOut.code
CAUGHT_UP = ""
"""Outcome of a writer that ended because nothing waited."""
_WAIT_SECONDS_MAX = 90.0
_POLL_SECONDS = 0.02


class Writer:
    """One process that ingests until nothing waits; ends with the block.

    failpoint: `name[:nth][:kill|pause]` at which it dies or stops. patient: plans again when it lost a race.
    """

    def __init__(self, settings: Settings, failpoint: str = "", *, patient: bool = False) -> None:
        self._outcome = settings.home.parent / f"outcome-{time.monotonic_ns()}"
        told: dict[str, Any] = {**settings.model_dump(mode="json"), "failpoint": failpoint}
        self._failpoint = failpoint
        self._process: BaseProcess = _forks().Process(target=_ingest, args=(told, str(self._outcome), patient))

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _at: TracebackType | None) -> None:
        self._process.kill()
        self._process.join()

    def killed(self) -> None:
        """Wait until it died of kill -9 at its failpoint."""
        self._process.join(_WAIT_SECONDS_MAX)
        assert self._process.exitcode == KILLED, f"{self._failpoint} was not reached: {self._said()}"

    def paused(self) -> None:
        """Wait until it stopped at its failpoint."""
        deadline = time.monotonic() + _WAIT_SECONDS_MAX
        while psutil.Process(self._process.pid).status() != psutil.STATUS_STOPPED:
            assert self._process.is_alive(), f"{self._failpoint} was not reached: {self._said()}"
            assert time.monotonic() < deadline, f"{self._failpoint} was not reached in time"
            time.sleep(_POLL_SECONDS)

    def wake(self) -> str:
        """Let a stopped writer go on, and wait for its end: the code of the error it ended with."""
        self.signal(signal.SIGCONT)
        return self.ended()

    def ended(self) -> str:
        """Wait for its end: the code of the error it ended with."""
        self._process.join(_WAIT_SECONDS_MAX)
        assert self._process.exitcode is not None, "it did not end"
        assert self._process.exitcode != KILLED
        return self._said()

    def signal(self, number: int) -> None:
        """Send it a signal, as somebody outside would."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def _said(self) -> str:
        return self._outcome.read_text() if self._outcome.exists() else f"exit code {self._process.exitcode}"


def _forks() -> multiprocessing.context.ForkServerContext:
    """Processes forked from one that has everything imported: a start costs milliseconds."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([__name__])
    return forks


def _ingest(told: dict[str, Any], outcome: str, patient: bool) -> None:
    # the fork server has the environment of whichever test started it
    for name in [name for name in os.environ if name.startswith("K2_")]:
        del os.environ[name]
    Path(outcome).write_text(_run(Settings(**told), patient))
    os._exit(0)


def _run(settings: Settings, patient: bool) -> str:
    while True:
        try:
            ingest_until_caught_up(open_engine(settings))
        except FencedOut as lost:
            if not patient:
                return lost.code
        except K2Error as error:
            return error.code
        else:
            return CAUGHT_UP
