"""Workers and brokers: started, watched, stopped and killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from k2_resources.embedded_broker import broker_file
from k2_tests.crash.torture.attempts import Attempt
from k2_tests.crash.torture.zygote import Zygote

ATTEMPT_SECONDS_MAX = 90.0
BROKER_SECONDS_MAX = 30.0
_POLL_SECONDS = 0.004


@dataclass(frozen=True)
class Worker:
    """One forked process and its attempt."""

    attempt: Attempt
    pid: int
    zygote: Zygote

    def stops(self) -> bool:
        """Wait until it stops at its failpoint; False when it ended before it came there."""
        return self.zygote.await_stop(self.pid, ATTEMPT_SECONDS_MAX)

    def goes_on(self) -> None:
        self.zygote.signal(self.pid, signal.SIGCONT)

    def killed_after(self, seconds: float) -> None:
        """Kill it wherever it is by then."""
        time.sleep(seconds)
        self.kill()

    def kill(self) -> None:
        self.zygote.signal(self.pid, signal.SIGKILL)

    def ends(self, seconds_max: float = ATTEMPT_SECONDS_MAX) -> int:
        """Wait for its end and give its exit code, -9 for a kill. Raises TimeoutError."""
        return self.zygote.await_end(self.pid, seconds_max)


class Broker:
    """An embedded broker that is killed, not asked to end. It ends with its lane by itself."""

    def __init__(self, topics: Mapping[str, int], home: Path) -> None:
        named = [f"{topic}={partitions}" for topic, partitions in topics.items()]
        command = [sys.executable, "-m", "k2_resources.embedded_broker", str(home), *named]
        self._home = home
        self._child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def bootstrap(self) -> str:
        """Its address, once it is ready."""
        deadline = time.monotonic() + BROKER_SECONDS_MAX
        while time.monotonic() < deadline and self._child.poll() is None:
            file = broker_file(self._home)
            ready = json.loads(file.read_text()) if file.exists() else {}
            if ready.get("pid") == self._child.pid:
                return str(ready["bootstrap"])
            time.sleep(_POLL_SECONDS)
        raise TimeoutError(f"broker on {self._home}: not ready, exit code {self._child.poll()}")

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()
