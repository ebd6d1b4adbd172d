"""Upkeep as Dagster shows it: one asset a duty, in the order they help each other, run by one schedule.

Not one asset per table: a duty is what people switch off, look at and read the plots of; tables are rows of its result.
"""

from collections import Counter

import dagster as dg

from k2_assets.runs import record_process
from k2_assets.topics import OWNER
from k2_assets.upkeep import DUTIES, Done, attend, open_upkeep
from k2_core.contracts import Table
from k2_core.feeds import Feed
from k2_resources import clock
from k2_resources.bindings import K2Resource
from k2_resources.settings import Settings

GROUP = "upkeep"
_KINDS = {"iceberg", "python"}
_PREVIOUS = dict(zip(DUTIES, [None, *DUTIES], strict=False))
"""The duty before each: the next finds what that one left."""


def maintenance_definitions(settings: Settings, feeds: tuple[Feed, ...]) -> dg.Definitions:
    """Define upkeep: its assets, the job that runs them in order, and the schedule of that."""
    assets = [_duty(name) for name in DUTIES]
    job = dg.define_asset_job(
        "maintain",
        selection=dg.AssetSelection.assets(*(asset.key for asset in assets)),
        description="Look after the lake: rewrite files, forget snapshots, sweep orphans, regroup manifests.",
        executor_def=dg.in_process_executor,
    )
    schedule = dg.ScheduleDefinition(
        name="maintain",
        job=job,
        cron_schedule=settings.upkeep_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Upkeep of all tables; safe beside ingestion.",
    )
    return dg.Definitions(assets=assets, jobs=[job], schedules=[schedule])


def upkeep_key(duty: str) -> dg.AssetKey:
    """The asset of a duty."""
    return dg.AssetKey([GROUP, duty])


def _duty(name: str) -> dg.AssetsDefinition:
    before = _PREVIOUS[name]

    @dg.asset(
        key=upkeep_key(name),
        deps=[upkeep_key(before)] if before else [],
        group_name=GROUP,
        kinds=_KINDS,
        owners=[OWNER],
        description=f"{DUTIES[name].__doc__} Changes no row: any answer cited before recomputes to the same bytes.",
        pool=GROUP,
    )
    def duty(context: dg.AssetExecutionContext, k2: K2Resource) -> dg.MaterializeResult:
        record_process(context.instance, context.run.run_id)
        upkeep = open_upkeep(k2.settings(), clock.now(), context.run.run_id)
        done = {}
        for table, counts in attend(upkeep, name):
            context.log.info(f"{table.name}: {sentence(counts)}")
            done[table] = counts
        return dg.MaterializeResult(metadata={**_totals(done), "tables": _by_table(done)})

    return duty


def sentence(counts: Done) -> str:
    """What was done to a table, in words."""
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())


def _totals(done: dict[Table, Done]) -> dict[str, int]:
    """Sums over tables: numbers, so that Dagster plots them over time."""
    sums: Counter[str] = Counter()
    for counts in done.values():
        sums.update(counts)
    return dict(sums)


def _by_table(done: dict[Table, Done]) -> dg.TableMetadataValue:
    names = list(dict.fromkeys(name for counts in done.values() for name in counts))
    columns = [dg.TableColumn("table", "string"), *(dg.TableColumn(name, "int") for name in names)]
    records = [
        dg.TableRecord({"table": table.name, **{name: counts.get(name, 0) for name in names}})
        for table, counts in done.items()
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))
