"""A code location for the tests of launchers: jobs that end, fail, wait, and die, and need no servers of ours."""

import os
import signal
import time
from pathlib import Path

import dagster as dg

WAIT_SECONDS_MAX = 250.0


class Place(dg.Config):
    """Where a job leaves a word."""

    file: str


@dg.op
def leave_a_word(config: Place) -> None:
    Path(config.file).write_text(str(os.getpid()))


@dg.op
def wait(config: Place) -> None:
    Path(config.file).write_text(str(os.getpid()))
    end = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < end:
        time.sleep(0.01)


@dg.op
def refuse() -> None:
    raise ValueError("no such luck")


@dg.op
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dg.job(executor_def=dg.in_process_executor)
def ends() -> None:
    leave_a_word()


@dg.job(executor_def=dg.in_process_executor)
def waits() -> None:
    wait()


@dg.job(executor_def=dg.in_process_executor)
def fails() -> None:
    refuse()


@dg.job(executor_def=dg.in_process_executor)
def dies() -> None:
    die()


defs = dg.Definitions(jobs=[ends, waits, fails, dies])
