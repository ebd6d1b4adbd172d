"""What a commit costs after how many others: `python -m k2_tests.bench.commit_cost [--commits 10000] [--json FILE]`.

Small batches straight through the protocol, each with rows, a state and a receipt: stage, swap, collect, expire. What
is left is the price of a commit itself. CPU is of the whole process, so of pyiceberg's threads, too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from k2_core.contracts import AUDIT, TRADES
from k2_core.protocol.collect import collect
from k2_core.protocol.commit import commit
from k2_core.protocol.ports import Change, Head
from k2_core.protocol.retain import SNAPSHOTS_MAX, expire
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_core.sequences import Intervals, ScopeState
from k2_resources.failpoints import reach
from k2_resources.lake.ledger import IcebergLedger
from k2_tests.bench.command import bench
from k2_tests.lakes import DAY, FEED, TOPIC, new_lake, register
from k2_tests.ticks import table_of, trade

WINDOW = 100
"""Commits of one point: two rounds of expiry and several of merged manifests, so that no point meets only the peaks."""
ROWS = 100
"""Rows of a batch: few enough that their encoding is not what is measured."""


@dataclass(frozen=True)
class Spent:
    """What one commit, with its collection and expiry, took."""

    cpu_seconds: float
    wall_seconds: float


def run(commits: int = 2_000, fewest: int = 1) -> dict[str, Any]:
    """Commit so many batches and say what those at some distances cost. fewest: receipts collected together."""
    with tempfile.TemporaryDirectory() as scratch:
        spent = list(_commits(Path(scratch), commits, fewest))
    points = [_point(spent, end) for end in _ends(commits)]
    return {
        "rows_per_commit": ROWS,
        "receipts_collected_together": fewest,
        "points": points,
        "cpu_ratio_last_to_first": points[-1]["cpu_ms"] / points[0]["cpu_ms"],
        "wall_ratio_last_to_first": points[-1]["wall_ms"] / points[0]["wall_ms"],
    }


def table(result: dict[str, Any]) -> str:
    lines = ["| past commits | CPU ms a commit | wall ms a commit | slowest ms |", "|---|---|---|---|"]
    for p in result["points"]:
        past = f"{p['past_from']:,}-{p['past_until']:,}"
        lines.append(f"| {past} | {p['cpu_ms']:.1f} | {p['wall_ms']:.1f} | {p['wall_ms_max']:.0f} |")
    ratio = f"last to first: {result['cpu_ratio_last_to_first']:.2f} CPU, {result['wall_ratio_last_to_first']:.2f} wall"
    return "\n".join([*lines, "", ratio])


def _ends(commits: int) -> list[int]:
    """Where the windows end: the first, around each power of ten, the last."""
    powers = [10**n + WINDOW // 2 for n in range(3, 9)]
    return sorted({min(WINDOW, commits), *(e for e in powers if e < commits), commits})


def _point(spent: list[Spent], end: int) -> dict[str, Any]:
    window = spent[max(0, end - WINDOW) : end]
    return {
        "past_from": max(0, end - WINDOW),
        "past_until": end,
        "cpu_ms": 1e3 * sum(s.cpu_seconds for s in window) / len(window),
        "wall_ms": 1e3 * sum(s.wall_seconds for s in window) / len(window),
        "wall_ms_max": 1e3 * max(s.wall_seconds for s in window),
    }


def _commits(home: Path, commits: int, fewest: int = 1) -> Iterator[Spent]:
    lake = new_lake(home / "k2")
    register(lake)
    ledger, at = IcebergLedger(lake), lake.head(TRADES)
    for number in range(commits):
        change = _change(at, number)
        cpu, wall = time.process_time(), time.perf_counter()
        at = commit(ledger, at, change).head
        collect(ledger, TRADES, reach, at, fewest)
        if expire(ledger, at):
            at = ledger.head(TRADES)
        yield Spent(time.process_time() - cpu, time.perf_counter() - wall)
    assert all(len(lake.snapshots(table)) <= SNAPSHOTS_MAX for table in (TRADES, *AUDIT)), "history is bounded"


def _change(at: Head, number: int) -> Change:
    start = at.offsets.positions[TOPIC, 0].next
    counted = RangeCount(TOPIC, 0, 0, start, start + ROWS, ROWS, ROWS)
    dates = (DateRows(DAY, FEED.name, ROWS),)
    receipt = Receipt(TRADES.name, "batch", f"run-{number}", "0", "1", (counted,), (1,), dates=dates)
    seen = ScopeState(Intervals.of(np.arange(start + ROWS, start + ROWS + 10, dtype=np.int64)), high=None)
    return Change(receipt, rows=_rows(start), states={TOPIC: {"BTCUSDT": seen}})


def _rows(start: int) -> pa.Table:
    sent = table_of(FEED, [trade(n) for n in range(start, start + ROWS)])
    columns = {
        **{name: sent[name] for name in sent.column_names},
        "kafka_offset": range(start, start + ROWS),
        "revision": [0] * ROWS,
        "exchange_date": [DAY] * ROWS,
    }
    schema = TRADES.arrow_schema()
    return pa.table([columns[name] for name in schema.names], schema=schema)


if __name__ == "__main__":
    bench(__doc__, run, table, commits=10_000, fewest=1)
