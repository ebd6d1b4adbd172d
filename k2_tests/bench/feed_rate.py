"""How fast each feed sends: `python -m k2_tests.bench.feed_rate [--records N] [--json FILE]`.

Generated sources through the whole feed (read, parse, encode, produce, acknowledge, coverage) into an embedded broker,
which is a process of its own. CPU is that of the feed's process with the threads of its client, best of several rounds:
a million divided by it is what one core sends a second. Feeds that read a line at a time get a tenth of the records.
"""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from k2_feeds.asx import read_parts
from k2_feeds.asx_files import plan_load
from k2_feeds.batches import Batch
from k2_feeds.binance_capture import read_capture
from k2_feeds.binance_dump import plan_dumps
from k2_feeds.capture_batches import read_capture_batches
from k2_feeds.collection import Collection
from k2_feeds.coverage import COVERAGE_FEED
from k2_feeds.dump_batches import read_dumps
from k2_feeds.outcomes import Outcome
from k2_feeds.producer import FeedProducer
from k2_feeds.simulator import Simulation
from k2_resources.embedded_broker import embedded_broker
from k2_resources.settings import Settings
from k2_tests.bench.command import bench
from k2_tests.conftest import free_port, start_registry, stop
from k2_tests.stacks import TOPICS
from k2_tests.ticks import FEEDS

RECORDS = 300_000
ROUNDS = 3
SLOW_ONE_IN = 10
NOW_US = 1_800_000_000_000_000
_ROWS_PER_TRADE = 3
"""A simulated pair has a trade and two book tickers."""
DAY = "2025-03-11"
Source = Callable[[], Iterable[Outcome | Batch]]


def sources(folder: Path, records: int) -> dict[str, Source]:
    """Every feed over files made for it. The fast ones have `records` records, the others a tenth."""
    few = max(1, records // SLOW_ONE_IN)
    capture, slow_capture = _capture(folder / "capture.gz", records), _capture(folder / "slow.gz", few)
    asx = Simulation(days=1, pairs=("SIMBTCUSDT",), rows_per_day=few // 4)
    asx.write(folder / "asx")
    parts = plan_load((folder / "asx/trades").iterdir(), (folder / "asx/quotes").iterdir(), None)
    dumps = plan_dumps([_dump(folder, records)])
    market = Simulation(days=1, pairs=("SIMBTCUSDT", "SIMETHUSDT"), rows_per_day=few // 10)
    return {
        "Binance capture": lambda: read_capture_batches(capture),
        "Binance capture, a line at a time": lambda: read_capture(slow_capture),
        "Binance dump": lambda: read_dumps(dumps, lambda: NOW_US),
        "ASX files": lambda: read_parts(parts, None, lambda: NOW_US),
        "simulator, everything made as it goes": lambda: market.outcomes(lambda: NOW_US),
    }


def run(records: int = RECORDS) -> dict[str, Any]:
    """Measure every feed, and where the time of a capture goes."""
    with tempfile.TemporaryDirectory() as scratch, embedded_broker(TOPICS) as bootstrap:
        folder, port = Path(scratch), free_port()
        registry = start_registry(folder, port)
        try:
            settings = Settings(home=folder, kafka_bootstrap=bootstrap, registry_url=f"http://127.0.0.1:{port}")
            made = sources(folder, records)
            feeds = {name: _best(lambda source=source: _sent(settings, source)) for name, source in made.items()}
            parsing = {name: _best(lambda source=source: _read(source)) for name, source in made.items()}
        finally:
            stop(registry)
    for name, found in feeds.items():
        found["cpu_seconds_per_million_reading"] = parsing[name]["cpu_seconds_per_million"]
    return {"feeds": feeds}


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "CPU of the feed's process, all threads; records a second of wall time beside the broker on the same machine.",
        "",
        "| feed | records | records per cpu-s | cpu-s per million | of it reading and parsing | records/s |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in result["feeds"].items():
        lines.append(
            f"| {name} | {found['records']:,} | {1e6 / found['cpu_seconds_per_million']:,.0f} | "
            f"{found['cpu_seconds_per_million']:.2f} | {found['cpu_seconds_per_million_reading']:.2f} | "
            f"{found['records_per_second']:,.0f} |"
        )
    return "\n".join(lines)


def _best(measure: Callable[[], tuple[int, float, float]]) -> dict[str, Any]:
    """The round that took the least CPU."""
    records, cpu, wall = min((measure() for _ in range(ROUNDS)), key=lambda found: found[1])
    return {"records": records, "cpu_seconds_per_million": cpu / records * 1e6, "records_per_second": records / wall}


def _sent(settings: Settings, source: Source) -> tuple[int, float, float]:
    """Records, CPU seconds and wall seconds of one collection, from its first line to its last acknowledgement."""
    feeds = [feed for feed in FEEDS.values() if feed.name != COVERAGE_FEED]
    with FeedProducer(settings, FEEDS.values()) as producer:
        collection = Collection("bench", "bench", feeds, settings.home / "rejected", lambda: NOW_US)
        wall, cpu = time.perf_counter(), time.process_time()
        report = collection.run(source(), producer)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert report.is_complete and not report.rejected, report
    return report.sent, cpu, wall


def _read(source: Source) -> tuple[int, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    records = sum(len(outcome) if isinstance(outcome, Batch) else 1 for outcome in source())
    return records, time.process_time() - cpu, time.perf_counter() - wall


def _capture(path: Path, records: int) -> Path:
    simulation = Simulation(days=1, rows_per_day=-(-records // (_ROWS_PER_TRADE * 3)))
    with gzip.open(path, "wb", compresslevel=6) as file:
        file.writelines(islice((frame.line for frame in simulation.frames()), records))
    return path


def _dump(folder: Path, records: int) -> Path:
    """A daily archive of one pair with its checksum."""
    midnight_ms = 1_741_651_200_000
    rows = chain.from_iterable(
        (f"{n},{100 + n % 7}.50000000,0.00{n % 9 + 1}00000,{(100.5 + n % 7) * (n % 9 + 1) / 1000:.8f},",
         f"{(midnight_ms + n * 86_400_000 // records) * 1_000},{('True', 'False')[n % 2]},True\n")
        for n in range(records)
    )  # fmt: skip
    path = folder / f"SIMBTCUSDT-trades-{DAY}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}.csv", "".join(rows))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{digest}  {path.name}\n")
    return path


if __name__ == "__main__":
    bench(__doc__, run, table, records=RECORDS)
