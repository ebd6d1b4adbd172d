"""How long from produced to seen in /v1/trades/recent: `python -m k2_tests.bench.visible [--rounds N]`.

A server in a process of its own, one client asking without a pause, and an ingest that commits beside it every few
seconds, so that the tail goes over to new snapshots all the while. Milliseconds from before the record is handed to the
producer until the end of the first answer that has it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
from confluent_kafka import Producer

from k2_assets.engine import ingest_until_caught_up
from k2_resources.clock import now
from k2_resources.settings import Settings
from k2_tests.bench.command import bench
from k2_tests.conftest import free_port, start_registry, stop
from k2_tests.stacks import Stack, stack
from k2_tests.ticks import FEEDS, encoded, trade

ROUNDS = 1_000
"""Samples behind the 99th percentile."""
COMMIT_SECONDS = 2.0
_ASKED = {"symbol": "BTCUSDT", "exchange": "BINANCE", "limit": "1"}
_SERVE = [sys.executable, "-c", "from k2_cli.serve import serve; serve()", "--port", "0"]
_SEEN_SECONDS_MAX = 30.0
_FEED = FEEDS["binance-trades"]


def run(rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure; milliseconds at the median and at the 99th percentile, and how often the lake was committed to."""
    with tempfile.TemporaryDirectory() as scratch:
        home, port = Path(scratch), free_port()
        registry = start_registry(home, port)
        try:
            with (
                stack(home / "k2", f"http://127.0.0.1:{port}") as here,
                _ingest(here) as commits,
                served(here.settings) as client,
            ):
                found = _rounds(here, client, rounds)
        finally:
            stop(registry)
    return {
        "rounds": rounds,
        "commits": len(commits),
        "produce_to_visible_ms_p50": float(np.median(found)),
        "produce_to_visible_ms_p99": float(np.quantile(found, 0.99)),
        "produce_to_visible_ms_max": float(np.max(found)),
    }


@contextmanager
def served(settings: Settings) -> Iterator[httpx.Client]:
    """A client of `k2 serve` on a home, in a process of its own, which is killed in the end."""
    addresses = {"K2_KAFKA_BOOTSTRAP": settings.kafka_bootstrap, "K2_REGISTRY_URL": settings.registry_url}
    environment = {**os.environ, **{k: v for k, v in addresses.items() if v}, "K2_API_RATE_PER_MINUTE": "1000000"}
    command = [*_SERVE, "--home", str(settings.home)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert child.stdout is not None, "it was asked for"
        said = child.stdout.readline()
        found = re.match(r"API (\S+)  docs \S+  key (.+)\n", said)
        assert found is not None, said
        key = {"X-API-Key": Path(found[2]).read_text().strip()}
        with httpx.Client(base_url=found[1], headers=key, timeout=60, trust_env=False) as client:
            yield client
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


@contextmanager
def _ingest(here: Stack) -> Iterator[list[object]]:
    """Commit what there is every few seconds; gives the commits so far."""
    engine, over, commits = here.engine(), threading.Event(), []

    def work() -> None:
        while not over.wait(COMMIT_SECONDS):
            commits.extend(ingest_until_caught_up(engine))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield commits
    finally:
        over.set()
        thread.join()


def _rounds(here: Stack, client: httpx.Client, rounds: int) -> list[float]:
    schema_id = here.register(_FEED)
    producer = Producer({"bootstrap.servers": here.settings.bootstrap(), "acks": "all", "linger.ms": 1})
    found = []
    for number in range(rounds + 1):
        began = time.perf_counter()
        record = encoded(trade(number, timestamp=now()), _FEED.table, schema_id)
        producer.produce(_FEED.topic, record, b"BINANCE.BTCUSDT")
        producer.flush(_SEEN_SECONDS_MAX)
        while not _is_seen(client, number):
            assert time.perf_counter() < began + _SEEN_SECONDS_MAX, f"trade {number} never came"
        found.append((time.perf_counter() - began) * 1_000)
    return found[1:]  # the first waits for a server that has just begun


def _is_seen(client: httpx.Client, number: int) -> bool:
    answer = client.get("/v1/trades/recent", params=_ASKED)
    answer.raise_for_status()
    return any(row["source_sequence"] == number for row in answer.json()["data"])


def table(result: Mapping[str, Any]) -> str:
    """The figures as a table of Markdown."""
    return (
        "| records | commits meanwhile | produce to visible p50, ms | p99, ms | max, ms |\n|---|---|---|---|---|\n"
        f"| {result['rounds']:,} | {result['commits']} | {result['produce_to_visible_ms_p50']:.0f} | "
        f"{result['produce_to_visible_ms_p99']:.0f} | {result['produce_to_visible_ms_max']:.0f} |"
    )


if __name__ == "__main__":
    bench(__doc__, run, table, rounds=ROUNDS)
