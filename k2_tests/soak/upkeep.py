"""Hours of commits and their upkeep in minutes: `python -m k2_tests.soak.upkeep [--batches 2000] [--json FILE]`.

A batch every five simulated seconds goes through the real commit protocol, past midnight; the upkeep of every duty runs
each simulated half hour, as its schedule would; snapshots are as old as they would be. A reader holds the files it
planned from all along. What a commit costs, how long the metadata is, how many files and snapshots there are: none of
it may grow with the number of batches.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyiceberg.table.snapshots

from k2_assets.upkeep import DUTIES, Upkeep, attend
from k2_core.contracts import AUDIT, TRADES
from k2_core.protocol.collect import collect
from k2_core.protocol.commit import commit
from k2_core.protocol.ports import Change, Head
from k2_core.protocol.retain import expire
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_core.sequences import Intervals, ScopeState
from k2_resources import clock as wall
from k2_resources import failpoints
from k2_resources.lake.catalog import Lake
from k2_resources.lake.compaction import stored_files
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.verify import verify
from k2_resources.settings import Settings
from k2_tests.lakes import FEED, TOPIC, new_lake, register
from k2_tests.ticks import table_of, trade

EVERY = timedelta(seconds=5)
UPKEEP_EVERY = 360
"""Batches between two runs of upkeep: half an hour."""
ROWS = 20
"""Rows of a batch: few enough that their encoding is not what is measured."""
WINDOW = 200
"""Batches of one point: two rounds of expiry, so that no point meets only its peaks."""


@dataclass(frozen=True)
class Point:
    """How a stretch of batches went, and what the lake looked like at its end.

    files: data files of the head. files_on_disk: under the tables, those included that wait to be deleted.
    """

    batches: int
    cpu_ms_per_commit: float
    metadata_bytes: int
    files: int
    snapshots: int
    files_on_disk: int
    bytes_on_disk: int


@dataclass(frozen=True)
class Soaked:
    """What a soak came to. upkeep_cpu_seconds: of all its runs. rewritten: rows, all rewrites together."""

    points: tuple[Point, ...]
    upkeep_cpu_seconds: float
    rewritten: int
    deleted: int
    findings: tuple[str, ...]
    rows: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=2_000)
    parser.add_argument("--json", type=Path, dest="json_file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        soaked = soak(Path(scratch), arguments.batches)
    if arguments.json_file:
        arguments.json_file.write_text(json.dumps(asdict(soaked), indent=2))
    print(table(soaked))
    return 1 if soaked.findings or soaked.rows != arguments.batches * ROWS else 0


def table(soaked: Soaked) -> str:
    columns = list(asdict(soaked.points[0]))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for point in soaked.points:
        lines.append(
            "| " + " | ".join(f"{v:,.1f}" if isinstance(v, float) else f"{v:,}" for v in vars(point).values()) + " |"
        )
    told = f"upkeep {soaked.upkeep_cpu_seconds:.1f} CPU-s; {soaked.rewritten:,} rows rewritten of {soaked.rows:,}"
    return "\n".join([*lines, "", f"{told}; {soaked.deleted:,} files deleted; findings: {list(soaked.findings)}"])


def next_evening(now: datetime) -> datetime:
    """22:45 after some time: a soak passes midnight after 900 batches. Catalogs do not take snapshots of the past."""
    evening = now.astimezone(UTC).replace(hour=22, minute=45, second=0, microsecond=0)
    return evening if evening >= now else evening + timedelta(days=1)


@dataclass
class Clock:
    """The clock that pyiceberg dates snapshots by, set to simulated time."""

    now: datetime

    def time(self) -> float:
        return self.now.timestamp()


def soak(
    home: Path, batches: int, *, window: int = WINDOW, upkeep_every: int = UPKEEP_EVERY, **changes: float
) -> Soaked:
    """Commit so many batches with their upkeep, and prove the table at the end. changes: to the settings."""
    settled = {"compaction_settle_hours": 0.5, "snapshot_hours_max": 0.5, **changes}
    lake, settings = new_lake(home / "k2"), Settings(home=home / "k2", **settled)
    clock = Clock(next_evening(wall.now()))
    with patch.object(pyiceberg.table.snapshots, "time", clock):
        return _soaked(lake, settings, clock, batches, window, upkeep_every)


def _soaked(lake: Lake, settings: Settings, clock: Clock, batches: int, window: int, upkeep_every: int) -> Soaked:
    register(lake)
    points, spent, upkeep_cpu, rewritten, deleted = [], 0.0, 0.0, 0, 0
    reader = Reader(lake, timedelta(seconds=settings.deletion_grace_seconds))
    for number, (now, cpu) in enumerate(_commits(lake, clock, batches), start=1):
        spent += cpu
        if number % upkeep_every == 0:
            before = time.process_time()
            done = list(_upkept(Upkeep(settings, lake, now, f"soak-{number}")))
            upkeep_cpu += time.process_time() - before
            rewritten += sum(counts.get("rows", 0) for counts in done)
            deleted += sum(counts.get("deleted", 0) for counts in done)
        reader.read(now)
        if number % window == 0:
            points.append(_point(lake, number, 1e3 * spent / window))
            spent = 0.0
    proof = verify(lake, TRADES)
    findings = (*(f"{f.where}: {f.problem}" for f in proof.findings), *reader.missed)
    return Soaked(tuple(points), upkeep_cpu, rewritten, deleted, findings, proof.rows)


class Reader:
    """Holds the files of a head for almost as long as the grace, then looks whether each is still there."""

    def __init__(self, lake: Lake, grace: timedelta) -> None:
        self._lake, self._holds = lake, grace - EVERY
        self._until: datetime | None = None
        self._files: list[str] = []
        self.missed: list[str] = []

    def read(self, now: datetime) -> None:
        """Go on reading; once done, begin again from the head of now."""
        if self._until is None or now >= self._until:
            self.missed += [f"{path}: deleted while it was read" for path in self._files if not Path(path).exists()]
            self._files = [f.path for f in stored_files(self._lake.head(TRADES))]
            self._until = now + self._holds


def _upkept(upkeep: Upkeep) -> Iterator[dict[str, int]]:
    for duty in DUTIES:
        yield from (dict(counts) for _, counts in attend(upkeep, duty))


def _commits(lake: Lake, clock: Clock, batches: int) -> Iterator[tuple[datetime, float]]:
    """Commit batch after batch as an ingest run does, yielding the simulated time and the CPU of each."""
    ledger = IcebergLedger(lake)
    for number in range(batches):
        clock.now = now = clock.now + EVERY
        at = lake.head(TRADES)
        change = _change(at, number, now)
        cpu = time.process_time()
        at = commit(ledger, at, change).head
        collect(ledger, TRADES, failpoints.reach, at)
        expire(ledger, at)
        yield now, time.process_time() - cpu


def _change(at: Head, number: int, now: datetime) -> Change:
    start = at.offsets.positions[TOPIC, 0].next
    counted = RangeCount(TOPIC, 0, 0, start, start + ROWS, ROWS, ROWS)
    dates = (DateRows(now.date(), FEED.name, ROWS),)
    receipt = Receipt(TRADES.name, "batch", f"run-{number}", "0", "1", (counted,), (1,), dates=dates)
    seen = ScopeState(Intervals.of(np.arange(start + ROWS, dtype=np.int64)), high=None)
    return Change(receipt, rows=_rows(start, now), states={TOPIC: {"BTCUSDT": seen}})


def _rows(start: int, now: datetime) -> pa.Table:
    sent = table_of(FEED, [trade(start + n, timestamp=now + timedelta(milliseconds=n)) for n in range(ROWS)])
    columns = {
        **{name: sent[name] for name in sent.column_names},
        "kafka_offset": range(start, start + ROWS),
        "revision": [0] * ROWS,
        "exchange_date": [now.date()] * ROWS,
    }
    schema = TRADES.arrow_schema()
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _point(lake: Lake, batches: int, cpu_ms: float) -> Point:
    loaded = lake.load(TRADES)
    found = [p for table in (TRADES, *AUDIT) for p in Path(lake.load(table).location()).rglob("*") if p.is_file()]
    return Point(
        batches,
        cpu_ms,
        Path(loaded.metadata_location).stat().st_size,
        len(stored_files(lake.head(TRADES))),
        max(len(lake.snapshots(table)) for table in (TRADES, *AUDIT)),
        len(found),
        sum(p.stat().st_size for p in found),
    )


if __name__ == "__main__":
    sys.exit(main())
