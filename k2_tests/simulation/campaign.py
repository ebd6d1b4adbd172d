"""Many seeds on every core, what they met, and the first ones that broke a promise."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

from k2_tests.simulation.mutations import MUTATIONS
from k2_tests.simulation.scenario import Outcome, Parts, play

CHUNK = 250
"""Seeds handed to a worker at once: about a second of work."""
FAILURES_SHOWN = 5


@dataclass
class Campaign:
    """What came of many seeds. met: how often each fault, place, branch and event happened, over all of them."""

    seeds: int = 0
    lost: int = 0
    doubled: int = 0
    otherwise: int = 0
    steps: int = 0
    met: Counter[str] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one seed."""
        self.seeds += 1
        self.steps += outcome.steps
        self.met.update(outcome.met)
        if outcome.violations:
            kinds = Counter(v.kind for v in outcome.violations)
            self.lost += max(outcome.lost, kinds["lost"])
            self.doubled += max(outcome.doubled, kinds["doubled"])
            self.otherwise += len(outcome.violations) - kinds["lost"] - kinds["doubled"]
            self.failures = sorted([*self.failures, outcome], key=lambda o: o.seed)[:FAILURES_SHOWN]

    def merge(self, other: Campaign) -> None:
        """Add what came of other seeds."""
        self.seeds += other.seeds
        self.lost += other.lost
        self.doubled += other.doubled
        self.otherwise += other.otherwise
        self.steps += other.steps
        self.met.update(other.met)
        self.failures = sorted([*self.failures, *other.failures], key=lambda o: o.seed)[:FAILURES_SHOWN]

    def last_line(self) -> str:
        """The result in one line."""
        return (
            f"{self.seeds:,} seeds, {self.lost:,} lost, {self.doubled:,} doubled, "
            f"{self.otherwise:,} other promises broken, {self.met['receipt batch']:,} batches, {self.steps:,} steps"
        )


def play_chunk(mutation: str | None, seeds: range) -> Campaign:
    """Play seeds in this process."""
    campaign = Campaign()
    bug = MUTATIONS[mutation] if mutation else None
    with bug.applied() if bug else nullcontext():
        for seed in seeds:
            campaign.add(play(seed, bug.parts if bug else Parts()))
    return campaign


def chunks(seeds: range) -> Iterator[range]:
    """Split seeds into what a worker takes at once."""
    for first in range(seeds.start, seeds.stop, CHUNK):
        yield range(first, min(first + CHUNK, seeds.stop))


def run(seeds: range, *, mutation: str | None = None, workers: int | None = None) -> tuple[Campaign, float]:
    """Play seeds on every core; returns what came of them and how many seeds a second that was."""
    started, whole = time.monotonic(), Campaign()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context) as pool:
        for part in pool.map(partial(play_chunk, mutation), chunks(seeds)):
            whole.merge(part)
    return whole, whole.seeds / (time.monotonic() - started)


def catch(mutation: str) -> Outcome | None:
    """The first seed that finds a deliberate bug, looked for from where it is known to be near; None when none does."""
    bug = MUTATIONS[mutation]
    with bug.applied():
        for seed in range(bug.first, bug.first + bug.seeds_max):
            outcome = play(seed, bug.parts)
            if outcome.violations:
                return outcome
    return None
