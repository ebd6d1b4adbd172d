"""How long from produced to committed: `python -m k2_tests.bench.latency [--rounds N]`.

One process sends a few trades, waits for the broker's acknowledgement, then plans and executes until they are in the
table; beside it, the same rows by a plain append without any promise. Seconds, one round at a time, no backlog.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Producer
from pyiceberg.table import Table as IcebergTable

from k2_core.contracts import TRADES
from k2_tests.bench.command import bench
from k2_tests.conftest import free_port, start_registry, stop
from k2_tests.stacks import Stack, stack
from k2_tests.ticks import FEEDS, encoded, table_of, trade

ROUNDS = 150
"""More than the snapshots a table keeps, so that expiry is inside."""
ROWS = 1_000


def run(rounds: int = ROUNDS, rows: int = ROWS) -> dict[str, Any]:
    """Measure; seconds at the median and at the 99th percentile, and the ratio of the medians."""
    with tempfile.TemporaryDirectory() as scratch:
        home, port = Path(scratch), free_port()
        registry = start_registry(home, port)
        try:
            with stack(home / "k2", f"http://127.0.0.1:{port}") as here:
                ours = _rounds(rounds, _through_k2(here, rows))
                plain = _rounds(rounds, _plain_append(here, rows))
        finally:
            stop(registry)
    return {
        "rows_per_round": rows,
        "rounds": rounds,
        "produce_to_committed_seconds_p50": float(np.median(ours)),
        "produce_to_committed_seconds_p99": float(np.quantile(ours, 0.99)),
        "plain_append_seconds_p50": float(np.median(plain)),
        "ratio_to_plain_append": float(np.median(ours) / np.median(plain)),
    }


def _rounds(rounds: int, once: Callable[[int], None]) -> list[float]:
    once(0)
    seconds = []
    for number in range(1, rounds + 1):
        start = time.perf_counter()
        once(number)
        seconds.append(time.perf_counter() - start)
    return seconds


def _through_k2(here: Stack, rows: int) -> Callable[[int], None]:
    engine, feed = here.engine(), FEEDS["binance-trades"]
    engine.register(TRADES, "bench")
    schema_id = here.register(feed)
    producer = Producer({"bootstrap.servers": here.settings.bootstrap(), "acks": "all", "linger.ms": 1})

    def once(number: int) -> None:
        for i in range(number * rows, (number + 1) * rows):
            producer.produce(feed.topic, encoded(trade(i), feed.table, schema_id), b"BINANCE.BTCUSDT")
        assert producer.flush(30) == 0
        committed = list(engine.execute(TRADES, engine.plan(TRADES).ranges, "bench"))
        assert sum(c.receipt.rows_stored for c in committed) == rows

    return once


def _plain_append(here: Stack, rows: int) -> Callable[[int], None]:
    catalog, feed = here.engine().lake.catalog, FEEDS["binance-trades"]
    catalog.create_namespace_if_not_exists("bench")
    plain: IcebergTable = catalog.create_table("bench.plain", table_of(feed, [trade(0)]).schema)

    def once(number: int) -> None:
        plain.append(table_of(feed, [trade(i) for i in range(number * rows, (number + 1) * rows)]))

    return once


def table(result: Mapping[str, Any]) -> str:
    """The figures as a table of Markdown."""
    return (
        "| records a round | produce to committed p50, s | p99, s | plain append p50, s | ratio |\n|---|---|---|---|---|\n"
        f"| {result['rows_per_round']:,} | {result['produce_to_committed_seconds_p50']:.3f} | "
        f"{result['produce_to_committed_seconds_p99']:.3f} | {result['plain_append_seconds_p50']:.3f} | "
        f"{result['ratio_to_plain_append']:.1f} |"
    )


if __name__ == "__main__":
    bench(__doc__, run, table, rounds=ROUNDS)
