"""A hundred readers while rows come in and the API dies: `python -m k2_tests.soak.answers [--minutes N] [--kills N]`.

A real broker, an engine that ingests all along in a process of its own, and `k2 serve` in another, which is killed and
started again. Readers page, ask for the newest, for bars and for several symbols at once, each with a pause in between.
Every answer is held against the ledger of what was produced: the same ids, in order, none missing, none twice, none
altered. An error is allowed only while the API is down.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from k2_assets.engine import open_engine
from k2_cli.services import any_free
from k2_resources.settings import Settings
from k2_tests.conftest import start_registry, stop
from k2_tests.e2e.stack import environment
from k2_tests.soak.feed import ingest_once
from k2_tests.soak.readers import Readers
from k2_tests.soak.tape import Tape
from k2_tests.soak.warden import Api
from k2_tests.stacks import Stack, stack

READERS = 100
RATE = 200.0
"""Trades produced a second, all symbols together: the readers are what is on trial."""
_LAST_WORD_SECONDS = 5.0
"""After the last kill the API answers for so long without an excuse."""


@dataclass
class Outcome:
    """What a soak came to. wrong: answers that contradict the ledger, in words; refused: by status or error, outside
    of the windows in which the API was down."""

    answers: int = 0
    kills: int = 0
    excused: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def is_right(self) -> bool:
        return not self.wrong and not self.refused

    def line(self) -> str:
        return (
            f"{self.answers:,} answers, {len(self.wrong)} wrong, {sum(self.refused.values())} errors outside of "
            f"{self.kills} restarts, {self.excused} inside; {dict(self.refused)} {self.wrong[:3]}"
        )


def run(home: Path, seconds: float, kills: int, seed: int, readers: int = READERS) -> Outcome:
    """Run to the end and say what came of it."""
    outcome = Outcome()
    with _servers(home) as running, Tape(running, RATE, seed) as tape, _ingesting(running.settings, tape):
        tape.settle()
        with Api(running.settings) as api:
            crowd = Readers(api, tape, outcome, random.Random(seed))
            asyncio.run(_crowd(crowd, api, outcome, seconds, kills, readers))
    return outcome


async def _crowd(crowd: Readers, api: Api, outcome: Outcome, seconds: float, kills: int, readers: int) -> None:
    end = time.monotonic() + seconds
    deaths = [seconds * (n + 1) / (kills + 1) for n in range(kills)]
    tasks = [asyncio.create_task(crowd.read(end)) for _ in range(readers)]
    began = time.monotonic()
    for death in deaths:
        await asyncio.sleep(max(0.0, began + death - time.monotonic()))
        await asyncio.to_thread(api.die_and_rise)
        outcome.kills += 1
    await asyncio.sleep(_LAST_WORD_SECONDS)
    await asyncio.gather(*tasks)


@contextmanager
def _servers(home: Path) -> Iterator[Stack]:
    port = any_free()
    registry = start_registry(home / "registry", port)
    try:
        with stack(home / "k2", f"http://127.0.0.1:{port}") as running:
            yield running
    finally:
        stop(registry)


@contextmanager
def _ingesting(settings: Settings, tape: Tape) -> Iterator[None]:
    """An engine in a process of its own. It is asked to catch up, and says when it has: so it is known what is in."""
    command = [sys.executable, "-m", __spec__.name, "--ingest", str(settings.home)]
    where = {"K2_KAFKA_BOOTSTRAP": settings.bootstrap(), "K2_REGISTRY_URL": settings.registry()}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(settings.home, **where)
    ) as child:
        try:
            with tape.following(child):
                yield
        finally:
            child.terminate()


def _ingest(home: Path) -> None:
    with open_engine(Settings(home=home)) as engine:
        for _ in sys.stdin:
            ingest_once(engine)
            print("in", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--readers", type=int, default=READERS)
    parser.add_argument("--ingest", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.ingest:
        return _ingest(asked.ingest)
    with tempfile.TemporaryDirectory() as home:
        outcome = run(Path(home), asked.minutes * 60, asked.kills, asked.seed, asked.readers)
    print(outcome.line())
    sys.exit(0 if outcome.is_right else 1)


if __name__ == "__main__":
    main()
