"""A process that has everything imported and only forks: a worker of it starts in milliseconds and may be killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

_POLL_SECONDS = 0.004
_PR_SET_PDEATHSIG = 1


def forked(what: Callable[[], object]) -> int:
    """Fork a child that does one thing and ends; gives its process id. Only for a process without threads."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        what()
        code = 0
    finally:
        os._exit(code)


@dataclass
class Zygote:
    """The lane's end of it. Workers end with the zygote, the zygote with its lane, however that ends.

    Make it before the first thread: what is forked from it has none.
    """

    run: Callable[[Any], object]
    _stopped: set[int] = field(default_factory=set)
    _ended: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._told, there = Pipe()
        self.pid = forked(lambda: _serve(there, self._told, self.run))
        there.close()

    def start(self, work: Any) -> int:
        """Fork a worker and give its process id."""
        self._told.send(work)
        while isinstance(told := self._told.recv(), tuple):
            self._note(told)
        pid: int = told
        # the number of a worker that ended long ago is given again, after some thirty thousand others
        self._ended.pop(pid, None)
        self._stopped.discard(pid)
        return pid

    def await_stop(self, pid: int, seconds_max: float) -> bool:
        """Wait until a worker stops; False when it ended instead. Raises TimeoutError."""
        self._await(lambda: pid in self._stopped or pid in self._ended, seconds_max)
        return pid in self._stopped

    def await_end(self, pid: int, seconds_max: float) -> int:
        """Wait for the exit code of a worker, -9 for a kill. Raises TimeoutError."""
        self._await(lambda: pid in self._ended, seconds_max)
        return self._ended[pid]

    def signal(self, pid: int, number: int) -> None:
        """Signal a worker, unless it has ended."""
        self._stopped.discard(pid)
        if pid not in self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self) -> None:
        """End the zygote and every worker that is left."""
        self._told.close()
        os.waitpid(self.pid, 0)

    def _await(self, is_done: Callable[[], bool], seconds_max: float) -> None:
        deadline = time.monotonic() + seconds_max
        while not is_done():
            if not self._told.poll(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"nothing happened in {seconds_max:.0f} s")
            self._note(self._told.recv())

    def _note(self, told: tuple[int, int | None]) -> None:
        pid, code = told
        if code is None:
            self._stopped.add(pid)
        else:
            self._ended[pid] = code


def _serve(connection: Connection, other_end: Connection, run: Callable[[Any], object]) -> None:
    """Fork what is asked for; tell (worker, exit code), None for one that stopped."""
    other_end.close()
    alive: set[int] = set()
    try:
        while True:
            if connection.poll(_POLL_SECONDS):
                work = connection.recv()
                pid = forked(lambda work=work: _tied(run, work))  # type: ignore[misc]
                alive.add(pid)
                connection.send(pid)
            for pid, code in _changes(alive):
                connection.send((pid, code))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _tied(run: Callable[[Any], object], work: Any) -> None:
    """Do the work in a process that the kernel ends with its zygote, also while it stands still (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    run(work)


def _changes(alive: set[int]) -> list[tuple[int, int | None]]:
    """Workers that stopped or ended since the last look."""
    found: list[tuple[int, int | None]] = []
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if not pid:
            break
        if os.WIFSTOPPED(status):
            found.append((pid, None))
        else:
            alive.discard(pid)
            found.append((pid, os.waitstatus_to_exitcode(status)))
    return found
