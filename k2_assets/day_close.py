"""Day close: an asset for each exchange, which certifies a date once it is over, and again when it changed.

It is the one place where checks block. A gap holds up its symbol, a check of a table all its days. What is not held up
is published; then the run fails and says what was.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from k2_assets.check_shown import sample
from k2_assets.checks import CHECKS
from k2_assets.closing import Judged, Row, Stamp, judge_day, publish
from k2_assets.day_watch import BLOCKED_TAG, CLOSED_MARK, close_job, close_key, day_schedule, day_sensor, over_at
from k2_assets.engine import CODE_VERSION
from k2_assets.partitions import DAILY, is_partition
from k2_assets.runs import record_process
from k2_assets.tables import asset_key, iceberg_spec
from k2_assets.topics import OWNER
from k2_core.certificates import decimal_columns, digest_columns
from k2_core.contracts import DAYS, TICK_TABLES, Table
from k2_core.derived_tables import BARS_1D
from k2_core.errors import NotFound
from k2_core.exchange_dates import FIRST_DATE
from k2_core.feeds import Feed, feeds_of
from k2_core.tables import LINEAGE_NAMES
from k2_core.verdict import HALT_ABOVE
from k2_resources import clock
from k2_resources.bindings import K2Resource
from k2_resources.lake.catalog import Lake
from k2_resources.lake.days import closings, latest
from k2_resources.settings import Settings, load_feeds

GROUP = "days"
GAPS_CHECK = "sequence_gaps"
"""It blocks by symbol, over the holes a closing itself sees (`Hole.holds_up`); the others block a table."""
OBSTACLES_MAX = 20
"""Obstacles named in the failure of a run: a screenful."""
_SHOWN = ("feed", "symbol", "verdict", "expected", "present", "missing", "sha256")


@dataclass(frozen=True)
class Obstacle:
    """What holds a day up: the check that says so, the table it speaks of, and what it found."""

    check: str
    table: Table
    found: str

    def __str__(self) -> str:
        return f"{self.check} of {self.table.name}: {self.found}"


def day_close_definitions(settings: Settings, feeds: tuple[Feed, ...]) -> dg.Definitions:
    """Define the day close of every exchange with ticks, when it runs, and audit.days, which it writes."""
    ticks = [feed for feed in feeds if feed.table in TICK_TABLES]
    own = {name: tuple(f for f in ticks if f.exchange == name) for name in sorted({f.exchange for f in ticks})}
    assets = {exchange: day_close(exchange, some, feeds) for exchange, some in own.items()}
    jobs = {exchange: _job(exchange) for exchange in own}
    return dg.Definitions(
        assets=[*assets.values(), _days_spec([close_key(exchange) for exchange in own])],
        jobs=list(jobs.values()),
        schedules=[day_schedule(exchange, some, jobs[exchange], settings) for exchange, some in own.items()],
        sensors=[day_sensor(exchange, some, jobs[exchange], settings) for exchange, some in own.items()],
    )


def day_close(exchange: str, own: tuple[Feed, ...], feeds: tuple[Feed, ...]) -> dg.AssetsDefinition:
    """Define the day close of one exchange. own: its tick feeds. feeds: all, as checks of whole tables want them."""
    tables = [table for table in TICK_TABLES if feeds_of(table, own)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # backfill policies; the version is pinned for them
        decorate = dg.asset(
            key=close_key(exchange),
            deps=[asset_key(table) for table in (*tables, BARS_1D)],
            description=_described(own),
            group_name=GROUP,
            kinds={"iceberg"},
            owners=[OWNER],
            partitions_def=DAILY,
            backfill_policy=dg.BackfillPolicy.multi_run(1),
            pool="day_close",
            metadata={"exchange": exchange, "timezone": own[0].timezone, "feeds": [feed.name for feed in own]},
        )

    @decorate
    def close(context: dg.AssetExecutionContext, k2: K2Resource) -> dg.MaterializeResult:
        """Judge the date, evaluate the blocking checks afresh, publish what is free.

        Running it again publishes only what has changed since.
        """
        record_process(context.instance, context.run.run_id)
        settings, now, day = k2.settings(), clock.now(), date.fromisoformat(context.partition_key)
        _expect_over(own[0], day, settings, now)
        lake = Lake(settings.catalog(), settings.warehouse_path())
        lake.ensure()
        judged = {feed.name: judge_day(lake, feed, day, settings.config) for feed in own}
        if _is_holiday(own, judged, day):
            return _result(judged, (), f"{exchange} does not trade on {day}, and nothing came: nothing to certify")
        found = {table.name: list(_failures(context, lake, table, feeds, day)) for table in tables}
        free = [j for feed in own if not found[feed.table.name] for j in judged[feed.name]]
        rows = publish(lake, free, Stamp(context.run.run_id, now, CODE_VERSION))
        if rows:
            context.log_event(_days_told(day, rows))
        gaps = [gap for feed in own for gap in _gaps(feed, judged[feed.name])]
        _expect_none(context, exchange, [*gaps, *(o for some in found.values() for o in some)], len(rows))
        return _result(judged, rows, f"{len(rows)} new versions" if rows else "nothing changed since it was closed")

    return close


def _days_spec(closes: Sequence[dg.AssetKey]) -> dg.AssetSpec:
    description = f"One row is {DAYS.grain}: verdict and certificate. Day closes append to it, nobody changes it."
    return iceberg_spec(DAYS, closes, GROUP, description, _lineage(), partitions_def=DAILY)


def _lineage() -> dict[str, list[dg.TableColumnDep]]:
    """What a certificate is computed from: columns of both tick tables."""
    sources = {
        "present": lambda table: ("message_id", "revision"),
        "first_id": lambda table: ("source_sequence",),
        "last_id": lambda table: ("source_sequence",),
        "ranges": lambda table: LINEAGE_NAMES,
        "sums": decimal_columns,
        "sha256": digest_columns,
    }
    return {
        column: [dg.TableColumnDep(asset_key(table), name) for table in TICK_TABLES for name in names_of(table)]
        for column, names_of in sources.items()
    }


def _job(exchange: str) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        close_job(exchange),
        selection=dg.AssetSelection.assets(close_key(exchange)).without_checks(),
        description=f"Certify one exchange date of {exchange}.",
        executor_def=dg.in_process_executor,
    )


def _expect_over(feed: Feed, day: date, settings: Settings, now: datetime) -> None:
    """A day that goes on cannot be closed. Raises Failure."""
    over = over_at(feed, day, settings)
    if now < over:
        said = f"{day} of {feed.exchange} goes on: it can be closed from {over:%Y-%m-%d %H:%M} UTC on"
        raise dg.Failure(said, allow_retries=False)


def _is_holiday(own: Sequence[Feed], judged: Mapping[str, Sequence[Judged]], day: date) -> bool:
    """Whether the exchange does not trade on a date, and nothing says otherwise."""
    sessions = [feed.sessions for feed in own]
    if not all(known is not None and not known.days.is_open(day) for known in sessions):
        return False
    return all(j.row["verdict"] == "not_collected" for some in judged.values() for j in some)


def _failures(
    context: dg.AssetExecutionContext, lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date
) -> Iterator[Obstacle]:
    """Evaluate the checks of a table that block, and report each; those that fail as errors are obstacles."""
    for check in CHECKS:
        if not check.blocks or table not in check.tables:
            continue
        result = check.evaluate(lake, table, feeds_of(table, feeds), day)
        context.log_event(_evaluation(table, check.name, day, result))
        is_hard = not result.passed and result.severity == dg.AssetCheckSeverity.ERROR
        if is_hard and check.name != GAPS_CHECK:
            yield Obstacle(check.name, table, result.description or "failed")


def _described(own: Sequence[Feed]) -> str:
    names = ", ".join(feed.name for feed in own)
    checks = ", ".join(check.name for check in CHECKS if check.blocks and check.name != GAPS_CHECK)
    return (
        f"Verdict and certificate of one date of {names}. Blocked by open gaps of more than {HALT_ABOVE} ids, and by "
        f"{checks}. Closed again, it adds a version if it changed. See docs/CHECKS.md."
    )


def _evaluation(table: Table, name: str, day: date, result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=asset_key(table),
        check_name=name,
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        partition=day.isoformat(),
        blocking=True,
    )


def _gaps(feed: Feed, judged: Sequence[Judged]) -> Iterator[Obstacle]:
    """One obstacle for each gap that holds up a symbol."""
    for j in judged:
        for hole in j.obstacles:
            yield Obstacle(GAPS_CHECK, feed.table, f"{hole.gap}, {hole.gap.size:,} ids, is {hole.state}")


def _expect_none(
    context: dg.AssetExecutionContext, exchange: str, obstacles: Sequence[Obstacle], published: int
) -> None:
    """Fail the run over what holds the day up. Raises Failure."""
    if not obstacles:
        return
    checks = sorted({obstacle.check for obstacle in obstacles})
    context.instance.add_run_tags(context.run.run_id, {BLOCKED_TAG: ",".join(checks)})
    said = "; ".join(map(str, obstacles[:OBSTACLES_MAX]))
    raise dg.Failure(
        f"{exchange} {context.partition_key} is blocked by {', '.join(checks)}: {said}. See docs/RUNBOOK.md.",
        metadata={"obstacles": len(obstacles), "published": published, "blocked_by": dg.MetadataValue.json(checks)},
        allow_retries=False,
    )


def _days_told(day: date, rows: Sequence[Row]) -> dg.AssetMaterialization:
    """The rows that audit.days gained, as an event of its own asset."""
    return dg.AssetMaterialization(
        asset_key(DAYS), partition=day.isoformat(), metadata={"rows": len(rows), "days": sample(rows, _SHOWN)}
    )


def _result(judged: Mapping[str, Sequence[Judged]], rows: Sequence[Row], said: str) -> dg.MaterializeResult:
    """What a closing says of itself. rows: the versions it published."""
    found = [j.row for some in judged.values() for j in some]
    marks: dict[str, int] = {}
    for row in found:
        marks[row["table_name"]] = min(row["sequence_number"], marks.get(row["table_name"], row["sequence_number"]))
    verdicts = {str(v): sum(row["verdict"] == v for row in found) for v in sorted({row["verdict"] for row in found})}
    metadata: dict[str, Any] = {
        "outcome": said,
        "versions": len(rows),
        "symbols": len(found),
        "rows": sum(row["present"] for row in found),
        "missing": sum(row["missing"] or 0 for row in found),
        "verdicts": dg.MetadataValue.json(verdicts),
        "days": sample(found, _SHOWN),
        CLOSED_MARK: dg.MetadataValue.json(marks),
    }
    return dg.MaterializeResult(metadata=metadata)


def close_date(settings: Settings, instance: dg.DagsterInstance, exchange: str, day: date) -> list[Row]:
    """Close one date in this process; returns the last version of each of its symbols.

    Raises NotFound for an exchange without ticks or a date no feed reaches, Failure for one that goes on or is blocked.
    """
    if not is_partition(day):
        raise NotFound(f"{day} is no date a feed may have rows of: they lie from {FIRST_DATE} to tomorrow")
    own = day_close_definitions(settings, load_feeds(settings))
    resources = dg.Definitions(resources={"k2": K2Resource(home=str(settings.home.absolute()))})
    job, defined = close_job(exchange), dg.Definitions.merge(own, resources)
    if job not in {known.name for known in own.jobs or ()}:
        raise NotFound(f"no exchange {exchange!r} with ticks in feeds.yaml")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    defined.resolve_job_def(job).execute_in_process(run_config=quiet, partition_key=day.isoformat(), instance=instance)
    lake = Lake(settings.catalog(), settings.warehouse_path())
    told = latest(closings(lake, day=day)).values()
    return [dict(row) for row in told if row["exchange"].lower() == exchange.lower()]
