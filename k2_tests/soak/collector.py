"""The real `k2 feed binance-live` as a child process: killed, started again, watched, ended in order."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Self

import psutil

from k2_feeds.live.vitals import Memory
from k2_resources.settings import Settings
from k2_tests.e2e.stack import environment

_END_SECONDS_MAX = 60.0
_LOOK_EVERY_SECONDS = 1.0
_WARM_SECONDS = 20.0
"""A process fills its caches for so long before its memory is looked at."""


class Collector:
    """A context manager: the feed runs while it is entered, whoever kills it."""

    def __init__(self, settings: Settings, symbols: Sequence[str], ws_url: str, rest_url: str) -> None:
        """Everything a user would give on the command line or in the environment."""
        where = ("--url", ws_url, "--rest-url", rest_url, "--metrics-port", "0", "--json")
        self._command = [sys.executable, "-m", "k2_cli.main", "feed", "binance-live", *symbols, "--quotes", *where]
        self._environment = environment(
            settings.home,
            K2_KAFKA_BOOTSTRAP=settings.bootstrap(),
            K2_REGISTRY_URL=settings.registry(),
            K2_LIVE_ROTATE_SECONDS="7",
            K2_LIVE_OVERLAP_SECONDS="0.5",
            K2_LIVE_SILENCE_SECONDS="5",
            K2_LIVE_PING_SECONDS="2",
            K2_LIVE_BREAKER_SECONDS="2",
        )
        self._log = settings.home.parent / "feed.log"
        self.kills = self.starts = 0
        self.resident_bytes_max = 0
        self.mb_per_hour_max = 0.0

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End in order; a feed that had to leave something behind says so with its exit code."""
        self._child.send_signal(signal.SIGTERM)
        try:
            code = self._child.wait(_END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        assert kind is not None or code == 0, f"the feed ended with {code}:\n{self.told()}"

    def kill(self) -> None:
        """Kill -9, and start again."""
        self._child.kill()
        self._child.wait()
        self.kills += 1
        self._start()

    def look(self) -> None:
        """Note its memory. A feed that ended by itself is an error."""
        assert self._child.poll() is None, f"the feed ended with {self._child.returncode}:\n{self.told()}"
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_SECONDS:
            return
        self._looked = now
        resident = psutil.Process(self._child.pid).memory_info().rss
        self.resident_bytes_max = max(self.resident_bytes_max, resident)
        if now - self._started > _WARM_SECONDS:
            self._memory.sample(now, resident)
            self.mb_per_hour_max = max(self.mb_per_hour_max, self._memory.mb_per_hour)

    def settle(self, is_settled: Callable[[], bool], seconds_max: float) -> None:
        """Wait until nothing more is to come, or so long."""
        deadline = time.monotonic() + seconds_max
        while not is_settled() and time.monotonic() < deadline:
            self.look()
            time.sleep(0.5)

    def told(self) -> str:
        """The end of what it logged."""
        return self._log.read_text(errors="replace")[-4_000:]

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        self.starts += 1
        self._started, self._looked, self._memory = time.monotonic(), 0.0, Memory()
