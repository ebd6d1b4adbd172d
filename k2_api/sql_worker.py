"""Cells for statements of strangers: how many at a time, how long each may live, and the end of those that will not.

The server's side of k2_resources/sql_cell. A cell lives for one statement and is killed when its answer is there, when
its time is up, or when nobody waits for it any more: no statement can stay, or leave anything behind for the next.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TypeVar

from k2_api.problems import Problem
from k2_api.sql_walk import failed, refused
from k2_core.errors import Damaged, K2Error, Misconfigured
from k2_resources.confinement import Limits, Unconfined, possible
from k2_resources.duck import QueryTimeout, QueryTooLarge
from k2_resources.settings import Settings
from k2_resources.sql_cell.wire import Job, receive_frame, send_descriptors, send_frame

Result = TypeVar("Result")

WAITING_MAX = 8
"""Statements that may wait for a cell: more than a few seconds of them, and asking again later is kinder."""
TREE_BYTES_MAX = 8 << 20
"""A tree is some hundred times its statement; those have at most 20,000 letters."""
FORK_ATTEMPTS = 2
"""A template the system killed, for memory, is replaced once."""
PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")
"""What a cell knows of the server's environment: how to find Python, and none of its secrets."""
GRACE_SECONDS = 1.0
"""The kernel ends a cell so long after we should have: only if we cannot."""
_START_SECONDS_MAX = 30.0


class SqlBroken(K2Error):
    """Raised when a cell failed in a way that is not the statement's fault."""

    code = "SQL_BROKEN"


@dataclass(frozen=True)
class SqlAnswer:
    """What a statement found. columns: name and Arrow type. truncated: there are more rows. body: in its format."""

    rows: int
    truncated: bool
    columns: tuple[tuple[str, str], ...]
    body: bytes


class SqlWorker:
    """Makes cells, a few at a time. The template they are forked from starts with the first statement."""

    def __init__(self, settings: Settings) -> None:
        """Raises Misconfigured where statements are wanted and no process can be confined, or no file handed over."""
        if settings.sql and not possible():
            raise Misconfigured("K2_SQL needs Linux on x86-64, where a process can be kept from everything else")
        if settings.sql and "://" in settings.warehouse_path().removeprefix("file://"):
            raise Misconfigured("K2_SQL needs the warehouse in a local directory: cells are handed open files")
        self._seconds = settings.sql_seconds_max
        self._limits = Limits(settings.sql_memory_bytes_max, self._seconds + GRACE_SECONDS)
        self._free = asyncio.Semaphore(settings.sql_cells)
        self._waiting = 0
        self._template = _Template()

    @asynccontextmanager
    async def cell(self) -> AsyncIterator[Cell]:
        """A cell for one statement; it is dead when the block is left. Raises Problem 429 when too many wait."""
        if self._waiting >= WAITING_MAX:
            raise Problem(429, "TOO_MANY_REQUESTS", "too many statements wait; ask again", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            cell = await self._forked()
            try:
                yield cell
            finally:
                cell.kill()
        finally:
            self._free.release()

    async def _forked(self) -> Cell:
        forking = asyncio.ensure_future(asyncio.to_thread(self._template.fork, self._limits))
        try:
            return Cell(*await asyncio.shield(forking), self._seconds)
        except asyncio.CancelledError:
            forking.add_done_callback(_unwanted)
            raise

    def close(self) -> None:
        """End the template. Cells that still run end with their deadlines, or when the server does."""
        self._template.close()


class Cell:
    """One confined process, from its statement to its answer. Made and used on the event loop."""

    def __init__(self, server: socket.socket, process: int, seconds: float) -> None:
        server.settimeout(seconds + GRACE_SECONDS)
        self._server = server
        self._process = process
        self._seconds = seconds
        self._ends = asyncio.get_running_loop().time() + seconds
        self._talking = threading.Lock()

    async def parse(self, statement: str) -> str:
        """The statement's tree, as JSON. Raises QueryTimeout, QueryTooLarge, SqlBroken."""
        return await self._do(lambda: self._parse(statement))

    async def run(self, job: Job, paths: tuple[str, ...]) -> SqlAnswer:
        """Run what was parsed over the data files it may read. Raises Problem 422, Damaged, and as parse does."""
        return await self._do(lambda: self._run(job, paths))

    def kill(self) -> None:
        """End the process, whatever it does; a thread that talks to it notices."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        os.close(self._process)
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        asyncio.get_running_loop().run_in_executor(None, self._close)

    async def _do(self, work: Callable[[], Result]) -> Result:
        """Talk to the process in a thread, for as long as it may live."""
        try:
            async with asyncio.timeout_at(self._ends):
                return await asyncio.to_thread(self._alone, work)
        except TimeoutError:
            raise QueryTimeout(f"the statement ran for {self._seconds:g} s, its deadline, and was stopped") from None
        except (EOFError, ConnectionError):
            raise QueryTooLarge("the statement ended its process, which needed more memory than it has") from None

    def _alone(self, work: Callable[[], Result]) -> Result:
        with self._talking:
            return work()

    def _close(self) -> None:
        with self._talking:
            self._server.close()

    def _parse(self, statement: str) -> str:
        send_frame(self._server, statement.encode())
        tree = receive_frame(self._server, TREE_BYTES_MAX).decode()
        if tree.startswith('{"error":"'):
            _raise_of(json.loads(tree))
        return tree

    def _run(self, job: Job, paths: tuple[str, ...]) -> SqlAnswer:
        send_frame(self._server, pickle.dumps(job))
        try:
            send_descriptors(self._server, paths)
        except FileNotFoundError as error:
            raise Damaged(f"a data file of the lake is gone: {error.filename}") from error
        told = json.loads(receive_frame(self._server))
        if "error" in told:
            _raise_of(told)
        body = receive_frame(self._server)
        return SqlAnswer(told["rows"], told["truncated"], tuple((n, t) for n, t in told["columns"]), body)


class _Template:
    """The process cells are forked from: it has imported everything and opened nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def fork(self, limits: Limits) -> tuple[socket.socket, int]:
        """A new cell: the socket to talk to it, and a descriptor of its process. Raises SqlBroken."""
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            for _ in range(FORK_ATTEMPTS):
                if process := self._asked(json.dumps(asdict(limits)).encode(), theirs):
                    return ours, process
                self._end()
        ours.close()
        raise SqlBroken("the process that makes cells ends as soon as it is asked")

    def _asked(self, limits: bytes, theirs: socket.socket) -> int | None:
        try:
            control = self._started()
            socket.send_fds(control, [limits], [theirs.fileno()])
            _, descriptors, *_ = socket.recv_fds(control, 1, 1)
        except OSError:
            return None
        return descriptors[0] if descriptors else None

    def close(self) -> None:
        with self._lock:
            self._end()

    def _started(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._control is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "k2_resources.sql_cell", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
                    start_new_session=True,
                )
            ours.settimeout(_START_SECONDS_MAX)
            self._control = ours
        return self._control

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()  # it ends when nobody can ask it any more
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._control = self._process = None


def _unwanted(forking: asyncio.Future[tuple[socket.socket, int]]) -> None:
    """End a cell that came when nobody waited for it any more."""
    if not forking.cancelled() and forking.exception() is None:
        Cell(*forking.result(), 0.0).kill()


def _raise_of(told: dict[str, str]) -> None:
    """Raise what a cell told. Only what is said of the statement reaches the client."""
    code, detail = told["error"], told["detail"]
    match code:
        case "SQL_ERROR":
            raise failed(detail)
        case "RESOURCE_LIMIT_EXCEEDED":
            raise QueryTooLarge(detail)
        case "DAMAGED":
            raise Damaged(detail)
        case "UNCONFINED":
            raise Unconfined(detail)
        case "PERMISSION":
            raise refused("it reaches for something outside of the tables")
        case _:
            raise SqlBroken(f"{code}: {detail}")
