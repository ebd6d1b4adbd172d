"""One lane: a process that plays round after round on homes of its own, and says what it counted."""

from __future__ import annotations

import os
import random
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from k2_tests.crash.torture.attempts import run
from k2_tests.crash.torture.points import POINTS, Deck, Tally
from k2_tests.crash.torture.rounds import Play
from k2_tests.crash.torture.scene import open_scene
from k2_tests.crash.torture.zygote import Zygote

ROUNDS_PER_HOME = 2
"""Enough for tables to forget old snapshots many times. A verdict reads what is stored near its suspects, and nobody
compacts here, so that more would only make every commit slower: the fourth round costs twice the first."""


@dataclass(frozen=True)
class Place:
    """Which home of which lane, under which seed: all that its rounds are drawn from. focus: points to bring up."""

    seed: int
    lane: int
    home: int
    focus: tuple[str, ...] = POINTS

    def random(self, what: object) -> random.Random:
        return random.Random(f"{self.seed}:{self.lane}:{self.home}:{what}")

    def __str__(self) -> str:
        focus = "" if self.focus == POINTS else f" --focus {','.join(self.focus)}"
        return f"--seed {self.seed} --replay {self.lane}:{self.home}{focus}"


@dataclass(frozen=True)
class Told:
    """What a lane tells after a round. failure: why it ended early."""

    hits: Counter[str]
    counted: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    failure: str = ""


@dataclass(frozen=True)
class Share:
    """What one lane has to do: kills in all, and at each point; or one home only."""

    kills: int
    each: int
    homes_max: int | None = None


def run_lane(first: Place, share: Share, registry_url: str, under: Path, told: Connection) -> None:
    """Play until the share is done, telling after every round; an empty message is the end."""
    parent = os.getppid()
    zygote, tally, place = Zygote(run), Tally(), first  # the zygote first: a producer has threads
    try:
        while _is_short(tally, share) and (share.homes_max is None or place.home - first.home < share.homes_max):
            if not _play_home(place, share, tally, zygote, registry_url, under, told):
                return
            if os.getppid() != parent:  # whoever wanted this is gone
                return
            short = tally.short_of(share.each)
            enough = tally.hits.total() >= share.kills
            place = Place(first.seed, first.lane, place.home + 1, tuple(short) if enough and short else first.focus)
    finally:
        told.send(None)
        zygote.end()


def _is_short(tally: Tally, share: Share) -> bool:
    return tally.hits.total() < share.kills or bool(tally.short_of(share.each))


def _play_home(
    place: Place, share: Share, tally: Tally, zygote: Zygote, registry_url: str, under: Path, told: Connection
) -> bool:
    """Play the rounds of one home; False when it must not go on."""
    home = under / f"lane-{place.lane}-home-{place.home}"
    started = time.monotonic()
    scene = open_scene(home, place.random("market"), registry_url, zygote)
    scene.seconds["opening"] += time.monotonic() - started
    deck = Deck(place.random("deck"), place.focus)
    try:
        for number in range(ROUNDS_PER_HOME):
            here = Tally()
            before = time.monotonic()
            try:
                Play(scene, place.random(number), deck, here).round()
            finally:
                scene.seconds["all"] += time.monotonic() - before
                tally.hits += here.hits
            told.send(Told(here.hits, scene.counted, scene.seconds))
            scene.counted, scene.seconds = Counter(), Counter()
            if not _is_short(tally, share):
                break
    except BaseException:
        failure = f"{place} in round {number}, home kept in {home}\n{traceback.format_exc()}"
        told.send(Told(here.hits, scene.counted, scene.seconds, failure))
        return False
    finally:
        scene.close()
    shutil.rmtree(home)
    return True


def shares(kills: int, each: int, lanes: int) -> Sequence[Share]:
    """Divide the work among lanes, rounded up."""
    return [Share(-(-kills // lanes), -(-each // lanes))] * lanes
