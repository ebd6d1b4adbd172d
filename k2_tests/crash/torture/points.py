"""Which crash point comes next: a shuffled deck of all of them, dealt again and again, so that none is forgotten."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from k2_resources import failpoints
from k2_tests.crash.torture.attempts import Work

OF_DAGSTER = ("reported",)
"""Reached in a Dagster run only; k2_tests/assets/test_run_kills.py kills there."""
POINTS = tuple(name for name in failpoints.ALL if name not in OF_DAGSTER)
ANYWHERE = "anywhere"
"""Kills at a random moment, at no point in particular; counted beside the points."""
SWEEPING = ("sweeping", "deleting", "swept")
EXPIRING = ("expiring", "expired", "forgotten", "file_deleted")
FILES = ("manifest_written", "manifest_list_written", "metadata_written")
SNAPSHOTS, FEW_SNAPSHOTS = (24, 12), (4, 2)
"""Snapshots of a table before it forgets, and after: few, so that an expiry is never far."""


@dataclass(frozen=True)
class Aim:
    """A named place of an attempt, and which time it is passed."""

    name: str
    nth: int

    def failpoint(self, action: str) -> str:
        return f"{self.name}:{self.nth}:{action}"

    @property
    def work(self) -> Work:
        return "sweep" if self.name in SWEEPING else "ingest"

    @property
    def snapshots(self) -> tuple[int, int]:
        return FEW_SNAPSHOTS if self.name in EXPIRING else SNAPSHOTS


@dataclass
class Deck:
    """Deals aims. focus: the only points to deal, to bring up those that were hit too seldom."""

    rng: random.Random
    focus: Sequence[str] = POINTS
    _left: list[str] = field(default_factory=list)

    def deal(self, among: Sequence[str] = POINTS) -> Aim:
        """The next aim whose point is among these."""
        while not (fitting := [name for name in self._left if name in among]):
            fresh = [name for name in self.focus if name in among] or list(among)
            self.rng.shuffle(fresh)
            self._left = [*fresh, *self._left]
        name = fitting[0]
        self._left.remove(name)
        return Aim(name, self._nth(name))

    def _nth(self, name: str) -> int:
        if name in FILES:  # each commit passes them for the table and for every audit table
            return self.rng.choice((1, 1, 1, 2, 2, 3, 4))
        if name == "file_deleted":
            return self.rng.randint(1, 12)
        if name in SWEEPING or name in EXPIRING:
            return 1
        return self.rng.choice((1, 1, 1, 1, 2))


@dataclass
class Tally:
    """Kills by point."""

    hits: Counter[str] = field(default_factory=Counter)

    def short_of(self, each: int) -> list[str]:
        """Points that were hit less often than that."""
        return [name for name in POINTS if self.hits[name] < each]
