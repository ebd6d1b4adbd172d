"""Assets of the tables a topic feeds, and the jobs that execute planned ranges."""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from k2_assets.check_shown import sample
from k2_assets.engine import Engine, open_engine
from k2_assets.reloading import Reloaded, reload_day
from k2_assets.reports import report
from k2_assets.runs import TABLE_TAG, record_process
from k2_assets.tables import asset_key, table_spec
from k2_core.contracts import Table
from k2_core.feeds import Feed
from k2_core.offsets import OffsetRange
from k2_core.receipts import Committed
from k2_resources.bindings import K2Resource
from k2_resources.lake.scans import day_rows


class PlannedRange(dg.Config):
    """One half-open offset range of a plan: offsets, never records, so a run's config stays small."""

    topic: str
    kafka_partition: int
    start: int
    end: int


class IngestConfig(dg.Config):
    """What one run shall read. Without ranges the run plans for itself until nothing waits."""

    ranges: list[PlannedRange] = Field(default_factory=list)


def ingest_config(ranges: tuple[OffsetRange, ...]) -> IngestConfig:
    """Write planned ranges as run config."""
    return IngestConfig(
        ranges=[
            PlannedRange(topic=r.topic, kafka_partition=r.kafka_partition, start=r.start, end=r.end) for r in ranges
        ]
    )


def ingested(table: Table, feeds: tuple[Feed, ...]) -> dg.AssetsDefinition:
    """Define the asset of one table."""

    @dg.multi_asset(name=table.short_name, specs=[table_spec(table, feeds)], pool=table.short_name)
    def ingest(
        context: dg.AssetExecutionContext, config: IngestConfig, k2: K2Resource
    ) -> Iterator[dg.MaterializeResult]:
        """Execute the planned ranges, then report. Running it twice changes nothing the second time.

        The sensor's runs carry ranges and no partition key: a range holds any dates, and the report names those it
        touched. A run without ranges, such as one launched from the UI, plans for itself and ingests until nothing
        waits. Launched for a date, it first sends that date again from the sources of record of its feeds, and ends
        by materializing it.
        """
        record_process(context.instance, context.run.run_id)
        settings = k2.settings()
        with open_engine(settings) as engine:
            day = date.fromisoformat(context.partition_key) if context.has_partition_key else None
            sent = _reload(context, engine, table, day) if day else []
            _execute(context, engine, table, config)
            report(context, engine.lake, table, engine.feeds, settings.run_dates_max)
            if day:
                yield _asked_for(engine, table, day, sent)

    return ingest


def ingest_job(table: Table) -> UnresolvedAssetJobDefinition:
    """Define the job of one table: no checks as steps, because its report evaluates them, and no process per step."""
    return dg.define_asset_job(
        f"ingest_{table.short_name}",
        selection=dg.AssetSelection.assets(asset_key(table)).without_checks(),
        description=f"Execute planned offset ranges into {table.name}, or plan until nothing waits.",
        executor_def=dg.in_process_executor,
        tags={TABLE_TAG: table.name},
    )


def _reload(context: dg.AssetExecutionContext, engine: Engine, table: Table, day: date) -> list[Reloaded]:
    """Send a date again, ingesting whenever the embedded broker is full of it."""
    sent = reload_day(
        engine.settings, engine.feeds, table, day, lambda: _execute(context, engine, table, IngestConfig())
    )
    for told in sent:
        context.log.info(f"{told.feed} of {day}: {told.absent or f'{told.sent:,} rows sent again'}")
    return sent


def _execute(context: dg.AssetExecutionContext, engine: Engine, table: Table, config: IngestConfig) -> None:
    for committed in _committed(engine, table, config, context.run.run_id):
        context.log.info(_sentence(committed))


def _committed(engine: Engine, table: Table, config: IngestConfig, run_id: str) -> Iterator[Committed]:
    if config.ranges:
        yield from engine.execute(table, [OffsetRange(**r.model_dump()) for r in config.ranges], run_id)
        return
    yield from engine.execute(table, (), run_id)
    while (plan := engine.plan(table)).ranges:
        yield from engine.execute(table, plan.ranges, run_id)


def _sentence(committed: Committed) -> str:
    receipt = committed.receipt
    read, duplicates = sum(r.read for r in receipt.ranges), sum(r.duplicates for r in receipt.ranges)
    return (
        f"committed {receipt.table} {committed.sequence_number}: {read:,} records, {receipt.rows_stored:,} rows, "
        f"{duplicates:,} duplicates, {receipt.dead:,} dead letters"
    )


def _asked_for(engine: Engine, table: Table, day: date, sent: Sequence[Reloaded]) -> dg.MaterializeResult:
    """The date a run was launched for, as it is stored now. sent: what its sources of record gave."""
    rows = len(day_rows(engine.lake, table, day, ["message_id"]))
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": rows,
        "rows_sent_again": sum(told.sent for told in sent),
        "sources": sample([vars(told) for told in sent], ("feed", "sent", "rejected", "absent")),
    }
    return dg.MaterializeResult(asset_key=asset_key(table), metadata=metadata)
