"""Who acts on the ports: writers, operators, and those who tidy up. Each runs the real protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from k2_core.contracts import CONTRACT_VERSION, TRADES
from k2_core.errors import (
    Halted,
    IncarnationChanged,
    LogTruncated,
    OffsetBelowRetention,
    PartitionPaused,
)
from k2_core.offsets import OffsetRange
from k2_core.protocol import retain
from k2_core.protocol.collect import collect
from k2_core.protocol.commit import expectations
from k2_core.protocol.ingestion import Ingestion
from k2_core.protocol.ports import Change
from k2_core.receipts import Receipt
from k2_tests.simulation.ledger import Files
from k2_tests.simulation.nature import Nature
from k2_tests.simulation.scheduler import Actor
from k2_tests.simulation.world import World


def writer(world: World, rounds: int) -> Callable[[Actor], None]:
    """Plan and execute, as a run does; sometimes only a part of the plan, sometimes long after it."""

    def live(actor: Actor) -> None:
        for number in range(rounds):
            world.attempt(lambda n=number: run(world, world.ingestion(f"{actor.run_id}.{n}"), f"{actor.run_id}.{n}"))

    return live


def run(world: World, ingestion: Ingestion, run_id: str) -> int:
    """One run, of a plan or of a part of it; returns how many commits it made."""
    rng = world.rng
    plan = ingestion.plan(TRADES, rows_max=1 + int(rng.random() * 20))
    return execute(world, ingestion, _part(rng, plan.ranges), run_id)


def execute(world: World, ingestion: Ingestion, ranges: tuple[OffsetRange, ...], run_id: str) -> int:
    """Execute ranges; returns how many commits that made."""
    commits = 0
    if ranges:
        for committed in ingestion.execute(TRADES, ranges, run_id):
            commits += 1
            world.truth.told(committed)
            if world.weather.strikes("walks_away"):
                break
    return commits


def _part(rng: Random, ranges: tuple[OffsetRange, ...]) -> tuple[OffsetRange, ...]:
    if rng.random() < 0.6 or not ranges:
        return ranges
    return tuple(r for r in ranges if rng.random() < 0.6) or ranges[:1]


def operator(world: World, rounds: int) -> Callable[[Actor], None]:
    """Answer what halted; sometimes act without a reason."""

    def live(actor: Actor) -> None:
        for number in range(rounds):
            world.scheduler.nap(10 + int(world.rng.random() * 60))
            complaint = world.complaints.pop() if world.complaints else None
            run_id = f"{actor.run_id}.{number}"
            world.attempt(lambda c=complaint, r=run_id: answer(world, world.ingestion(r), c, r))

    return live


def answer(
    world: World, ingestion: Ingestion, complaint: Halted | None, run_id: str, topics: Iterable[str] = ()
) -> None:
    """What a person would do about a halt, to some topics or to all."""
    topics = list(topics) or [feed.topic for feed in world.feeds]
    said: dict[str, Any] = {"run_id": run_id, "who": "operator", "why": str(complaint)}
    drawn = world.rng.random() if complaint is None else 1.0
    if isinstance(complaint, IncarnationChanged | LogTruncated) or drawn < 0.1:
        ingestion.adopt(TRADES, topics, **said)
    if isinstance(complaint, OffsetBelowRetention) or 0.1 <= drawn < 0.2:
        for topic in topics:
            ingestion.accept_loss(TRADES, topic, **said)
    if isinstance(complaint, PartitionPaused) or 0.2 <= drawn < 0.4:
        for topic in topics:
            ingestion.resume(TRADES, topic, None, **said)


def tidier(world: World, rounds: int) -> Callable[[Actor], None]:
    """Compact, expire, sweep and collect, in any order, while everybody else works."""

    def live(actor: Actor) -> None:
        chores = (compact, compact, sweep, expire, collect_all)
        for number in range(rounds):
            world.scheduler.nap(5 + int(world.rng.random() * 40))
            chore = chores[int(world.rng.random() * len(chores))]
            world.attempt(lambda c=chore, n=number: c(world, f"{actor.run_id}.{n}"))

    return live


def compact(world: World, run_id: str) -> None:
    """Rewrite some data files as one, fenced like everything else."""
    ledger = world.ledger
    at = ledger.head(TRADES)
    files = sorted(at.loaded.files)
    chosen = [path for path in files if world.rng.random() < 0.8]
    if len(chosen) < 2 or not all(path in world.disk.files for path in chosen):  # others went on: plan again
        return
    rows = [row for path in chosen for row in world.disk.read(path)]
    staged = ledger.stage(at, Change(_chore(run_id), rows=rows))
    handle = Files(staged.handle.adds, frozenset(chosen))
    staged = type(staged)(staged.receipt, staged.receipt_path, staged.properties, staged.summary, handle)
    ledger.swap(at, staged, expectations(at, staged))
    ledger.branches["compacted"] = ledger.branches.get("compacted", 0) + 1


def sweep(world: World, run_id: str) -> None:
    """Delete what nobody refers to."""
    retain.sweep(world.ledger, TRADES, run_id=run_id, code_version=run_id, contract_version=CONTRACT_VERSION)


def expire(world: World, run_id: str) -> None:
    """Forget old snapshots."""
    retain.expire(world.ledger, world.ledger.head(TRADES))


def collect_all(world: World, run_id: str) -> None:
    """Copy what is not copied yet."""
    collect(world.ledger, TRADES, world.scheduler.reach)


def adopt_anew(world: World, run_id: str) -> None:
    """A topic is made anew, and adopted at once by who did it."""
    if not world.cluster.topics:
        return
    Nature(world, {}).recreate(away_steps_max=0)
    answer(world, world.ingestion(run_id), IncarnationChanged(run_id), run_id)


def lose_and_accept(world: World, run_id: str) -> None:
    """Records go unread, and that is accepted at once."""
    if not world.cluster.topics:
        return
    Nature(world, {}).retention()
    answer(world, world.ingestion(run_id), OffsetBelowRetention(run_id), run_id)


def run_all(world: World, run_id: str) -> None:
    """A rival run, of everything that waits."""
    ingestion = world.ingestion(run_id)
    execute(world, ingestion, ingestion.plan(TRADES, rows_max=50).ranges, run_id)


def cut_power(world: World, run_id: str) -> None:
    """Everybody dies."""
    Nature(world, {}).power_cut()


INTRUSIONS = (
    run_all,
    run_all,
    sweep,
    sweep,
    expire,
    compact,
    collect_all,
    adopt_anew,
    adopt_anew,
    lose_and_accept,
    cut_power,
)
"""What may happen, whole, while another actor stands still at one place."""


def intruder(world: World) -> Actor:
    """An actor that does one of the intrusions of this world."""
    intrusion = world.intrusions[int(world.rng.random() * len(world.intrusions))]
    name = intrusion.__name__
    return Actor(name, lambda actor: world.attempt(lambda: intrusion(world, name)))


def _chore(run_id: str) -> Receipt:
    return Receipt(TRADES.name, "maintenance", run_id, run_id, CONTRACT_VERSION, ())
