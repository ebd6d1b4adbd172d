"""How fast one run goes from topic to committed table: `python -m k2_tests.bench.ingest_rate`.

Generated records in the embedded broker, then one plan and one execution per table. Prints records per second of wall
time and CPU seconds per million records, everything in: decode, screen, judge, sort, encode, commit, collect.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

from k2_core.contracts import QUOTES, TRADES
from k2_resources.embedded_broker import embedded_broker
from k2_resources.settings import Settings
from k2_tests.conftest import free_port, start_registry, stop
from k2_tests.e2e.stack import command, environment
from k2_tests.stacks import TOPICS

ROWS = 1_500
"""Trades a symbol and day: about 40,000 records in all, which the embedded broker holds without a consumer."""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, embedded_broker(TOPICS) as bootstrap:
        home, port = Path(scratch), free_port()
        registry = start_registry(home, port)
        try:
            settings = Settings(home=home)
            settings.endpoints_file.parent.mkdir()
            endpoints = {"kafka": bootstrap, "registry": f"http://127.0.0.1:{port}"}
            settings.endpoints_file.write_text(json.dumps(endpoints))
            feed = command(home, "feed", "simulate", "--rows", ROWS, "--stall-minutes", 1)
            subprocess.run(feed, env=environment(home), check=True, timeout=180, stdout=subprocess.DEVNULL)
            measure(settings)
        finally:
            stop(registry)


def measure(settings: Settings) -> None:
    from k2_assets.engine import open_engine

    with open_engine(settings) as engine:
        for table in (TRADES, QUOTES):
            plan, wall, cpu = engine.plan(table), time.perf_counter(), time.process_time()
            read = sum(r.read for c in engine.execute(table, plan.ranges, "bench") for r in c.receipt.ranges)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(
                f"{table.name}: {read:,} records, {read / wall:,.0f} a second, {cpu / read * 1e6:.1f} cpu-s a million"
            )


if __name__ == "__main__":
    main()
