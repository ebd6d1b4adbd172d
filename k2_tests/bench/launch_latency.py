"""How long from a sensor's tick to a finished run, with each launcher: `python -m k2_tests.bench.launch_latency`.

For each launcher a whole stack as a user starts it; a few trades at a time, each batch sent when the run of the one
before has ended. What a run costs is the CPU of its process and of all that process started, interpreter and imports
inside. Seconds; the ratios are standard to fast, of one run of this bench.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import psutil

from k2_assets.engine import Engine, open_engine
from k2_assets.runs import TABLE_TAG
from k2_core.contracts import TRADES
from k2_resources.settings import Settings
from k2_tests.bench.command import bench
from k2_tests.e2e.stack import Up, running
from k2_tests.stacks import Stack
from k2_tests.ticks import FEEDS, trade

LAUNCHERS = ("standard", "fast")
ROUNDS = 10
ROWS = 100
STEPS = ("tick to started", "tick to finished", "produced to committed")


def run(rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure both launchers; seconds at the median and at the worst, CPU seconds a run."""
    with tempfile.TemporaryDirectory() as scratch:
        found = {name: measure(Path(scratch) / name, name, rounds) for name in LAUNCHERS}
    return {"rounds": rounds, "rows_per_round": ROWS, **found}


def measure(home: Path, launcher: str, rounds: int) -> dict[str, Any]:
    """One stack with one launcher. A first batch, after which everything is warm that ever will be, is not counted."""
    with ExitStack() as opened:
        up = opened.enter_context(running(home, K2_LAUNCHER=launcher, K2_BATCH_AGE_SECONDS="0"))
        here = Stack(Settings(home=home), opened)
        engine = opened.enter_context(open_engine(here.settings))
        instance = opened.enter_context(dg.DagsterInstance.from_config(str(home / "dagster")))
        _round(here, engine, up, 0)
        runs, cpu = instance.get_runs_count(), _cpu_of_runs(up)
        committed = [_round(here, engine, up, number) for number in range(1, rounds + 1)]
        # schedules and other tables may have had runs of their own
        cpu_each = (_cpu_of_runs(up) - cpu) / (instance.get_runs_count() - runs)
        started, finished = _since_ticks(instance, rounds)
    seconds = dict(zip(STEPS, (started, finished, committed), strict=True))
    return {"seconds": seconds, "cpu_seconds_per_run": cpu_each}


def _round(here: Stack, engine: Engine, up: Up, number: int) -> float:
    """Send a batch and wait until its run has ended. Returns the seconds from produced to committed."""
    here.send(FEEDS["binance-trades"], [trade(number * ROWS + i) for i in range(ROWS)])
    sent = time.time()
    up.await_ingested()
    state = engine.lake.state(TRADES)
    assert state is not None
    newest = max(engine.lake.snapshots(TRADES), key=lambda snapshot: snapshot.sequence_number or 0)
    return newest.timestamp_ms / 1000 - sent


def _since_ticks(instance: dg.DagsterInstance, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds from a tick that asked for a run until that run had started, and until it had ended."""
    only = dg.RunsFilter(tags={TABLE_TAG: TRADES.name}, statuses=[dg.DagsterRunStatus.SUCCESS])
    runs = {r.dagster_run.run_id: r for r in instance.get_run_records(only, limit=rounds)}
    ticks = {
        run_id: tick.timestamp
        for state in instance.all_instigator_state()
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=100 * rounds)
        for run_id in tick.run_ids
    }
    assert len(runs) == rounds, f"{len(runs)} runs of {rounds} batches"
    started = [(record.start_time or 0) - ticks[run_id] for run_id, record in runs.items()]
    return started, [(record.end_time or 0) - ticks[run_id] for run_id, record in runs.items()]


def _cpu_of_runs(up: Up) -> float:
    """CPU seconds of all run processes that have ended: their parents, code server and fork server, have the sums."""
    pids = up.endpoints["pids"]
    parents = [psutil.Process(pids["code"]), *psutil.Process(pids["daemon"]).children()]
    return sum(times.children_user + times.children_system for times in (p.cpu_times() for p in parents))


def table(result: Mapping[str, Any]) -> str:
    """The figures as a table of Markdown."""
    standard, fast = (result[name] for name in LAUNCHERS)
    lines = ["| | standard p50, s | worst | fast p50, s | worst | ratio |", "|---|---|---|---|---|---|"]
    for step in STEPS:
        slow, quick = standard["seconds"][step], fast["seconds"][step]
        ratio = np.median(slow) / np.median(quick)
        lines.append(
            f"| {step} | {np.median(slow):.2f} | {max(slow):.2f} | {np.median(quick):.2f} | {max(quick):.2f} | {ratio:.1f} |"
        )
    slow, quick = standard["cpu_seconds_per_run"], fast["cpu_seconds_per_run"]
    lines.append(f"| CPU of a run | {slow:.2f} | | {quick:.2f} | | {slow / quick:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    bench(__doc__, run, table, rounds=ROUNDS)
