"""One home in which things go wrong: a broker, a market, a ledger, a lake, and workers that die there."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from k2_core.avro import avro_schema
from k2_core.contracts import TABLES, Table
from k2_core.feeds import Feed
from k2_core.offsets import Offsets
from k2_resources.lake.catalog import Lake
from k2_resources.registry import Registry
from k2_tests.crash.checker import check
from k2_tests.crash.ledger import Ledger
from k2_tests.crash.torture.attempts import DONE, Attempt
from k2_tests.crash.torture.market import Encoder, Market, wider_schema
from k2_tests.crash.torture.workers import Broker, Worker
from k2_tests.crash.torture.zygote import Zygote
from k2_tests.ticks import FEEDS

PARTITIONS = {"binance-trades": 2, "asx-trades": 1, "binance-quotes": 2}
SCENES = (
    ("binance-trades", "asx-trades"),
    ("binance-trades",),
    ("binance-quotes",),
    ("binance-trades", "binance-quotes"),
)
"""Feeds of a home: one table fed by two topics, one by one, and two tables beside each other."""


class Wrong(AssertionError):
    """Raised when the lake is not what the ledger says, or an attempt ended as none may."""


@dataclass
class Scene:
    """A home and everything on it. Made by `open_scene`, ended by `close`."""

    home: Path
    feeds: tuple[Feed, ...]
    tables: tuple[Table, ...]
    registry_url: str
    zygote: Zygote
    ledger: Ledger
    market: Market
    brokers: list[Broker] = field(default_factory=list)
    bootstrap: str = ""
    reached: dict[str, Offsets] = field(default_factory=dict)
    workers: dict[int, Worker] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    _lake: Lake | None = None

    def work(self, **attempt: Any) -> Worker:
        """Start a worker on this home."""
        given = {"tables": tuple(t.name for t in self.tables), **attempt}
        doing = Attempt(
            home=str(self.home / "k2"),
            config=str(self.home / "config"),
            bootstrap=self.bootstrap,
            registry_url=self.registry_url,
            **given,
        )
        worker = Worker(doing, self.zygote.start(doing), self.zygote)
        self.note(f"process {worker.pid}: {attempt}")
        self.workers[worker.pid] = worker
        return worker

    def note(self, what: str) -> None:
        """Write down what happens, for whoever reads the home of a round that failed."""
        with (self.home / "events.log").open("a") as log:
            log.write(f"{time.monotonic():.2f} {what}\n")

    def end(self, worker: Worker, allowed: tuple[int, ...], seconds_max: float = 60.0) -> int:
        """Wait for a worker's end. Raises Wrong when it is none of those allowed."""
        code = worker.ends(seconds_max)
        self.workers.pop(worker.pid, None)
        self.note(f"process {worker.pid} ended with {code}")
        if code not in allowed:
            report = self.home / "k2" / "trouble" / f"{worker.pid}.txt"
            told = report.read_text() if report.exists() else ""
            raise Wrong(f"{worker.attempt} ended with {code}, expected one of {allowed}\n{told}")
        return code

    def start_broker(self) -> None:
        """Start a broker, kill the one before it, and send to the new one from now on."""
        topics = {feed.topic: feed.kafka_partitions for feed in self.feeds}
        fresh = Broker(topics, self.home / f"broker-{len(self.brokers)}")
        self.bootstrap = fresh.bootstrap()
        if self.brokers:
            self.brokers[-1].kill()
            self.ledger.epoch += 1
        self.brokers.append(fresh)
        self.market.connect(self.bootstrap)

    def settle(self) -> None:
        """Let a worker that nobody disturbs finish what is left, and compare everything. Raises Wrong."""
        self.market.flush()
        began = time.monotonic()
        self.end(self.work(rows_per_commit=500), (DONE,))
        settled = time.monotonic()
        self.check()
        self.seconds += Counter({"settling": settled - began, "checking": time.monotonic() - settled})

    def check(self) -> None:
        """Compare the ledger with every table. Raises Wrong."""
        findings: list[str] = []
        for table in self.tables:
            checked = check(self.lake, table, self.feeds, self.ledger, self.reached.get(table.name))
            findings += (f"{table.name}: {finding}" for finding in checked.findings)
            self.reached[table.name] = checked.offsets
        if findings:
            raise Wrong("\n".join(findings))
        self.counted["checks"] += 1

    @property
    def lake(self) -> Lake:
        if self._lake is None:
            self._lake = Lake(
                f"sqlite:///{self.home / 'k2' / 'catalog.db'}?timeout=60", str(self.home / "k2" / "warehouse")
            )
            self._lake.ensure(TABLES)
        return self._lake

    def waiting(self) -> int:
        """Records acknowledged that no commit has taken yet."""
        positions = {at: p for table in self.tables for at, p in self.lake.head(table).offsets.positions.items()}
        epoch = self.ledger.epoch
        return sum(
            1
            for topic, e, partition, offset in self.ledger.acknowledged
            if e == epoch and ((p := positions.get((topic, partition))) is None or (p.epoch, p.next) <= (epoch, offset))
        )

    def close(self) -> None:
        """End everything that is still there."""
        for worker in self.workers.values():
            worker.kill()
            worker.ends()
        for broker in self.brokers[-1:]:
            broker.kill()


def open_scene(home: Path, rng: random.Random, registry_url: str, zygote: Zygote) -> Scene:
    """Make a home with a broker, the schemas registered; its tables come with its first worker."""
    feeds = tuple(replace(FEEDS[name], kafka_partitions=PARTITIONS[name]) for name in rng.choice(SCENES))
    (home / "k2").mkdir(parents=True)
    (home / "config").mkdir()
    document = {"feeds": [feed.entry() for feed in feeds]}
    (home / "config" / "feeds.yaml").write_text(yaml.safe_dump(document))
    tables = tuple({feed.table.name: feed.table for feed in feeds}.values())
    ledger = Ledger()
    market = Market(rng, ledger, _encoders(feeds, registry_url), feeds)
    scene = Scene(home, feeds, tables, registry_url, zygote, ledger, market)
    scene.start_broker()
    return scene


def _encoders(feeds: tuple[Feed, ...], registry_url: str) -> Mapping[str, Encoder]:
    with closing(Registry(registry_url)) as registry:
        ids = {
            feed.table.name: [
                registry.register(feed.subject, schema(feed.table)) for schema in (avro_schema, wider_schema)
            ]
            for feed in feeds
        }
    tables = {feed.table.name: feed.table for feed in feeds}
    return {name: Encoder(tables[name], *found) for name, found in ids.items()}
