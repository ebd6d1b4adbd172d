"""One peer, measured from outside: CPU of its processes, and the commits its table remembers."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.compute as pc
from pyiceberg.exceptions import NoSuchTableError

from k2_tests.bench.peers.ground import Started

_SAMPLE_SECONDS = 0.1
_LOOK_SECONDS = 1.0
"""Between two looks at a peer's table, which take a core some ten milliseconds."""
_END_SECONDS_MAX = 60.0
_BUSY_CORES = 0.5
"""What a Java process that only waits stays far below, its polling threads included."""
_COMMITS_MIN = 3
"""Fewer commits give no rate between the first and the last."""


class Failed(Exception):
    """Raised when a peer did not bring every record in; says how far it came."""


@dataclass(frozen=True)
class Result:
    """What one peer did.

    whole: from the start of its process to its last commit, everything in. steady: from its first commit to its last,
    so that start and warm-up are left out; None when it made too few commits. idle_seconds: how long a peer that never
    ends by itself had nothing to do before its last commit; not part of steady, in its favour.
    """

    peer: str
    records: int
    commits: int
    whole_records_per_second: float
    whole_cpu_seconds_per_million: float
    steady_records_per_second: float | None
    steady_cpu_seconds_per_million: float | None
    idle_seconds: float
    rss_megabytes_max: float

    @property
    def records_per_second(self) -> float:
        return self.steady_records_per_second or self.whole_records_per_second

    @property
    def cpu_seconds_per_million(self) -> float:
        return self.steady_cpu_seconds_per_million or self.whole_cpu_seconds_per_million

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Course:
    """Samples of a run: wall time, CPU seconds so far; and the most memory its processes held."""

    started: float
    at: list[float]
    cpu: list[float]
    rss: int

    def cpu_at(self, time_: float) -> float:
        """CPU seconds used until then."""
        return float(np.interp(time_, self.at, self.cpu))

    def busy_until(self, end: float) -> float:
        """When its processes last used half a core over a second, before the end."""
        seconds = np.arange(self.started + 1, end, _SAMPLE_SECONDS)
        used = np.interp(seconds, self.at, self.cpu) - np.interp(seconds - 1, self.at, self.cpu)
        busy = seconds[used > _BUSY_CORES]
        return float(busy[-1]) if len(busy) else end


def race(peer: str, started: Started, records: int, *, seconds_max: float, log: Path) -> Result:
    """Run one peer until its table holds every record. Raises Failed."""
    before = _children_cpu()
    with log.open("wb") as output:
        own = {name: value for name, value in os.environ.items() if not name.startswith("K2_")}
        child = subprocess.Popen(started.command, stdout=output, stderr=subprocess.STDOUT, env=own)
        try:
            course = _follow(child, started, records, seconds_max)
        finally:
            _end(child)
    commits = _commits(started)
    if not commits or commits[-1][1] < records:
        raise Failed(f"{peer}: {commits[-1][1] if commits else 0:,} of {records:,} records; its output is in {log}")
    _expect_each_once(peer, started, records)
    return _result(peer, started, commits, course, max(_children_cpu() - before, course.cpu[-1]))


def _follow(child: subprocess.Popen[bytes], started: Started, records: int, seconds_max: float) -> _Course:
    begun, looked, rss = time.time(), 0.0, 0
    at, cpu = [begun], [0.0]
    while time.time() - begun < seconds_max and child.poll() is None:
        time.sleep(_SAMPLE_SECONDS)
        used, held = _tree(child.pid)
        at.append(time.time())
        cpu.append(max(used, cpu[-1]))
        rss = max(rss, held)
        if not started.ends and time.time() - looked > _LOOK_SECONDS:
            looked = time.time()
            if (commits := _commits(started)) and commits[-1][1] >= records:
                break
    return _Course(begun, at, cpu, rss)


def _tree(pid: int) -> tuple[float, int]:
    """CPU seconds and resident bytes of a process and its children."""
    cpu, held = 0.0, 0
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                used = process.cpu_times()
                cpu += used.user + used.system
                held += process.memory_info().rss
    return cpu, held


def _children_cpu() -> float:
    """CPU seconds of every child that ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(_END_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _commits(started: Started) -> list[tuple[float, int]]:
    """Wall time and rows in the table after each commit, oldest first."""
    try:
        snapshots = started.table().metadata.snapshots
    except NoSuchTableError:
        return []
    told = [(s.timestamp_ms / 1_000, int(s.summary["total-records"] or 0)) for s in snapshots if s.summary]
    return sorted(commit for commit in told if commit[1])


def _expect_each_once(peer: str, started: Started, records: int) -> None:
    ids = started.table().scan(selected_fields=("message_id",)).to_arrow()["message_id"]
    distinct = pc.count_distinct(ids).as_py()
    if (len(ids), distinct) != (records, records):
        raise Failed(f"{peer}: {len(ids):,} rows, {distinct:,} different ones, of {records:,} records")


def _result(
    peer: str, started: Started, commits: list[tuple[float, int]], course: _Course, cpu_seconds: float
) -> Result:
    first, (last, records) = commits[0], commits[-1]
    busy_until = last if started.ends else min(last, course.busy_until(last))
    rate = cost = None
    if len(commits) >= _COMMITS_MIN and busy_until > first[0]:
        rows = records - first[1]
        rate = rows / (busy_until - first[0])
        cost = (course.cpu_at(busy_until) - course.cpu_at(first[0])) / rows * 1e6
    return Result(
        peer=peer,
        records=records,
        commits=len(commits),
        whole_records_per_second=records / (last - course.started),
        whole_cpu_seconds_per_million=cpu_seconds / records * 1e6,
        steady_records_per_second=rate,
        steady_cpu_seconds_per_million=cost,
        idle_seconds=last - busy_until,
        rss_megabytes_max=course.rss / 2**20,
    )
