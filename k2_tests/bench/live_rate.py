"""What the live feed costs: `python -m k2_tests.bench.live_rate [--trades N] [--json FILE]`.

A simulated exchange, a process of its own, publishes trades and best quotes as fast as the feed reads them: sockets,
buffer, parsing, ids, encoding, producing, acknowledgement, coverage. CPU is that of the feed's process with all its
threads, from its first connection to its orderly end; best of several rounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2 as httpx

from k2_feeds.binance_live import LiveFeed, Plan
from k2_feeds.collection import Collection
from k2_feeds.exchange import SYMBOLS
from k2_feeds.live.buffer import Buffer
from k2_feeds.producer import FeedProducer
from k2_resources.binance.stream import Endpoint
from k2_resources.clock import now_us
from k2_resources.embedded_broker import embedded_broker
from k2_resources.settings import Settings
from k2_resources.spill import Spill
from k2_tests.bench.command import bench
from k2_tests.conftest import free_port, start_registry, stop
from k2_tests.feeds.homes import FEEDS, caught_up
from k2_tests.stacks import TOPICS

TRADES = 60_000
ROUNDS = 3

MEMORY_BYTES_MAX = SPILL_BYTES_MAX = 256 << 20
_POLL_SECONDS = 0.05
_QUIET_SECONDS = 1.0
"""Nothing more is under way after so long without a row."""


def run(trades: int = TRADES) -> dict[str, Any]:
    """Measure one feed over five symbols with quotes."""
    with tempfile.TemporaryDirectory() as scratch, embedded_broker(TOPICS) as bootstrap:
        folder, port = Path(scratch), free_port()
        registry = start_registry(folder, port)
        try:
            settings = Settings(home=folder, kafka_bootstrap=bootstrap, registry_url=f"http://127.0.0.1:{port}")
            rounds = [_round(settings, trades) for _ in range(ROUNDS)]
        finally:
            stop(registry)
    return min(rounds, key=lambda found: found["cpu_seconds_per_million"])


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    return "\n".join(
        (
            "| frames | frames per cpu-s | cpu-s per million | frames/s beside exchange and broker |",
            "|---|---|---|---|",
            f"| {result['frames']:,} | {1e6 / result['cpu_seconds_per_million']:,.0f} | "
            f"{result['cpu_seconds_per_million']:.1f} | {result['frames_per_second']:,.0f} |",
        )
    )


def _round(settings: Settings, trades: int) -> dict[str, Any]:
    with _exchange(trades) as urls:
        live = _feed(settings, urls["websocket"])
        wall, cpu = time.perf_counter(), time.process_time()
        feeding = threading.Thread(target=live.run)
        feeding.start()
        _await_end(urls["rest"])
        frames, ended = live.collection.sent, time.perf_counter()
        while time.perf_counter() - ended < _QUIET_SECONDS:
            time.sleep(_POLL_SECONDS)
            if live.collection.sent > frames:
                frames, ended = live.collection.sent, time.perf_counter()
        live.stop()
        feeding.join()
        wall, cpu = ended - wall, time.process_time() - cpu
    assert frames > trades, f"{frames} rows of {trades} trades and their quotes were sent"
    return {"frames": frames, "cpu_seconds_per_million": cpu / frames * 1e6, "frames_per_second": frames / wall}


@contextmanager
def _exchange(trades: int) -> Iterator[dict[str, str]]:
    words = ("exchange", "--json", "--speed", "max", "--await-client", "--trades", str(trades))
    where = ("--port", "0", "--rest-port", "0")
    command = (sys.executable, "-m", "k2_cli.main", *words, *where)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield json.loads(child.stdout.readline())
        finally:
            child.terminate()


def _feed(settings: Settings, url: str) -> LiveFeed:
    feeds = [FEEDS["binance-trades"], FEEDS["binance-quotes"]]
    folder = settings.home / uuid4().hex

    def connect(on_wait: Any) -> FeedProducer:
        committed = caught_up(settings.bootstrap())
        return FeedProducer(settings, [*feeds, FEEDS["coverage"]], committed=committed, on_wait=on_wait)

    collection = Collection(uuid4().hex, url, feeds, folder / "rejected", now_us)
    buffer = Buffer(Spill(folder / "live", SPILL_BYTES_MAX), MEMORY_BYTES_MAX)
    return LiveFeed(Plan(SYMBOLS, quotes=True, endpoint=Endpoint(url)), collection, buffer, connect)


def _await_end(rest: str) -> None:
    """Wait for the end of the market."""
    with httpx.Client(base_url=rest, trust_env=False, timeout=30) as control:
        while not control.get("/k2/stats").json()["over"]:
            time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    bench(__doc__, run, table, trades=TRADES)
