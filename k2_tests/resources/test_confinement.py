"""What a confined process can still do: compute, and use what it was handed. Each attempt is a real one, in a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from k2_resources.confinement import NOBODY, possible

pytestmark = pytest.mark.skipif(not possible(), reason="no way to confine a process here")

ATTEMPTS = """
    import ctypes, json, mmap, os, resource, shutil, signal, socket, subprocess, sys, threading
    from k2_resources.confinement import Limits, confine

    target, parent = sys.argv[1], int(sys.argv[2])
    handed = os.open(target, os.O_RDONLY)
    confine(Limits(memory_bytes=1 << 30, seconds=float(sys.argv[3])))

    def outcome(attempt):
        try:
            attempt()
        except BaseException as error:
            return type(error).__name__
        return "done"

    def joined():
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()

    attempts = {
        "read": lambda: open(target).read(),
        "write": lambda: open(target, "w").write("x"),
        "create": lambda: open(target + ".new", "w"),
        "truncate": lambda: os.truncate(target, 0),
        "truncate handed": lambda: os.ftruncate(handed, 0),
        "write handed": lambda: os.write(handed, b"x"),
        "reopen handed": lambda: open(f"/proc/self/fd/{handed}", "r+b"),
        "remove": lambda: os.remove(target),
        "rename": lambda: os.rename(target, target + ".moved"),
        "link": lambda: os.link(target, target + ".link"),
        "symlink": lambda: os.symlink(target, target + ".link"),
        "directory": lambda: os.mkdir(target + ".d"),
        "list": lambda: os.listdir("/"),
        "chmod": lambda: os.chmod(target, 0o777),
        "chown": lambda: os.chown(target, 0, 0),
        "socket": lambda: socket.socket(),
        "unix socket": lambda: socket.socketpair(),
        "fork": lambda: os.fork() or os._exit(0),
        "run": lambda: subprocess.run(["true"]),
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "kill": lambda: os.kill(parent, signal.SIGTERM),
        "become root": lambda: os.setuid(0),
        "more memory": lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40)),
        "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
        "shared memory": lambda: os.memfd_create("x"),
        "no deadline": lambda: signal.setitimer(signal.ITIMER_REAL, 0),
        "import": lambda: __import__("sqlite3"),
        "too much": lambda: bytearray(2 << 30),
        "allowed: read handed": lambda: os.pread(handed, 1, 0),
        "allowed: compute": lambda: sorted(bytearray(1 << 20)),
        "allowed: thread": joined,
    }
    found = {name: outcome(attempt) for name, attempt in attempts.items()}
    print(json.dumps([os.getuid(), found]), flush=True)
    if len(sys.argv) > 4:
        while True:
            pass
"""


def confined(target: Path, seconds: float, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(ATTEMPTS), str(target), str(os.getpid()), str(seconds), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_confined_process_computes_and_reads_what_it_was_handed_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "data"
    target.write_text("precious")
    os.chmod(target, 0o666)  # so that it is not the file's mode that protects it
    child = confined(target, 30.0)
    told, _ = child.communicate(timeout=60)
    user, found = json.loads(told)
    assert user == (NOBODY if os.getuid() == 0 else os.getuid())
    assert {name for name, outcome in found.items() if outcome == "done"} == {
        n for n in found if n.startswith("allowed")
    }
    assert found["too much"] == "MemoryError"
    assert (target.read_text(), [file.name for file in tmp_path.iterdir()]) == ("precious", ["data"])


def test_the_kernel_ends_a_confined_process_at_its_deadline(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("precious")
    began = time.monotonic()
    child = confined(tmp_path / "data", 1.0, "endless")
    child.communicate(timeout=60)
    assert child.returncode < 0
    assert time.monotonic() - began >= 1.0
