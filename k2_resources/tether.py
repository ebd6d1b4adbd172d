"""Processes that end when the one that started them ends, however it ends.

`exec PARENT COMMAND...` becomes COMMAND, which the kernel ends together with PARENT (Linux). `watch` is a process of
its own that reads `+GROUP` and `-GROUP` lines and, when its input closes, ends the process groups still listed: the
children's children too, on any Unix. Standard library only, so that each start costs milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 3.0
"""How long groups may take to end by themselves after their supervisor is gone."""
_POLL_SECONDS = 0.05


def become(parent: int, command: list[str]) -> None:
    """Replace this process by the command, tied to the life of the parent process id."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        # it died between starting this process and the call above, so no signal will come
        sys.exit(f"the parent process {parent} is gone")
    os.execvp(command[0], command)  # noqa: S606 - the supervisor's own argument list


def watch(lines: Iterable[str]) -> None:
    """Follow `+group` and `-group` lines; at their end, end the groups that are left."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        (groups.add if line.startswith("+") else groups.discard)(group)
    end(groups)


def end(groups: Iterable[int], *, grace_seconds: float = _GRACE_SECONDS) -> None:
    """Ask process groups to end, and kill what is left of them after the grace."""
    alive = {group for group in groups if _signal(group, signal.SIGTERM)}
    deadline = time.monotonic() + grace_seconds
    while alive and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        alive = {group for group in alive if _signal(group, 0)}
    for group in alive:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["exec", parent, *command] if command:
            become(int(parent), command)
        case ["watch"]:
            watch(sys.stdin)
        case _:
            sys.exit(__doc__)
