"""The jobs without the daemon: the same definitions, the same persistent instance, in the calling process."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from k2_assets.definitions import build_definitions
from k2_assets.engine import Engine, open_engine
from k2_assets.ingest import ingest_config
from k2_assets.reports import unreported
from k2_assets.runs import TABLE_TAG
from k2_assets.told import Told, receipts_after, total
from k2_core.contracts import INGESTED, Table
from k2_core.errors import FencedOut
from k2_core.offsets import OffsetRange
from k2_resources.settings import Settings

LOST_RACES_MAX = 10
"""Plans lost in a row to the runs of a stack: each of those has ingested what this one wanted, so this is never met."""
_QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}


@dataclass(frozen=True)
class Ingested:
    """What runs put into one table, from its receipts."""

    table: str
    runs: int
    commits: int
    read: int
    written: int
    duplicates: int
    revisions: int
    dead: int

    @classmethod
    def of(cls, table: Table, runs: int, receipts: list[Told]) -> "Ingested":
        counts = {name: total(receipts, name) for name in ("read", "written", "duplicates", "revisions", "dead")}
        return cls(table.name, runs, len(receipts), **counts)


def open_instance(dagster_home: Path, config: Path) -> dg.DagsterInstance:
    """Open the Dagster home; a new one gets a copy of the instance's configuration."""
    dagster_home.mkdir(parents=True, exist_ok=True)
    own = dagster_home / "dagster.yaml"
    if not own.exists():
        own.write_bytes(config.read_bytes())
    return dg.DagsterInstance.from_config(str(dagster_home.absolute()))


def ingest(settings: Settings, instance: dg.DagsterInstance, *, until_caught_up: bool) -> Iterator[Ingested]:
    """Run the job of each table: once, or until nothing waits. Yields the sums of each table that is done."""
    definitions = build_definitions(settings)
    with open_engine(settings) as engine:
        for table in INGESTED:
            state = engine.lake.state(table)
            before = state.sequence_number if state else 0
            job = definitions.resolve_job_def(f"ingest_{table.short_name}")
            runs = _run(job, engine, instance, table, until_caught_up=until_caught_up)
            batches = [told for told in receipts_after(engine.lake, table, before) if told.kind == "batch"]
            yield Ingested.of(table, runs, batches)


def _run(
    job: dg.JobDefinition, engine: Engine, instance: dg.DagsterInstance, table: Table, *, until_caught_up: bool
) -> int:
    runs, lost = 0, 0
    while (ranges := _waiting(engine, instance, table)) is not None:
        try:
            job.execute_in_process(
                run_config={"ops": {table.short_name: {"config": ingest_config(ranges).model_dump()}}, **_QUIET},
                tags={TABLE_TAG: table.name},
                instance=instance,
            )
        except FencedOut:
            lost += 1
            if lost > LOST_RACES_MAX:
                raise
            continue
        runs, lost = runs + 1, 0
        if not until_caught_up:
            break
    return runs


def _waiting(engine: Engine, instance: dg.DagsterInstance, table: Table) -> tuple[OffsetRange, ...] | None:
    """Ranges to read, none of them when something only has to be told; None when nothing waits."""
    plan = engine.plan(table)
    return plan.ranges if plan.ranges or unreported(instance, engine.lake, table) else None
