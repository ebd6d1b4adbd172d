"""How fast K2 goes from topic to committed table: `python -m k2_tests.bench.end_to_end [--records N] [--json FILE]`.

The embedded broker and the producer are processes of their own; CPU is that of K2's process alone, everything in:
consume, decode, screen, judge, sort, encode, commit, collect, expire.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from k2_core.avro import avro_schema
from k2_core.contracts import TRADES
from k2_resources.embedded_broker import embedded_broker
from k2_resources.registry import Registry
from k2_resources.settings import Settings
from k2_tests.bench.command import bench
from k2_tests.bench.workload import produce
from k2_tests.conftest import free_port, start_registry, stop
from k2_tests.stacks import TOPICS
from k2_tests.ticks import FEEDS

RECORDS = 1_000_000
PARTITIONS = 100
"""The embedded broker keeps 5 MiB of each: enough for the default number of records without a consumer."""
_FEED = FEEDS["binance-trades"]


def run(records: int = RECORDS, rows_per_commit: int = 100_000) -> dict[str, Any]:
    """Measure one run; records per second of wall time, CPU seconds per million, megabytes at most."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        embedded_broker({**TOPICS, _FEED.topic: PARTITIONS}) as bootstrap,
    ):
        home, port = Path(scratch), free_port()
        registry = start_registry(home, port)
        try:
            url = f"http://127.0.0.1:{port}"
            with closing(Registry(url)) as client:
                schema_id = client.register(_FEED.subject, avro_schema(TRADES))
            sender = multiprocessing.get_context("spawn").Process(
                target=produce, args=(bootstrap, _FEED.topic, schema_id, records, PARTITIONS)
            )
            sender.start()
            sender.join()
            settings = Settings(
                home=home,
                kafka_bootstrap=bootstrap,
                registry_url=url,
                rows_per_commit=rows_per_commit,
                run_rows_max=records,
            )
            return measure(settings, records)
        finally:
            stop(registry)


def measure(settings: Settings, records: int) -> dict[str, Any]:
    """Plan and execute once, and weigh it."""
    from k2_assets.engine import open_engine

    with open_engine(settings) as engine:
        engine.register(TRADES, "bench")
        plan, wall, cpu = engine.plan(TRADES), time.perf_counter(), time.process_time()
        receipts = [c.receipt for c in engine.execute(TRADES, plan.ranges, "bench")]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    read, stored = sum(r.read for x in receipts for r in x.ranges), sum(x.rows_stored for x in receipts)
    assert read == stored == records, f"{read} read, {stored} stored of {records}"
    return {
        "records": read,
        "commits": len(receipts),
        "records_per_second": read / wall,
        "cpu_seconds_per_million": cpu / read * 1e6,
        "rss_megabytes_max": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def table(result: Mapping[str, Any]) -> str:
    """The figures as a row of Markdown."""
    head = "| records | commits | rec/s | cpu-s per million | MB at most |\n|---|---|---|---|---|\n"
    return head + (
        f"| {result['records']:,} | {result['commits']} | {result['records_per_second']:,.0f} | "
        f"{result['cpu_seconds_per_million']:.2f} | {result['rss_megabytes_max']:,.0f} |"
    )


if __name__ == "__main__":
    bench(__doc__, run, table, records=RECORDS, rows_per_commit=100_000)
