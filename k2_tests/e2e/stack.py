"""The whole embedded stack as a user starts it: `k2 up` as a child, on a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx2 as httpx
import psutil

from k2_assets.engine import Engine, open_engine
from k2_assets.runs import UNDER_WAY
from k2_core.contracts import INGESTED
from k2_resources.settings import Settings

READY_SECONDS_MAX = 180
DRAIN_SECONDS_MAX = 240
INGEST_SECONDS_MAX = 400
_POLL_SECONDS = 0.1
UNCLOSED = {"K2_DAY_CLOSE_SETTLE_SECONDS": "86400"}
"""Settings of a stack whose test asks for no day's verdict: a dozen runs of day closes would take turns with its own."""


def k2(home: Path, *arguments: object, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run one `k2` command to its end."""
    ours = environment(home, **settings)
    done = subprocess.run(command(home, *arguments), capture_output=True, text=True, env=ours, check=False)
    assert not check or done.returncode == 0, f"k2 {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def command(home: Path, *arguments: object) -> list[str]:
    words = [str(a) for a in arguments]
    return [sys.executable, "-m", "k2_cli.main", *words]


def environment(home: Path, **settings: str) -> dict[str, str]:
    """The environment of a user with this home and no other setting than those named."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("K2_", "DAGSTER_"))}
    return {**kept, "K2_HOME": str(home), **settings}


class Up:
    """A running `k2 up`."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self._told = (home / "up.out").open("a+")
        at = self._told.seek(0, os.SEEK_END)
        self.process = subprocess.Popen(
            command(home, "up"), stdout=self._told, stderr=subprocess.STDOUT, env=environment(home, **settings)
        )
        wait_for(lambda: self._ready(at), READY_SECONDS_MAX, "`k2 up` to be ready")

    def _ready(self, at: int) -> bool:
        said = (self.home / "up.out").read_text()[at:]
        assert self.process.poll() is None, f"`k2 up` ended with {self.process.returncode}:\n{said}"
        return "K2 is up" in said.splitlines()

    @property
    def endpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "run" / "endpoints.json").read_text())
        return found

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(k2(self.home, "status", "--json", check=False).stdout)
        return told

    def await_ingested(self) -> None:
        """Wait until the sensor's runs have read everything there is, and reported it."""
        # a `k2 status` for each look would take the processor from what is waited for
        with open_engine(Settings(home=self.home)) as engine, self.dagster() as instance:
            wait_for(lambda: _lag(engine) == 0, INGEST_SECONDS_MAX, "ingestion")
            under_way = dg.RunsFilter(statuses=UNDER_WAY)
            wait_for(lambda: not instance.get_runs(under_way, limit=1), INGEST_SECONDS_MAX, "the last runs to end")

    def dagster(self) -> dg.DagsterInstance:
        """What Dagster has stored; to be used as a context."""
        return dg.DagsterInstance.from_config(str(self.home / "dagster"))

    @contextmanager
    def api(self) -> Iterator[httpx.Client]:
        key = (self.home / "api.key").read_text().strip()
        with httpx.Client(
            base_url=self.endpoints["api"], headers={"X-API-Key": key}, trust_env=False, timeout=60
        ) as client:
            yield client

    def stop(self) -> int:
        """Ctrl-C, and wait until it has drained."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(DRAIN_SECONDS_MAX)
        self._told.close()
        return code

    def kill_everything(self) -> list[int]:
        """kill -9 of every process of the stack at once. Returns their ids."""
        everybody = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in everybody:
            process.suspend()
        for process in everybody:
            process.kill()
        self.process.wait()
        self._told.close()
        return [process.pid for process in everybody]


@contextmanager
def running(home: Path, **settings: str) -> Iterator[Up]:
    """A stack that is stopped in the end, whatever happens."""
    stack = Up(home, **settings)
    try:
        yield stack
    finally:
        if stack.process.poll() is None:
            stack.stop()


def _lag(engine: Engine) -> int:
    """Records that wait, over all topics."""
    return sum(records for table in INGESTED for records in engine.lag(table).values())


def wait_for(done: Callable[[], object], seconds_max: float, what: str, *, poll_seconds: float = _POLL_SECONDS) -> None:
    """Wait until something is so. poll_seconds: between two looks; longer where a look costs more."""
    end = time.monotonic() + seconds_max
    while not done():
        assert time.monotonic() < end, f"waited {seconds_max} s for {what}"
        time.sleep(poll_seconds)
