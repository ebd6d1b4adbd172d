"""One seed, whole: a world is drawn, everybody acts in it, then it is quiet, a clean writer catches up, and we look."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from k2_core import poison
from k2_core.contracts import TABLES, TRADES
from k2_core.errors import Halted, PartitionPaused
from k2_core.feeds import Feed
from k2_core.protocol import collect, retain
from k2_core.protocol.ingestion import Ingestion
from k2_tests.simulation import actors
from k2_tests.simulation.catalog import Catalog
from k2_tests.simulation.cluster import Cluster, SimulatedLog
from k2_tests.simulation.disk import Disk
from k2_tests.simulation.ledger import SimulatedLedger
from k2_tests.simulation.nature import Nature
from k2_tests.simulation.scheduler import NEVER, Actor, Fate, Scheduler
from k2_tests.simulation.truth import Truth, Violation
from k2_tests.simulation.weather import Weather
from k2_tests.simulation.world import World

STEPS_MAX = 20_000
"""An honest seed takes a few hundred."""
ROUNDS_MAX = 60
"""Runs a clean writer may need: every pause and every halt ends one."""
ROWS_QUIET = 1_000
"""All that waits in one batch: the interesting part is over."""
LIVES_MAX = 6
"""How often those who died are started again."""
PLACES = (
    "planned",
    "read",
    "decoded",
    "judged",
    "writing",
    "syncing",
    "committing",
    "swapping",
    "committed",
    "loading",
    "loaded",
    "copying",
    "appending",
    "expiring",
    "expired",
    "listing",
    "deleting",
    "hinted",
    "asking_incarnation",
    "asking_watermarks",
    "asking_highs",
    "fetching",
    "reading_receipts",
    "collected_receipts",
)
"""Where an actor may be told to sleep or die; any other place is met by chance."""


@dataclass(frozen=True)
class Parts:
    """What a mutation may replace."""

    ledger: type[SimulatedLedger] = SimulatedLedger
    log: type[SimulatedLog] = SimulatedLog
    disk: type[Disk] = Disk
    ingestion: Callable[..., Ingestion] = Ingestion


@dataclass
class Outcome:
    """What came of one seed. met: how often each fault, place, branch and event happened."""

    seed: int
    violations: list[Violation]
    lost: int
    doubled: int
    steps: int
    met: Counter[str] = field(default_factory=Counter)
    trace: list[str] | None = None


@contextmanager
def small_numbers(rng: Random) -> Iterator[None]:
    """Make rare things frequent: few snapshots, few idle receipts, few dead letters until a pause."""
    snapshots_max = rng.choice((3, 4, 7, 12))
    numbers = {
        (retain, "SNAPSHOTS_MAX"): snapshots_max,
        (retain, "SNAPSHOTS_KEPT"): 1 + int(rng.random() * (snapshots_max - 1)),
        (collect, "IDLE_RECEIPTS_MAX"): rng.choice((1, 3)),
        (poison, "DEAD_MIN"): rng.choice((3, 3, 1_000)),
    }
    before = {(module, name): getattr(module, name) for module, name in numbers}
    for (module, name), value in numbers.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


def play(seed: int, parts: Parts | None = None, *, traced: bool = False) -> Outcome:
    """Play one seed to its end, or to the first promise that is broken."""
    rng = Random(seed)
    with small_numbers(rng):
        world = _world(rng, parts or Parts(), traced=traced)
        lost, doubled = _played(world)
    trace = world.scheduler.trace
    return Outcome(seed, world.truth.violations, lost, doubled, world.scheduler.step, _met(world), trace)


def _played(world: World) -> tuple[int, int]:
    _people(world)
    try:
        world.scheduler.run(lambda: not world.truth.violations)
        if not world.truth.violations:
            _quiet(world)
        if not world.truth.violations:
            return world.truth.settle()
    except Exception as error:  # whatever the protocol should never raise, an assertion of its own included
        place = traceback.extract_tb(error.__traceback__)[-1]
        world.truth.violate("raised", f"{error!r} at {place.name}:{place.lineno}")
    return 0, 0


def _world(rng: Random, parts: Parts, *, traced: bool) -> World:
    slices = (1, 3, 10, 40)
    scheduler = Scheduler(rng, slice_steps_max=rng.choice(slices), steps_max=STEPS_MAX, traced=traced)
    weather = Weather(rng)
    disk, cluster = parts.disk(scheduler, weather), Cluster()
    catalog = Catalog(table.name for table in TABLES)
    ledger = parts.ledger(catalog, disk, scheduler, weather)
    feeds = tuple(_feed(n) for n in range(1 if rng.random() < 0.75 else 2))
    for feed in feeds:
        cluster.create(feed.topic, 1 + int(rng.random() * 2))
    log = parts.log(cluster, scheduler, weather, rng)
    truth = Truth(cluster, disk, catalog, ledger.properties)
    some = tuple(rng.choice(actors.INTRUSIONS) for _ in range(2))
    return World(rng, scheduler, weather, disk, cluster, catalog, ledger, log, truth, feeds, parts.ingestion, some)


def _feed(n: int) -> Feed:
    return Feed(f"feed{n}", f"topic{n}", TRADES, "SIM", "crypto", f"trade{n}", "none", "UTC", 1)


def _people(world: World) -> None:
    """Draw who takes part, and what becomes of them."""
    rng = world.rng
    odds = {
        name: rng.choice((0.0, 0.05, 0.15))
        for name in ("poison", "retention", "recreate", "widen", "power_cut", "schemas")
    }
    nature = Nature(world, odds)
    nature.produce(3 + int(rng.random() * 10))
    world.scheduler.spawn(Actor("nature", nature.live(5 + int(rng.random() * 12)), is_nature=True))
    bodies = [("w", actors.writer(world, 2 + int(rng.random() * 4))) for _ in range(1 + int(rng.random() * 3))]
    bodies += [("operator", actors.operator(world, 4))]
    bodies += [("tidier", actors.tidier(world, 5)) for _ in range(int(rng.random() * 3))]
    for number, (name, body) in enumerate(bodies):
        world.scheduler.spawn(Actor(f"{name}{number}", body, _fates(world, 3 if name == "w" else 1)))
    _revive(world)


def _revive(world: World) -> None:
    lives = [LIVES_MAX]

    def died(actor: Actor) -> None:
        if world.weather.strikes("machine_lost"):
            world.disk.lose(actor.run_id)
        if lives[0]:
            lives[0] -= 1
            body = actors.writer(world, 2) if actor.run_id.startswith("w") else actor.body
            world.scheduler.spawn(Actor(f"{actor.run_id}'", body, _fates(world)))

    world.scheduler.died = died


def _fates(world: World, most: int = 3) -> list[Fate]:
    return [_fate(world) for _ in range(int(world.rng.random() * (most + 1)))]


def _fate(world: World) -> Fate:
    rng = world.rng
    place = PLACES[int(rng.random() * len(PLACES))] if rng.random() < 0.7 else None
    nth = 1 + int(rng.random() * (6 if place else 120))
    drawn = rng.random()
    if drawn < 0.3:
        return Fate(place, nth)
    if drawn < 0.6:
        return Fate(place, nth, meanwhile=actors.intruder(world))
    return Fate(place, nth, NEVER if drawn < 0.7 else 1 + int(rng.random() * rng.choice((10, 100, 400))))


def _quiet(world: World) -> None:
    """No more faults: one writer, and an operator who answers at once, must reach the end of the log."""
    world.weather.clears()
    world.knows_schemas = True
    world.scheduler.tell("all is quiet")
    for number in range(ROUNDS_MAX):
        run_id = f"clean.{number}"
        ingestion = world.ingestion(run_id, rows_per_commit=ROWS_QUIET)
        try:
            commits = actors.execute(world, ingestion, ingestion.plan(TRADES, ROWS_QUIET).ranges, run_id)
            paused = any(".paused." in key for key in world.catalog.heads[TRADES.name].properties)
            if not commits and not paused:
                break
            if paused:
                actors.answer(world, ingestion, PartitionPaused("some"), run_id)
        except Halted as halted:
            for topic in [feed.topic for feed in world.feeds]:
                world.attempt(lambda i=ingestion, h=halted, r=run_id, t=topic: actors.answer(world, i, h, r, [t]))
    else:
        world.truth.violate("stuck", f"not at the end after {ROUNDS_MAX} quiet runs")
    actors.collect_all(world, "clean")
    actors.sweep(world, "clean")
    actors.collect_all(world, "clean")
    head = world.ledger.head(TRADES)
    if left := world.ledger.unreferenced(head):
        world.truth.violate("orphans", f"{left} are left after a sweep")


def _met(world: World) -> Counter[str]:
    met: Counter[str] = Counter(world.scheduler.visited)
    met.update({f"fault {name}": n for name, n in world.weather.struck.items()})
    met.update({f"branch {name}": n for name, n in world.ledger.branches.items()})
    met.update({f"receipt {name}": n for name, n in world.truth.kinds.items()})
    met.update({f"ended {name}": n for name, n in world.ended.items()})
    return met
