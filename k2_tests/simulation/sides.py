"""The two sides of each port, simulated and real, as one test drives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Producer
from pyiceberg.exceptions import CommitFailedException

from k2_core.contracts import TABLES, TRADES
from k2_core.protocol.ports import Change, Head, Ledger, Log
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_core.sequences import Intervals, ScopeState
from k2_resources.kafka import KafkaLog
from k2_resources.lake.ledger import IcebergLedger
from k2_tests.lakes import DAY, FEED, TOPIC, letter_rows, new_lake
from k2_tests.simulation.catalog import Catalog
from k2_tests.simulation.cluster import Cluster, SimulatedLog, Token
from k2_tests.simulation.disk import Disk
from k2_tests.simulation.ledger import SimulatedLedger
from k2_tests.simulation.scheduler import Scheduler
from k2_tests.simulation.weather import FAULTS, Weather
from k2_tests.ticks import table_of, trade

TROUBLES = {"answer_lost": "answer_lost", "not_sent": "commit_not_sent", "refused": "commit_refused"}
"""What may happen to a commit -> the fault of the simulation."""


def receipt(*ranges: RangeCount, kind: Any = "batch") -> Receipt:
    """A receipt of one batch."""
    dates = (DateRows(DAY, FEED.name, sum(r.stored for r in ranges)),) if kind == "batch" else ()
    return Receipt(TRADES.name, kind, "run", "0", "1", ranges, dates=dates)


class LedgerSide(Protocol):
    """A ledger with what a test has to know of it."""

    ledger: Ledger

    def rows(self, start: int, count: int) -> Any:
        """Rows as a change carries them."""

    def letters(self, start: int, count: int) -> Any:
        """Dead letters as a change carries them."""

    def state(self, count: int) -> Any:
        """A state that has seen so many ids."""

    def held(self, at: Head) -> int:
        """Rows a reader of a head finds."""

    def exists(self, path: str) -> bool:
        """Whether a file is there."""

    def touch(self, table: Any) -> None:
        """Commit something that changes no key of K2."""

    def trouble(self, name: str) -> Any:
        """Have every commit meet one of TROUBLES, for a while."""


def batch(side: LedgerSide, start: int, count: int, *, letters: int = 0, **changes: Any) -> Change:
    """A change that reads count records and so many letters."""
    end = start + count + letters
    counted = RangeCount(TOPIC, 0, 0, start, end, count + letters, written=count, dead=letters)
    rows = side.rows(start, count) if count else None
    dead = side.letters(start + count, letters) if letters else None
    return Change(receipt(counted), rows=rows, dead_letters=dead, states={TOPIC: side.state(end)}, **changes)


@dataclass
class IcebergSide:
    """The real lake on SQLite and local files."""

    home: Path

    def __post_init__(self) -> None:
        self.lake = new_lake(self.home)
        self.ledger = IcebergLedger(self.lake)

    def rows(self, start: int, count: int) -> Any:
        sent = table_of(FEED, [trade(n) for n in range(start, start + count)])
        columns = {
            **{name: sent[name] for name in sent.column_names},
            "kafka_offset": range(start, start + count),
            "revision": [0] * count,
            "exchange_date": [DAY] * count,
        }
        schema = TRADES.arrow_schema()
        return pa.table([columns[name] for name in schema.names], schema=schema)

    def letters(self, start: int, count: int) -> Any:
        return letter_rows(start, [b"junk"] * count)

    def state(self, count: int) -> Any:
        return {"BTCUSDT": ScopeState(Intervals.of(np.arange(count, dtype=np.int64)), high=None)}

    def held(self, at: Head) -> int:
        return int(at.loaded.scan().count())

    def exists(self, path: str) -> bool:
        return Path(path).exists()

    def touch(self, table: Any) -> None:
        with self.lake.load(table).transaction() as transaction:
            transaction.set_properties({"note": "somebody was here"})

    @contextmanager
    def trouble(self, name: str) -> Iterator[None]:
        honest = self.lake.catalog.commit_table

        def troubled(*args: Any, **kwargs: Any) -> Any:
            if name == "refused":
                raise CommitFailedException("refused")
            if name == "answer_lost":
                honest(*args, **kwargs)
            raise OSError("no answer")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.lake.catalog, "commit_table", troubled)
            yield


class SimulatedSide:
    """The simulated ledger, outside of any schedule."""

    def __init__(self, home: Path) -> None:
        rng = Random(0)
        scheduler = Scheduler(rng, slice_steps_max=1, steps_max=1)
        self.weather = Weather(rng)
        self.weather.clears()
        self.disk = Disk(scheduler, self.weather)
        self.catalog = Catalog(table.name for table in TABLES)
        self.ledger = SimulatedLedger(self.catalog, self.disk, scheduler, self.weather)

    def rows(self, start: int, count: int) -> Any:
        return [("row", n) for n in range(start, start + count)]

    def letters(self, start: int, count: int) -> Any:
        return [("letter", n) for n in range(start, start + count)]

    def state(self, count: int) -> Any:
        return dict.fromkeys(range(count), (0,))

    def held(self, at: Head) -> int:
        return sum(len(self.disk.read(path)) for path in at.loaded.files)

    def exists(self, path: str) -> bool:
        return path in self.disk.files

    def touch(self, table: Any) -> None:
        base = self.catalog.heads[table.name]
        properties = {**base.properties, "note": "somebody was here"}
        metadata = self.disk.write(f"{table.name}/metadata", ())
        previous = (base.metadata, *base.previous) if base.metadata else ()
        after = type(base)(
            base.table, base.table_uuid, metadata, properties, base.snapshots, base.sequence_number, previous
        )
        assert self.catalog.swap(base, after)

    @contextmanager
    def trouble(self, name: str) -> Iterator[None]:
        self.weather.rates = {fault: float(fault == TROUBLES[name]) for fault in FAULTS}
        try:
            yield
        finally:
            self.weather.clears()


LEDGER_SIDES: Mapping[str, Callable[[Path], LedgerSide]] = {"iceberg": IcebergSide, "simulated": SimulatedSide}


class LogSide(Protocol):
    """A log with what a test has to do to it."""

    log: Log

    def produce(self, topic: str, kafka_partition: int, count: int) -> None:
        """Append records."""

    def drop_some(self, topic: str) -> None:
        """Have records of partition 0 go, unread; some are left."""


@dataclass
class BrokerSide:
    """The embedded broker."""

    bootstrap: str

    def __post_init__(self) -> None:
        self.log = KafkaLog(self.bootstrap, timeout_seconds=2.0)

    def produce(self, topic: str, kafka_partition: int, count: int) -> None:
        self._produce(topic, kafka_partition, [b"%d" % n for n in range(count)])

    def drop_some(self, topic: str) -> None:
        noise = np.random.default_rng(7).bytes(500_000)  # a partition of this broker holds 5 MiB
        self._produce(topic, 0, [noise] * 12)

    def _produce(self, topic: str, kafka_partition: int, values: Sequence[bytes]) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for value in values:
            producer.produce(topic, value, partition=kafka_partition)
            producer.flush(10)


class ClusterSide:
    """The simulated cluster, outside of any schedule."""

    def __init__(self, topics: Mapping[str, int]) -> None:
        rng = Random(0)
        scheduler = Scheduler(rng, slice_steps_max=1, steps_max=1)
        weather = Weather(rng)
        weather.clears()
        self.cluster = Cluster()
        for name, partitions in topics.items():
            self.cluster.create(name, partitions)
        self.log = SimulatedLog(self.cluster, scheduler, weather, rng)

    def produce(self, topic: str, kafka_partition: int, count: int) -> None:
        for n in range(count):
            self.cluster.produce(topic, kafka_partition, Token(n, 0, "good"), acknowledge=True)

    def drop_some(self, topic: str) -> None:
        self.produce(topic, 0, 12)
        self.cluster.topics[topic].partitions[0].low = 3
