"""Bars as assets: minute bars of a date from its trades, the daily bar from those.

A schedule looks each minute whether trades came since bars were built, and asks for one run that builds what is due and
says so date by date. That run is no run of the assets: Dagster 1.13 refuses one without a partition key downstream of
assets that have partitions. From the UI, or in a backfill, a run builds its date anew from all its trades.
"""

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache, partial
from typing import Any

import dagster as dg

from k2_assets.partitions import DAILY, is_partition
from k2_assets.runs import UNDER_WAY, record_process
from k2_assets.tables import asset_key, iceberg_spec
from k2_core.builds import built_in
from k2_core.contracts import TRADES, Table
from k2_core.derived_tables import BARS, BARS_1D, BARS_1M
from k2_core.errors import K2Error
from k2_core.feeds import Feed
from k2_core.protocol.collect import collect
from k2_core.tables import LINEAGE_NAMES
from k2_core.windows import EPOCH
from k2_resources import clock
from k2_resources.bindings import K2Resource
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived import (
    Build,
    build_day,
    build_minutes,
    builds_told,
    due_days,
    due_minutes,
    ensure,
)
from k2_resources.lake.derived_reads import Rules, Source, bar_rules, source_of
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.settings import Settings

JOB = "refresh_bars"
DERIVED_TAG = "k2/derived"
"""What a run derives; single flight goes by it."""
EVENTS_LOOKED_AT = 200
"""Newest materializations that are searched for a build: twice the snapshots that are kept."""
REST_MINUTES_MAX = 30
"""After n failed runs in a row the next one waits 2^n minutes, half an hour at most."""
_FAILURES_LOOKED_AT = 6

_OF_PRINTS = {
    "symbol": ("symbol",),
    "exchange": ("exchange",),
    "exchange_date": ("exchange_date",),
    "window_start": ("timestamp",),
    "window_end": ("timestamp",),
    **{f"{name}_price": ("price", "trade_conditions", "quality_flags") for name in ("open", "high", "low", "close")},
    **{f"{name}_timestamp": ("timestamp",) for name in ("open", "close")},
    **{f"{name}_message_id": ("message_id",) for name in ("open", "close")},
    **dict.fromkeys(("volume", "priced_volume"), ("quantity", "trade_conditions", "quality_flags")),
    **dict.fromkeys(("trade_count", "excluded_count"), ("trade_conditions", "quality_flags")),
    **dict.fromkeys(("notional", "vwap"), ("price", "quantity", "trade_conditions", "quality_flags")),
    **dict.fromkeys(("price_time", "twap"), ("price", "timestamp", "trade_conditions", "quality_flags")),
    **dict.fromkeys(("covered_us", "twap_coverage"), ("timestamp", "trade_conditions", "quality_flags")),
    "gap_count": ("source_sequence",),
    "is_final": ("timestamp",),
    "heard_until": ("timestamp",),
    "version": LINEAGE_NAMES,
}
"""Columns of trades that a column of a minute bar comes from."""


def derived_definitions(settings: Settings, feeds: tuple[Feed, ...]) -> dg.Definitions:
    """Define the bars, the job that refreshes them, and the schedule that asks for it. Connects to nothing."""
    job = _job(feeds)
    return dg.Definitions(assets=[_bars(feeds)], jobs=[job], schedules=[_schedule(job, feeds)])


def rules_of(settings: Settings, feeds: tuple[Feed, ...]) -> Rules:
    """What bars of these feeds go by. Raises Misconfigured."""
    return bar_rules(settings.config, feeds)


def refresh(lake: Lake, rules: Rules) -> Iterator[Build | K2Error]:
    """Build everything that is due, yielding each build; a date that fails is told and keeps no other from its turn."""
    source = _collected(lake)
    if source is None:
        return
    due = due_minutes(lake, source, rules)
    until: int | None = due.until
    for place, day in enumerate(due.days, start=1):
        is_last = place == len(due.days)
        outcome = _tried(partial(build_minutes, lake, source, rules, day, until=until if is_last else None))
        until = None if isinstance(outcome, K2Error) else until
        yield outcome
    for day in due_days(lake):
        yield _tried(partial(build_day, lake, rules, day))


def _collected(lake: Lake) -> Source | None:
    """The trades now, their receipts and gap events copied; None before the first commit. Raises NotFound."""
    source = source_of(lake)
    if source is not None:
        collect(IcebergLedger(lake), TRADES, reach, source=source.at)
    return source


def _tried(build: Callable[[], Build]) -> Build | K2Error:
    try:
        return build()
    except K2Error as error:
        return error


def _bars(feeds: tuple[Feed, ...]) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name="bars",
        specs=[
            _spec(BARS_1M, TRADES, "from the trades of its date by the update rules of the exchange", _OF_PRINTS),
            _spec(BARS_1D, BARS_1M, "rolled up from its minute bars", {c.name: (c.name,) for c in BARS_1M.columns}),
        ],
        can_subset=True,
        pool="bars",
        backfill_policy=dg.BackfillPolicy.multi_run(1),
    )
    def bars(context: dg.AssetExecutionContext, k2: K2Resource) -> Iterator[dg.MaterializeResult]:
        """Build the date the run is for, anew from all its trades. A date is replaced whole."""
        record_process(context.instance, context.run.run_id)
        yield from _asked_for(context, *_opened(k2.settings(), feeds))

    return bars


def _opened(settings: Settings, feeds: tuple[Feed, ...]) -> tuple[Lake, Rules]:
    lake = Lake(settings.catalog(), settings.warehouse_path())
    ensure(lake)
    return lake, rules_of(settings, feeds)


def _spec(table: Table, upstream: Table, how: str, columns: dict[str, tuple[str, ...]]) -> dg.AssetSpec:
    lineage = {
        name: [dg.TableColumnDep(asset_key(upstream), column) for column in sources]
        for name, sources in columns.items()
    }
    description = f"One row is {table.grain}, {how}. See docs/DATA.md."
    deps = [asset_key(upstream)]
    return iceberg_spec(table, deps, "derived", description, lineage, skippable=True, partitions_def=DAILY)


def _job(feeds: tuple[Feed, ...]) -> dg.JobDefinition:
    @dg.op(name="refresh", pool="bars", description="Build what is due, and tell it date by date.")
    def build_due(context: dg.OpExecutionContext, k2: K2Resource) -> None:
        record_process(context.instance, context.run.run_id)
        settings = k2.settings()
        _refreshed(context, *_opened(settings, feeds), settings.run_dates_max)

    @dg.job(
        name=JOB,
        description="Build the bars of every date whose trades changed since, minute bars first.",
        executor_def=dg.in_process_executor,
        tags={DERIVED_TAG: "bars"},
    )
    def refresh_bars() -> None:
        build_due()

    return refresh_bars


def _asked_for(context: dg.AssetExecutionContext, lake: Lake, rules: Rules) -> Iterator[dg.MaterializeResult]:
    """The selected tables of the date of the run, from all its trades."""
    day = date.fromisoformat(context.partition_key)
    if asset_key(BARS_1M) in context.selected_asset_keys:
        source = _collected(lake)
        if source is not None:
            yield _result(build_minutes(lake, source, rules, day, is_whole=True))
    if asset_key(BARS_1D) in context.selected_asset_keys:
        yield _result(build_day(lake, rules, day))


def _refreshed(context: dg.OpExecutionContext, lake: Lake, rules: Rules, dates_max: int) -> None:
    """Tell what runs before this one built and did not tell, build what is due, and fail once all had its turn."""
    for table in BARS:
        for event in untold(context.instance, lake, table, dates_max):
            context.log_event(event)
    failures = []
    for outcome in refresh(lake, rules):
        if isinstance(outcome, K2Error):
            context.log.error(f"{outcome.code}: {outcome}")
            failures.append(outcome)
        elif is_partition(outcome.exchange_date):
            context.log_event(_materialization(outcome))
    if failures:
        raise failures[0]


def untold(instance: dg.DagsterInstance, lake: Lake, table: Table, dates_max: int) -> list[dg.AssetMaterialization]:
    """What is built and not told: by a run that died after its commit, or because Dagster's home is a new one."""
    records = instance.fetch_materializations(asset_key(table), limit=EVENTS_LOOKED_AT).records
    events = [r.asset_materialization for r in records if r.asset_materialization is not None]
    told = {str(e.metadata["snapshot_id"].value) for e in events if "snapshot_id" in e.metadata}
    newest = {build.exchange_date: build for build in builds_told(lake, table)}
    lost = {day: build for day, build in newest.items() if str(build.snapshot_id) not in told}
    shown = instance.get_materialized_partitions(asset_key(table))
    built = built_in(lake.head(table).properties)
    for day in built.keys() - lost.keys():
        if day.isoformat() not in shown:
            lost[day] = Build(
                table, day, None, {"build": built[day].number, "trades_commit": built[day].sequence_number}
            )
    return [_materialization(lost[day]) for day in sorted(lost, reverse=True)[:dates_max] if is_partition(day)]


def _materialization(build: Build) -> dg.AssetMaterialization:
    day = build.exchange_date.isoformat()
    return dg.AssetMaterialization(asset_key(build.table), partition=day, metadata=_metadata(build))


def _result(build: Build) -> dg.MaterializeResult:
    return dg.MaterializeResult(asset_key=asset_key(build.table), metadata=_metadata(build))


def _metadata(build: Build) -> dict[str, Any]:
    facts = {name: value for name, value in build.facts.items() if name != "exchange_date" and value is not None}
    counted = {"dagster/partition_row_count": facts["rows"]} if "rows" in facts else {}
    named = {} if build.snapshot_id is None else {"snapshot_id": dg.MetadataValue.text(str(build.snapshot_id))}
    return {**facts, **counted, **named}


def _schedule(job: dg.JobDefinition, feeds: tuple[Feed, ...]) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=JOB,
        job=job,
        cron_schedule="* * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Ask for a run when trades came since bars were built: minutes close, and so do their bars.",
    )
    def each_minute(context: dg.ScheduleEvaluationContext, k2: K2Resource) -> dg.RunRequest | dg.SkipReason:
        settings = k2.settings()
        under_way = context.instance.get_runs(dg.RunsFilter(tags={DERIVED_TAG: "bars"}, statuses=UNDER_WAY), limit=1)
        if under_way:
            return dg.SkipReason(f"run {under_way[0].run_id} is under way")
        if (until := _rests_until(context.instance)) > clock.now():
            return dg.SkipReason(f"the last runs failed; the next one is asked for at {until:%H:%M:%S} UTC")
        try:
            return _answer(context.instance, settings, feeds)
        except K2Error as error:
            return dg.SkipReason(f"{error.code}: {error}")

    return each_minute


def _answer(instance: dg.DagsterInstance, settings: Settings, feeds: tuple[Feed, ...]) -> dg.RunRequest | dg.SkipReason:
    """A run to ask for, or why none. Looks only: what is due is found again by the run itself."""
    lake, rules = _kept_lake(settings.catalog(), settings.warehouse_path()), rules_of(settings, feeds)
    if lake.state(TRADES) is None:
        return dg.SkipReason(f"{TRADES.name} is not there yet")
    source = source_of(lake)
    if source is None:
        return dg.SkipReason(f"nothing was committed to {TRADES.name} yet")
    if lake.state(BARS_1D) is None or _is_due(lake, source, rules):
        return dg.RunRequest(tags={DERIVED_TAG: "bars"})
    if any(untold(instance, lake, table, 1) for table in BARS):
        return dg.RunRequest(tags={DERIVED_TAG: "bars"})
    return dg.SkipReason("bars are those of the trades")


@lru_cache(maxsize=4)
def _kept_lake(catalog: str, warehouse: str) -> Lake:
    """A lake that stays open between ticks: it reads the metadata of a table only when that changed."""
    return Lake(catalog, warehouse)


def _is_due(lake: Lake, source: Source, rules: Rules) -> bool:
    return bool(due_minutes(lake, source, rules).days or due_days(lake))


def _rests_until(instance: dg.DagsterInstance) -> datetime:
    """When the next run may be asked for: at once, unless the last ones failed."""
    ours = dg.RunsFilter(tags={DERIVED_TAG: "bars", "dagster/schedule_name": JOB})
    records = instance.get_run_records(ours, limit=_FAILURES_LOOKED_AT)
    failures = 0
    for record in records:
        if record.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            break
        failures += 1
    if not failures:
        return EPOCH
    return records[0].update_timestamp + timedelta(minutes=min(2**failures, REST_MINUTES_MAX))
