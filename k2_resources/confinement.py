"""What a process gives up before it runs a stranger's work: files, sockets, programs, other processes, memory, time.

The kernel keeps the promise, not the program: a system call filter (seccomp) that lists what is allowed and answers
everything else with an error, resource limits, and, for root, another user. Whatever was open before stays open, so a
confined process works with exactly the descriptors it was given. Nothing here can be taken back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from dataclasses import dataclass

from k2_core.errors import K2Error

NOBODY = 65_534
"""The user and group without files, by convention of every Linux."""
NICENESS = 15
"""Strangers' work yields to ours: on a busy machine it gets about a thirtieth of a core."""

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_X86_64 = 0xC000003E
"""AUDIT_ARCH_X86_64 of linux/audit.h."""
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NO = _ERRNO | errno.EPERM
_LOAD, _EQUAL, _ANY_BIT, _ANSWER = 0x20, 0x15, 0x45, 0x06
"""BPF: load a word, jump if equal, jump if any bit is set, end with a verdict."""
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
"""Offsets in struct seccomp_data."""

_FREE = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "munmap": 11, "brk": 12,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20,
    "sched_yield": 24, "mremap": 25, "mincore": 27, "madvise": 28, "nanosleep": 35, "getpid": 39, "sendto": 44,
    "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "exit": 60, "uname": 63, "getrusage": 98, "sysinfo": 99,
    "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "sigaltstack": 131, "gettid": 186, "futex": 202,
    "sched_getaffinity": 204, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231,
    "ppoll": 271, "set_robust_list": 273, "preadv": 295, "getcpu": 309, "getrandom": 318, "membarrier": 324,
    "preadv2": 327, "rseq": 334,
}  # fmt: skip
"""System calls without an object of their own: they act on memory, on this process, on descriptors it holds."""
_ABSENT = {
    "open": 2, "stat": 4, "lstat": 6, "access": 21, "readlink": 89, "openat": 257, "newfstatat": 262,
    "readlinkat": 267, "faccessat": 269, "statx": 332, "openat2": 437, "faccessat2": 439,
}  # fmt: skip
"""Looking for a file finds none: libraries that look for an optional one go on without it."""
_UNKNOWN = {"clone3": 435}
"""Its flags lie in memory, out of the filter's sight: told it does not exist, libc falls back to clone."""
_MMAP, _MPROTECT, _CLONE, _TGKILL, _PRLIMIT = 9, 10, 56, 234, 302
_PROT_EXEC, _CLONE_THREAD = 0x4, 0x10000


class Unconfined(K2Error):
    """Raised when the system has no way to confine a process, so that it must not run what it was made for."""

    code = "UNCONFINED"


@dataclass(frozen=True)
class Limits:
    """What a confined process may use.

    memory_bytes: address space. seconds: of wall time, after which the kernel ends it; of processor time, a few more.
    """

    memory_bytes: int
    seconds: float


def possible() -> bool:
    """Whether this system can confine a process at all: Linux on x86-64."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def confine(limits: Limits) -> None:
    """Give everything up, for good. Raises Unconfined where the kernel does not go along.

    Call it in a process of one thread: others would stay free.
    """
    if not possible():
        raise Unconfined(f"no system call filter for {sys.platform} on {platform.machine()}")
    _limit(limits)
    _become_nobody()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise Unconfined(f"the kernel refuses no_new_privs: {os.strerror(ctypes.get_errno())}")
    code = _program(os.getpid())
    program = _Program(len(code) // 8, ctypes.cast(ctypes.create_string_buffer(code, len(code)), ctypes.c_void_p))
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise Unconfined(f"the kernel refuses the system call filter: {os.strerror(ctypes.get_errno())}")


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _limit(limits: Limits) -> None:
    os.nice(NICENESS)
    if not os.access("/proc/self/oom_score_adj", os.W_OK):
        raise Unconfined("/proc is not mounted")
    with open("/proc/self/oom_score_adj", "w") as first_to_go:
        first_to_go.write("1000")
    seconds = int(limits.seconds) + 2
    for kind, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, 2 * seconds),  # two threads may spend it at once
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    # the default action ends the process, whatever it is doing
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.seconds)


def _become_nobody() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _program(process_id: int) -> bytes:
    """The filter as BPF. Each rule that does not apply falls through to the next; the last word is no."""
    steps = [
        _load(_ARCHITECTURE_AT),
        _step(_EQUAL, 1, 0, _X86_64),
        _answer(_KILL),
        _load(_NUMBER_AT),
        *_rule(_FREE, _ALLOW),
        *_rule(_ABSENT, _ERRNO | errno.ENOENT),
        *_rule(_UNKNOWN, _ERRNO | errno.ENOSYS),
        # no memory becomes code, no child process, no signal to another, no limit of another
        *_by_bits(_MMAP, 2, _PROT_EXEC, when_set=_NO, otherwise=_ALLOW),
        *_by_bits(_MPROTECT, 2, _PROT_EXEC, when_set=_NO, otherwise=_ALLOW),
        *_by_bits(_CLONE, 0, _CLONE_THREAD, when_set=_ALLOW, otherwise=_NO),
        *_only(_TGKILL, 0, process_id),
        *_only(_PRLIMIT, 2, 0),
        _answer(_NO),
    ]
    return b"".join(steps)


def _rule(numbers: dict[str, int], verdict: int) -> list[bytes]:
    return [step for number in numbers.values() for step in (_step(_EQUAL, 0, 1, number), _answer(verdict))]


def _by_bits(number: int, argument: int, bits: int, *, when_set: int, otherwise: int) -> list[bytes]:
    """Answer a call by whether an argument has any of these bits."""
    load = _load(_ARGUMENTS_AT + 8 * argument)
    return [_step(_EQUAL, 0, 4, number), load, _step(_ANY_BIT, 0, 1, bits), _answer(when_set), _answer(otherwise)]


def _only(number: int, argument: int, value: int) -> list[bytes]:
    """Allow a call for one value of an argument. Its lower half is compared: process ids are smaller."""
    return [
        _step(_EQUAL, 0, 4, number),
        _load(_ARGUMENTS_AT + 8 * argument),
        _step(_EQUAL, 0, 1, value),
        _answer(_ALLOW),
        _answer(_NO),
    ]


def _load(offset: int) -> bytes:
    return _step(_LOAD, 0, 0, offset)


def _answer(verdict: int) -> bytes:
    return _step(_ANSWER, 0, 0, verdict)


def _step(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
