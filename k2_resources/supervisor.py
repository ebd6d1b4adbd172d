"""Child processes of one supervisor: started when asked, ready when they answer, back when they crash, gone at the end.

Belongs here: processes, their logs, their restarts, the lock of a home. Does not: which services there are.
Used from the main thread only: the kernel ties a child to the life of the thread that started it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import structlog

from k2_core.errors import AlreadyRunning, Unreachable

POLL_SECONDS = 0.1
READY_SECONDS_MAX = 120.0
"""Dagster on a cold disk and a busy machine takes half of this."""
START_ATTEMPTS = 3
"""A port found free can be taken a moment later by somebody else; more than that is not bad luck."""
BACKOFF_SECONDS = 0.5
BACKOFF_SECONDS_MAX = 30.0
BACKOFF_DOUBLINGS_MAX = 10
"""Beyond it the limit holds anyway; crashes are not bounded, powers are."""
STEADY_SECONDS = 60.0
"""A service that ran this long has recovered: its next crash is a first one."""
LOG_BYTES_MAX = 20 << 20
"""A log beyond this is put aside, once, when its service starts."""
LOG_LINES_SHOWN = 15

log = structlog.get_logger(__name__)


class Stopping(Exception):
    """Raised out of a wait when the supervisor was asked to stop."""


@dataclass(frozen=True)
class Launch:
    """One start of a service: its command line, and how to see that it answers.

    answers: process id -> address once the service answers there, None before.
    """

    arguments: Sequence[str]
    answers: Callable[[int], str | None]


@dataclass(frozen=True)
class Service:
    """A process to keep running.

    launch: called at each start, so that a port taken meanwhile is not tried again.
    recovered: called once a crashed service answers again; False = call it again later.
    """

    name: str
    launch: Callable[[], Launch]
    recovered: Callable[[], bool] = lambda: True
    stop_seconds: float = 10.0


@dataclass
class Child:
    """A service as it runs now."""

    service: Service
    process: subprocess.Popen[bytes]
    launch: Launch
    began: float
    address: str | None = None
    crashes: int = 0
    owes_recovery: bool = False
    due: float = field(default=0.0)
    """Monotonic time of the next attempt: of a restart while it is dead, of `recovered` while it is owed."""
    swept: bool = False


class Supervisor:
    """Keeps services running until `stopping` is set; `hurry` cuts every wait short."""

    def __init__(
        self, logs: Path, environment: Mapping[str, str], changed: Callable[[Mapping[str, Child]], None]
    ) -> None:
        """changed: told all children by name whenever an address or a process changed."""
        self.stopping, self.hurry = threading.Event(), threading.Event()
        self.children: dict[str, Child] = {}
        self._logs, self._environment, self._changed = logs, environment, changed
        self._warden = self._start_warden()

    def begin(self, *services: Service) -> None:
        """Start services without waiting for them."""
        for service in services:
            self._spawn(service)

    def start(self, *services: Service) -> None:
        """Start services side by side, unless begun, and wait until all answer.

        Raises Unreachable with the end of the log, Stopping.
        """
        started = [self.children.get(service.name) or self._spawn(service) for service in services]
        deadline = time.monotonic() + READY_SECONDS_MAX
        while waiting := [child for child in started if not self._is_ready(child)]:
            for child in waiting:
                if child.process.poll() is not None:
                    self._retry_start(child)
                if time.monotonic() > deadline:
                    raise Unreachable(self._story(child.service.name, f"no answer in {READY_SECONDS_MAX:.0f} s"))
            self.wait(POLL_SECONDS)

    def watch(self) -> None:
        """Bring back what crashes, until asked to stop."""
        while not self.stopping.wait(POLL_SECONDS):
            for child in list(self.children.values()):
                with suppress(Stopping):
                    self._tend(child)

    def run(self, name: str, arguments: Sequence[str], seconds_max: float, *, unless: threading.Event) -> int | None:
        """Run a command to its end, logged under name. Its exit code, or None where it was cut short."""
        process = self._popen(name, arguments)
        deadline = time.monotonic() + seconds_max
        while process.poll() is None and time.monotonic() < deadline and not unless.is_set():
            time.sleep(POLL_SECONDS)
        code = process.poll()
        self._sweep(process)
        return code

    def stop(self, *names: str) -> None:
        """Ask services to end, in parallel; kill what does not, and whatever they started."""
        stopped = [self.children.pop(name) for name in names if name in self.children]
        for child in stopped:
            child.process.terminate()
        for child in stopped:
            deadline = time.monotonic() + child.service.stop_seconds
            while child.process.poll() is None and time.monotonic() < deadline and not self.hurry.is_set():
                time.sleep(POLL_SECONDS / 2)
            self._sweep(child.process)
            log.info("service stopped", service_name=child.service.name, exit_code=child.process.returncode)

    def close(self) -> None:
        """Stop whatever still runs and end the warden. Nothing is left after it."""
        self.stop(*reversed(self.children))
        if self._warden.stdin:
            with suppress(BrokenPipeError):
                self._warden.stdin.close()
        self._warden.wait()

    def wait(self, seconds: float) -> None:
        """Sleep. Raises Stopping when asked to stop."""
        if self.stopping.wait(seconds):
            raise Stopping

    def log_file(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _spawn(self, service: Service) -> Child:
        launch = service.launch()
        process = self._popen(service.name, launch.arguments)
        child = Child(service, process, launch, began=time.monotonic())
        self.children[service.name] = child
        self._changed(self.children)
        log.info("service started", service_name=service.name, process_id=process.pid)
        return child

    def _respawn(self, child: Child) -> None:
        child.launch = child.service.launch()
        child.process = self._popen(child.service.name, child.launch.arguments)
        child.began, child.swept = time.monotonic(), False
        self._changed(self.children)

    def _is_ready(self, child: Child) -> bool:
        if child.address is None and child.process.poll() is None:
            child.address = child.launch.answers(child.process.pid)
            if child.address is not None:
                self._changed(self.children)
        return child.address is not None

    def _retry_start(self, child: Child) -> None:
        child.crashes += 1
        self._sweep(child.process)
        if child.crashes >= START_ATTEMPTS:
            ended = f"ended with exit code {child.process.returncode} before it answered"
            raise Unreachable(self._story(child.service.name, ended))
        self._respawn(child)

    def _tend(self, child: Child) -> None:
        """One look at one service: note a crash, restart when due, and let it recover once it answers."""
        now = time.monotonic()
        if child.process.poll() is not None:
            if not child.swept:
                self._note_crash(child, now)
            elif now >= child.due:
                self._respawn(child)
        elif self._is_ready(child):
            if child.owes_recovery and now >= child.due:
                child.owes_recovery = not child.service.recovered()
                child.due = time.monotonic() + BACKOFF_SECONDS_MAX
            if now - child.began > STEADY_SECONDS:
                child.crashes = 0

    def _note_crash(self, child: Child, now: float) -> None:
        self._sweep(child.process)
        backoff = min(BACKOFF_SECONDS * 2 ** min(child.crashes, BACKOFF_DOUBLINGS_MAX), BACKOFF_SECONDS_MAX)
        child.crashes, child.due = child.crashes + 1, now + backoff
        child.address, child.owes_recovery, child.swept = None, True, True
        self._changed(self.children)
        code = child.process.returncode
        log.error("service crashed", service_name=child.service.name, exit_code=code, restart_in_seconds=backoff)

    def _popen(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own, tied to this process and known to the warden."""
        self._logs.mkdir(parents=True, exist_ok=True)
        file = self.log_file(name)
        if file.exists() and file.stat().st_size > LOG_BYTES_MAX:
            file.replace(file.with_suffix(".log.1"))
        command = [sys.executable, "-m", "k2_resources.tether", "exec", str(os.getpid()), *arguments]
        with file.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(self._environment),
                start_new_session=True,
            )
        self._announce(f"+{process.pid}\n")
        return process

    def _sweep(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what is left of a process and of everything it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._announce(f"-{process.pid}\n")

    def _start_warden(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "k2_resources.tether", "watch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _announce(self, line: str) -> None:
        if self._warden.poll() is not None:
            self._warden = self._start_warden()
            line = "".join(f"+{child.process.pid}\n" for child in self.children.values()) + line
        if self._warden.stdin:
            with suppress(BrokenPipeError):
                self._warden.stdin.write(line.encode())
                self._warden.stdin.flush()

    def _story(self, name: str, what: str) -> str:
        return f"{name}: {what}; see {self.log_file(name)}, which ends: {tail(self.log_file(name))}"


def tail(file: Path, lines: int = LOG_LINES_SHOWN) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"


def born(process_id: int) -> float | None:
    """When a process started, seconds since the epoch; None where there is none. With the id, names it for good."""
    try:
        return psutil.Process(process_id).create_time()
    except psutil.Error:
        return None


def end_leftovers(processes: Mapping[int, float]) -> None:
    """Kill the process groups a supervisor that was itself killed has left: leader's process id -> when it started."""
    for leader, started in processes.items():
        # a group can outlive its leader; a leader that began at another time is somebody else's
        if born(leader) in (started, None):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)


@contextmanager
def sole_owner(file: Path) -> Iterator[None]:
    """Hold a lock file that names this process. Raises AlreadyRunning naming the one that holds it.

    The kernel frees the lock with its process, so a file left behind is no obstacle.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = _locked(file)
    try:
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(lock)


def _locked(file: Path) -> int:
    while True:
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            time.sleep(POLL_SECONDS)  # the owner writes its id right after it locks
            owner = file.read_text().strip() or "unknown"
            raise AlreadyRunning(f"process {owner} already runs a stack here ({file}); end it first") from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), file.stat()):
                return lock
        # its last owner removed the file between our open and our lock: lock the one that is there now
        os.close(lock)
