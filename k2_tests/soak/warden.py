"""The API under trial: `k2 serve` in a process of its own, killed and started again on the same port."""

from __future__ import annotations

import subprocess
import sys
import time
from types import TracebackType

import httpx2 as httpx

from k2_cli.services import any_free
from k2_resources.settings import Settings
from k2_tests.e2e.stack import environment

_READY_SECONDS_MAX = 60.0
_GRACE_SECONDS = 1.0
"""Around a kill: a request may have been under way, or meet a connection that died with the server."""


class Api:
    """One address with an API behind it, most of the time."""

    def __init__(self, settings: Settings) -> None:
        self.port = any_free()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = settings
        self._down: list[tuple[float, float]] = []
        self._child = self._start()
        self.key = settings.api_key_file.read_text().strip()

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._child.terminate()
        self._child.wait(30)

    def die_and_rise(self) -> None:
        """Kill -9, and start again."""
        began = time.monotonic()
        self._down.append((began - _GRACE_SECONDS, float("inf")))
        self._child.kill()
        self._child.wait()
        self._child = self._start()
        self._down[-1] = (began - _GRACE_SECONDS, time.monotonic() + _GRACE_SECONDS)

    def was_down(self, start: float, end: float) -> bool:
        """Whether it was down at some moment of [start, end], by the monotonic clock."""
        return any(start <= up and down <= end for down, up in self._down)

    def _start(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "k2_cli.main",
                "serve",
                "--home",
                str(self._settings.home),
                "--port",
                str(self.port),
            ],
            env=environment(self._settings.home, **_addresses(self._settings)),
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _READY_SECONDS_MAX
        while time.monotonic() < deadline and child.poll() is None:
            try:
                httpx.get(f"{self.url}/health", trust_env=False, timeout=5)
            except httpx.TransportError:
                time.sleep(0.1)
            else:
                return child
        raise RuntimeError(f"the API did not start, exit code {child.poll()}")


def _addresses(settings: Settings) -> dict[str, str]:
    return {
        "K2_KAFKA_BOOTSTRAP": settings.bootstrap(),
        "K2_REGISTRY_URL": settings.registry(),
        "K2_API_RATE_PER_MINUTE": "0",  # a hundred readers share one key
        "K2_API_PROBES_PER_MINUTE": "0",
    }
