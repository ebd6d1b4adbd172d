"""What bars cost: `python -m k2_tests.bench.bars_rate [--rows N] [--json]`.

One day of 100 symbols of Zipf popularity in a real lake, stored in batches of 100,000 as ingestion stores them. Prints
CPU seconds per million trades of each step, best of the rounds: `read` and `compute` by themselves, `build` all of it
with the commit, `day` the daily bars, `minute` a refresh after one more minute of the same pace (not per million).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from k2_core.bars import bars_of
from k2_core.builds import built_in
from k2_core.derived_tables import BARS_1M
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived import build_day, build_minutes, ensure
from k2_resources.lake.derived_reads import Rules, source_of, trades_of
from k2_tests.bench.busy_day import DAY, batch, put
from k2_tests.bench.command import bench
from k2_tests.lakes import new_lake, register

BATCH_ROWS = 100_000
ROUNDS = 3
RULES = Rules({}, {"BINANCE": "UTC"})


def run(rows: int = 1_000_000) -> dict[str, Any]:
    """CPU seconds per million trades of each step, and of one refresh in seconds."""
    with tempfile.TemporaryDirectory() as home:
        lake = new_lake(Path(home) / "k2")
        ensure(lake)
        register(lake)
        for start in range(0, rows, BATCH_ROWS):
            put(lake, batch(start, min(start + BATCH_ROWS, rows), rows))
        return {"rows": rows, **_steps(lake, rows)}


def _steps(lake: Lake, rows: int) -> dict[str, Any]:
    source = source_of(lake)
    assert source is not None
    trades = trades_of(source, DAY)
    steps: dict[str, Callable[[], Any]] = {
        "read": lambda: trades_of(source, DAY),
        "compute": lambda: bars_of(trades, source.basis(RULES)),
        "build": lambda: build_minutes(lake, source, RULES, DAY, is_whole=True),
        "day": lambda: build_day(lake, RULES, DAY),
    }
    costs = {name: round(min(_cpu(step) for _ in range(ROUNDS)) / rows * 1e6, 4) for name, step in steps.items()}
    bars = lake.load(BARS_1M).scan().count()
    return {**costs, "bars": bars, "minute": round(min(_refresh(lake, rows, n) for n in range(ROUNDS)), 4)}


def _refresh(lake: Lake, rows: int, number: int) -> float:
    """CPU seconds of a refresh after one more minute of trades."""
    start = rows + number * rows // 1440
    put(lake, batch(start, start + rows // 1440, rows))
    source = source_of(lake)
    assert source is not None
    cpu = _cpu(lambda: build_minutes(lake, source, RULES, DAY))
    assert built_in(lake.head(BARS_1M).properties)[DAY].sequence_number == source.sequence_number
    return cpu


def _cpu(step: Callable[[], Any]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def table(result: Mapping[str, Any]) -> str:
    """The figures as a table of Markdown."""
    steps = ("read", "compute", "build", "day")
    head = f"| trades | bars | {' | '.join(steps)} | minute |"
    row = f"| {result['rows']:,} | {result['bars']:,} | {' | '.join(f'{result[s]:.2f}' for s in steps)} | {result['minute']:.2f} s |"
    return "\n".join([head, "|---" * (len(steps) + 3) + "|", row])


if __name__ == "__main__":
    bench(__doc__, run, table, rows=1_000_000)
