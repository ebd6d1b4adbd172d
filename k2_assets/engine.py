"""The ingestion engine: real adapters put behind the ports of the protocol. Imports no Dagster."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import structlog

from k2_assets.desk import Desk
from k2_core.contracts import INGESTED, TABLES, Table
from k2_core.errors import CatalogLost
from k2_core.feeds import Feed
from k2_core.offsets import OffsetRange
from k2_core.protocol.collect import collect
from k2_core.protocol.ingestion import Ingestion
from k2_core.protocol.planning import Plan
from k2_core.receipts import Committed
from k2_resources import failpoints
from k2_resources.collector import few_collections
from k2_resources.decoders import open_registry
from k2_resources.failpoints import reach
from k2_resources.kafka import KafkaLog
from k2_resources.lake.catalog import Lake
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.registry import Registry
from k2_resources.settings import Settings, load_feeds

log = structlog.get_logger(__name__)

CODE_VERSION = version("k2-platform")


@dataclass(frozen=True)
class Engine:
    """Everything a batch passes through."""

    settings: Settings
    feeds: tuple[Feed, ...]
    lake: Lake
    kafka: KafkaLog
    registry: Registry

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.registry.close()

    @cached_property
    def ingestion(self) -> Ingestion:
        """The protocol over these adapters."""
        return Ingestion(
            ledger=IcebergLedger(self.lake),
            log=self.kafka,
            desk=Desk({feed.topic: feed for feed in self.feeds}, self.registry, reach, CODE_VERSION),
            feeds=self.feeds,
            reach=reach,
            code_version=CODE_VERSION,
            rows_per_commit=self.settings.rows_per_commit,
        )

    def plan(self, table: Table, rows_max: int | None = None) -> Plan:
        """Plan the next ranges of one table; empty when nothing waits. Writes nothing. Raises Halted."""
        return self.ingestion.plan(table, rows_max or self.settings.run_rows_max)

    def execute(self, table: Table, ranges: Sequence[OffsetRange], run_id: str) -> Iterator[Committed]:
        """Execute planned ranges, yielding each commit. Running them twice changes nothing the second time.

        Raises Halted, FencedOut, SchemaUnavailable, Unreachable; what was yielded before stays committed.
        """
        with few_collections():
            for committed in self.ingestion.execute(table, ranges, run_id):
                receipt = committed.receipt
                counts = {"rows": receipt.rows_stored, "dead": receipt.dead}
                log.info("committed", table=table.name, snapshot_id=committed.snapshot_id, **counts)
                yield committed

    def register(self, table: Table, run_id: str) -> Committed | None:
        """Accept the low watermarks of topics the table has never read as their start; None when all are known."""
        return self.ingestion.register(table, run_id)

    def adopt(self, table: Table, topics: Iterable[str], *, run_id: str, who: str, why: str) -> Committed | None:
        """Go on with topics that were made anew: a new epoch from their low watermarks. None when none changed."""
        return self.ingestion.adopt(table, topics, run_id=run_id, who=who, why=why)

    def accept_loss(self, table: Table, topic: str, *, run_id: str, who: str, why: str) -> Committed | None:
        """Go on past records the log no longer holds. None without a loss. Raises IncarnationChanged, NotFound."""
        return self.ingestion.accept_loss(table, topic, run_id=run_id, who=who, why=why)

    def resume(
        self, table: Table, topic: str, kafka_partitions: Iterable[int] | None, *, run_id: str, who: str, why: str
    ) -> Committed | None:
        """Read paused Kafka partitions again; all of a topic's with None. None when none of them is paused."""
        return self.ingestion.resume(table, topic, kafka_partitions, run_id=run_id, who=who, why=why)

    def lag(self, table: Table) -> dict[str, int]:
        """Records waiting per topic, from the stored offsets and the watermarks."""
        return self.ingestion.lag(table)

    def collect(self, table: Table) -> int:
        """Copy receipts and sidecars that are not in the audit tables yet; returns how many receipts were new."""
        return collect(self.ingestion.ledger, table, reach)

    def topics(self, table: Table) -> list[str]:
        """The topics that fill one table."""
        return self.ingestion.topics(table)


def open_engine(settings: Settings) -> Engine:
    """Open every adapter and make the tables that do not exist."""
    failpoints.arm(settings.failpoint)
    settings.home.mkdir(parents=True, exist_ok=True)
    lake = Lake(settings.catalog(), settings.warehouse_path())
    _expect_catalog(lake)
    lake.ensure(TABLES)
    kafka = KafkaLog(
        settings.bootstrap(),
        timeout_seconds=settings.kafka_timeout_seconds,
        memory_bytes_max=settings.memory_bytes_max,
        age_seconds_max=settings.commit_age_seconds_max,
    )
    return Engine(settings, load_feeds(settings), lake, kafka, open_registry(settings))


def _expect_catalog(lake: Lake) -> None:
    """Refuse to make tables anew over the files of others. Raises CatalogLost: the old ones would be gone unseen."""
    for table in INGESTED:
        receipts = Path(f"{lake.warehouse}/{table.namespace}/{table.short_name}/k2/receipts")
        if receipts.is_dir() and lake.state(table) is None:
            raise CatalogLost(
                f"{table.name} is not in the catalog, but {receipts.parents[1]} holds what was committed to it. "
                "Restore the catalog, or move that directory away to begin anew."
            )


def ingest_until_caught_up(engine: Engine, run_id: str | None = None) -> list[Committed]:
    """Plan and execute every table until nothing waits."""
    run = run_id or f"process-{os.getpid()}"
    committed: list[Committed] = []
    for table in INGESTED:
        engine.collect(table)
        while (plan := engine.plan(table)).ranges:
            committed += engine.execute(table, plan.ranges, run)
    return committed
