"""One symbol, one hour, 1,000 rows: `python -m k2_tests.bench.point_reads [--rows N] [--fragments N] [--samples N]`.

The engine of the API beside its rivals over the same tables, in turns: pyiceberg, which plans and reads each time, and
`iceberg_scan` of DuckDB 1.5 where K2_BENCH_DUCKDB_15 names the Python of an environment that has duckdb 1.5 and its
avro and iceberg extension wheels (there is none for DuckDB 2.0). Once over tables rewritten as upkeep rewrites them,
once over one file a commit. And how long after a commit of another process a reader sees it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, LessThan

from k2_api.questions import Ticks
from k2_api.reads import Reads
from k2_core.compaction import Limits
from k2_core.contracts import TRADES
from k2_core.protocol.ports import Change
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_core.windows import to_us
from k2_resources.duck import Duck
from k2_resources.lake.catalog import CATALOG_NAME, Lake
from k2_resources.lake.compaction import compact
from k2_resources.settings import Settings
from k2_tests.bench.busy_day import DAY, batch
from k2_tests.bench.command import bench
from k2_tests.lakes import FEED, TOPIC, commit, new_lake, register

ASKED = range(6, 11)
"""Symbols by popularity: an hour of one of these has some 1,000 rows where the day has a million."""
ROW_LIMIT = 1_000
COMMITS = 20
"""Commits of another process that a reader waits for."""
COLUMNS = (
    "message_id",
    "revision",
    "trade_id",
    "symbol",
    "exchange",
    "timestamp",
    "price",
    "quantity",
    "side",
    "source_sequence",
    "exchange_date",
)
DUCKDB_15 = "K2_BENCH_DUCKDB_15"
GATES = {
    ("compacted", "iceberg_scan"): 2.0,
    ("compacted", "pyiceberg"): 3.0,
    ("fragments", "pyiceberg"): 6.0,
}
"""How many times as fast as a rival the engine has to be, by the medians."""
AIMS_MS = {"compacted": 15.0, "fragments": 20.0}
"""99th percentiles aimed at on an idle machine of two cores."""
SEEN_AIM_MS = 50.0

Ask = Callable[["Question"], int]
"""Answers a question and says how many rows there were."""


@dataclass(frozen=True)
class Question:
    """One symbol over one hour."""

    symbol: str
    start: datetime

    @property
    def end(self) -> datetime:
        return self.start + timedelta(hours=1)


def questions() -> Iterator[Question]:
    """The asked symbols over the hours of the day, for ever."""
    noon = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    hours = [noon + timedelta(hours=hour) for hour in range(23)]
    return itertools.cycle(Question(f"COIN{n:02d}USDT", hour) for hour in hours for n in ASKED)


def run(rows: int = 1_000_000, fragments: int = 1_000, samples: int = 1_000) -> dict[str, Any]:
    """Measure. rows: of the day, in either layout. fragments: files of the second layout. samples: of each engine."""
    found: dict[str, Any] = {"rows": rows, "fragments": fragments, "samples": samples}
    with tempfile.TemporaryDirectory() as folder:
        for layout, files in (("compacted", 10), ("fragments", fragments)):
            home = Path(folder, layout)
            lake = _filled(home, rows, files, rewritten=layout == "compacted")
            found[layout] = _compared(home, lake, samples)
            found[layout]["seen_ms"] = _seen(home, rows)
    return found


def table(found: Mapping[str, Any]) -> str:
    """Render as Markdown."""
    lines = ["| layout | engine | p50 ms | p99 ms | times the engine |", "| --- | --- | ---: | ---: | ---: |"]
    for layout in ("compacted", "fragments"):
        own = found[layout]["k2"]
        for engine, told in found[layout].items():
            if engine != "seen_ms":
                ratio = told["p50_ms"] / own["p50_ms"]
                lines.append(f"| {layout} | {engine} | {told['p50_ms']:.1f} | {told['p99_ms']:.1f} | {ratio:.1f} |")
    lines += ["", *_verdicts(found)]
    return "\n".join(lines)


def _verdicts(found: Mapping[str, Any]) -> Iterator[str]:
    for (layout, rival), least in GATES.items():
        if rival in found[layout]:
            ratio = found[layout][rival]["p50_ms"] / found[layout]["k2"]["p50_ms"]
            yield f"- {layout}, {rival} over k2: {ratio:.1f}, gate {least:g}: {'met' if ratio >= least else 'MISSED'}"
        else:
            yield f"- {layout}, {rival} over k2: not measured; {DUCKDB_15} names no Python"
    for layout, aim in AIMS_MS.items():
        yield f"- {layout}: p99 {found[layout]['k2']['p99_ms']:.1f} ms, aim {aim:g}"
        seen = found[layout]["seen_ms"]
        yield f"- {layout}: a commit seen after {seen['p50_ms']:.0f} ms, p99 {seen['p99_ms']:.0f}, aim {SEEN_AIM_MS:g}"


def _filled(home: Path, rows: int, files: int, *, rewritten: bool) -> Lake:
    lake = new_lake(home)
    register(lake)
    for start, end in itertools.pairwise(np.linspace(0, rows, files + 1, dtype=int).tolist()):
        _put(lake, start, end, rows)
    if rewritten:
        limits, next_month = Limits(2 * rows, 2), date(2024, 9, 1)
        list(compact(lake, TRADES, limits, next_month, run_id="bench", code_version="0"))
    return lake


def _put(lake: Lake, start: int, end: int, rows: int) -> None:
    """Commit the trades [start, end) of the day; collecting them is upkeep's."""
    at = lake.head(TRADES)
    first, count = at.offsets.positions[TOPIC, 0].next, end - start
    counted = RangeCount(TOPIC, 0, 0, first, first + count, count, count)
    dates = (DateRows(DAY, FEED.name, count),)
    receipt = Receipt(TRADES.name, "batch", "bench", "0", "1", (counted,), dates=dates)
    commit(lake, at, Change(receipt, rows=batch(start, end, rows)))


def _compared(home: Path, lake: Lake, samples: int) -> dict[str, Any]:
    loop, duck = asyncio.new_event_loop(), Duck()
    engines: dict[str, Ask] = {"k2": _engine(Reads(lake, duck), loop), "pyiceberg": _pyiceberg(home)}
    with _iceberg_scan(lake) as scan:
        if scan is not None:
            engines["iceberg_scan"] = scan
        taken: dict[str, list[float]] = {name: [] for name in engines}
        for question in itertools.islice(questions(), samples + len(ASKED)):
            told = {name: _timed(ask, question, taken[name]) for name, ask in engines.items()}
            assert len(set(told.values())) == 1, f"{question}: {told}"
    duck.close()
    loop.close()
    return {name: _summed(times[len(ASKED) :]) for name, times in taken.items()}  # the first of each symbol warm up


def _timed(ask: Ask, question: Question, taken: list[float]) -> int:
    began = time.perf_counter()
    rows = ask(question)
    taken.append(1_000 * (time.perf_counter() - began))
    return rows


def _summed(times_ms: list[float]) -> dict[str, float]:
    return {
        "p50_ms": float(np.percentile(times_ms, 50)),
        "p99_ms": float(np.percentile(times_ms, 99)),
        "samples": len(times_ms),
    }


def _engine(reads: Reads, loop: asyncio.AbstractEventLoop) -> Ask:
    async def ask(question: Question) -> int:
        start_us, end_us = to_us(question.start), to_us(question.end)
        ticks = Ticks((question.symbol,), (), start_us, end_us, limit=ROW_LIMIT, fields=COLUMNS)
        return len((await reads.sheet(await reads.pin(TRADES), ticks, None, "columns")).rows)

    return lambda question: loop.run_until_complete(ask(question))


def _pyiceberg(home: Path) -> Ask:
    settings = Settings(home=home)
    catalog = SqlCatalog(CATALOG_NAME, uri=settings.catalog(), warehouse=settings.warehouse_path())
    loaded = catalog.load_table(TRADES.name)

    def ask(question: Question) -> int:
        where = And(
            EqualTo("symbol", question.symbol),
            GreaterThanOrEqual("timestamp", question.start.isoformat()),
            LessThan("timestamp", question.end.isoformat()),
        )
        rows = loaded.scan(where, selected_fields=COLUMNS).to_arrow()
        order = [("timestamp", "descending"), ("source_sequence", "descending"), ("message_id", "descending")]
        return len(rows.sort_by(order).slice(0, ROW_LIMIT))

    return ask


@contextmanager
def _iceberg_scan(lake: Lake) -> Iterator[Ask | None]:
    """DuckDB 1.5 in a process of its own, which times nothing: a question and its answer cross two pipes."""
    python = os.environ.get(DUCKDB_15)
    if not python:
        yield None
        return
    script = Path(__file__).with_name("iceberg_scans.py")
    words = [python, str(script), lake.pointer(TRADES), str(ROW_LIMIT), ",".join(COLUMNS)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as scanning:
        assert scanning.stdin is not None
        assert scanning.stdout is not None

        asked, told = scanning.stdin, scanning.stdout

        def ask(question: Question) -> int:
            words = [question.symbol, question.start.isoformat(), question.end.isoformat()]
            print(json.dumps(words), file=asked, flush=True)
            return int(told.readline())

        yield ask
        asked.close()


def _seen(home: Path, rows: int) -> dict[str, float]:
    """How long after another process committed a reader that asks all the time has seen it."""
    settings = Settings(home=home)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    writer = context.Process(target=_commits, args=(home, rows, theirs))
    writer.start()
    duck = Duck()
    reads = Reads(Lake(settings.catalog(), settings.warehouse_path()), duck)
    try:
        times = asyncio.run(_watched(reads, ours))
    finally:
        writer.join(60)
        duck.close()
    return _summed(times)


async def _watched(reads: Reads, commits: Any) -> list[float]:
    times = []
    known = (await reads.pin(TRADES)).snapshot_id
    for _ in range(COMMITS):
        commits.send("go")
        while (pinned := await reads.pin(TRADES)).snapshot_id == known:
            await asyncio.sleep(0.001)
        seen = time.monotonic()
        times.append(1_000 * (seen - await asyncio.to_thread(commits.recv)))
        known = pinned.snapshot_id
    commits.send("end")
    return times


def _commits(home: Path, rows: int, orders: Any) -> None:
    """Another process: a commit whenever it is told to, and when that was there."""
    settings = Settings(home=home)
    lake = Lake(settings.catalog(), settings.warehouse_path())
    for number in itertools.count():
        if orders.recv() == "end":
            return
        _put(lake, rows + number * 10, rows + (number + 1) * 10, rows)
        orders.send(time.monotonic())


if __name__ == "__main__":
    bench(__doc__, run, table, rows=1_000_000, fragments=1_000, samples=1_000)
