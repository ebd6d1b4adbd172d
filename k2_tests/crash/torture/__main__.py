"""`python -m k2_tests.crash.torture --kills N`: kill until N are dead, and say how it went."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from k2_tests.crash.torture.attempts import warm
from k2_tests.crash.torture.lane import Place, Share, Told, run_lane, shares
from k2_tests.crash.torture.points import ANYWHERE, POINTS
from k2_tests.crash.torture.zygote import forked

PROGRESS_EVERY_SECONDS = 20.0


def main() -> int:
    arguments = parser().parse_args()
    under = Path(tempfile.mkdtemp(prefix="k2-torture-", dir=arguments.under))
    print(f"seed {arguments.seed}, homes in {under}", flush=True)
    warm()
    with registry(under) as registry_url:
        report = Report(arguments.kills)
        report.follow(started(arguments, registry_url, under))
    print(report.table(arguments.points), flush=True)
    if not report.failures:
        shutil.rmtree(under)
    print(report.last_line(arguments.seed), flush=True)
    return 1 if report.failures else 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m k2_tests.crash.torture", description=__doc__)
    p.add_argument("--kills", type=int, default=10_000)
    p.add_argument("--each", type=int, default=None, help="kills at each point at least; 2 %% of all unless told")
    p.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    p.add_argument("--lanes", type=int, default=3, help="homes at the same time")
    p.add_argument("--replay", default=None, metavar="LANE:HOME", help="play one home of that seed again")
    p.add_argument("--focus", default=",".join(POINTS), help="with --replay: the points that were dealt")
    p.add_argument("--under", default=None, help="where homes are made")
    p.add_argument("--points", action="store_true", help="list kills by point and where the time went")
    return p


def started(arguments: argparse.Namespace, registry_url: str, under: Path) -> list[Connection]:
    """Start the lanes; gives where each of them tells."""
    each = arguments.kills // 50 if arguments.each is None else arguments.each
    if arguments.replay:
        lane, home = map(int, arguments.replay.split(":"))
        places = [Place(arguments.seed, lane, home, tuple(arguments.focus.split(",")))]
        work: Sequence[Share] = [Share(sys.maxsize, 0, homes_max=1)]
    else:
        places = [Place(arguments.seed, lane, 0) for lane in range(arguments.lanes)]
        work = shares(arguments.kills, each, arguments.lanes)
    telling = []
    for place, share in zip(places, work, strict=True):
        here, there = Pipe(duplex=False)
        forked(partial(run_lane, place, share, registry_url, under, there))
        there.close()
        telling.append(here)
    return telling


class Report:
    """What all lanes told so far."""

    def __init__(self, kills: int) -> None:
        self.kills = kills
        self.hits: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.failures: list[str] = []
        self._began = self._said = time.monotonic()

    def follow(self, telling: list[Connection]) -> None:
        """Listen until every lane has ended, and say how far they are."""
        while telling:
            for connection in wait(telling, PROGRESS_EVERY_SECONDS):
                assert isinstance(connection, Connection), "what was given to wait"
                if not self._listen(connection):
                    telling.remove(connection)
            if time.monotonic() - self._said > PROGRESS_EVERY_SECONDS:
                self._said = time.monotonic()
                print(self.progress(), flush=True)

    def _listen(self, connection: Connection) -> bool:
        try:
            told: Told | None = connection.recv()
        except EOFError:
            self.failures.append("a lane ended without a word")
            return False
        if told is None:
            return False
        self.hits += told.hits
        self.counted += told.counted
        self.seconds += told.seconds
        if told.failure:
            self.failures.append(told.failure)
            print(f"FAILED: {told.failure}", flush=True)
        return True

    @property
    def least(self) -> int:
        return min(self.hits[name] for name in POINTS)

    def progress(self) -> str:
        seconds = time.monotonic() - self._began
        total = self.hits.total()
        return f"{total:,} of {self.kills:,} kills in {seconds:.0f} s ({60 * total / seconds:.0f} a minute), each point >= {self.least}"

    def table(self, everything: bool) -> str:
        lines = [self.progress()]
        if everything:
            lines += [f"  {self.hits[name]:6,}  {name}" for name in (*POINTS, ANYWHERE)]
            lines += [f"  {n:6,}  {name}" for name, n in sorted(self.counted.items())]
            lines += [f"  {n:6.1f} s  {name}" for name, n in sorted(self.seconds.items())]
        return "\n".join(lines)

    def last_line(self, seed: int) -> str:
        told = "\n".join(self.failures)
        lost, doubled = told.count("lost:"), told.count("doubled:")
        points = f"{len(POINTS)} crash points (each >= {self.least})"
        outcome = f"{lost} lost, {doubled} doubled" + (f", {len(self.failures)} rounds FAILED" if self.failures else "")
        return f"{self.hits.total():,} kills, {points}, {outcome}, seed {seed}"


class registry:
    """A schema registry of its own for the time of a run."""

    def __init__(self, under: Path) -> None:
        from k2_tests.conftest import free_port, start_registry

        self._home, self._port, self._start = under / "registry", free_port(), start_registry

    def __enter__(self) -> str:
        self._child = self._start(self._home, self._port)
        return f"http://127.0.0.1:{self._port}"

    def __exit__(self, *_: object) -> None:
        from k2_tests.conftest import stop

        stop(self._child)


if __name__ == "__main__":
    sys.exit(main())
