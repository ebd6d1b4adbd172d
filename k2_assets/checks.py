"""Asset checks: what must hold of a table on each exchange date. Each is one function of the tables alone.

Ingest runs report them from receipts (see `reports`); the same functions are Dagster checks that people start from the
UI, also while no broker runs. They are partitioned, which is preview in Dagster 1.13. None blocks: day close does.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from k2_assets.partitions import DAILY
from k2_assets.tables import asset_key
from k2_assets.told import Told, receipts_after, total
from k2_core.contracts import TICK_TABLES, Table
from k2_core.exchange_dates import day_bounds
from k2_core.feeds import Feed, feeds_of
from k2_core.gap_states import is_settled
from k2_resources import clock
from k2_resources.bindings import K2Resource
from k2_resources.lake.catalog import Lake
from k2_resources.lake.scans import day_rows, unfilled_gaps

SAMPLE_ROWS = 20
"""Rows of a table in a check's metadata: a screenful."""
CELL_CHARACTERS_MAX = 100
"""Longer cells are cut: what is stored may come from anybody."""
DEAD_SHARE_ERROR = 0.01
"""Of a batch's records: fewer dead are single bad ones (a warning), more are a writer that is wrong."""
QUIET_SECONDS_MAX = 900.0
"""A liquid symbol prints each second and a stack restarts within one minute: a quarter of an hour is an outage."""

Gap = Mapping[str, object]
Evaluate = Callable[[Lake, Table, tuple[Feed, ...], date], dg.AssetCheckResult]


def sequence_gaps(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """No id is missing in the feeds that number theirs without holes."""
    return gaps_result(feeds, gaps_of(lake, feeds), day)


def gaps_of(lake: Lake, feeds: tuple[Feed, ...]) -> list[Gap]:
    """Unfilled gaps of some feeds, of all dates, each with its state."""
    return [gap for feed in feeds if feed.rule == "contiguous" for gap in unfilled_gaps(lake, feed.name)]


def gaps_result(feeds: tuple[Feed, ...], gaps: Sequence[Gap], day: date) -> dg.AssetCheckResult:
    """Judge the gaps of one date that are open. Below 10 ids missing is a warning, more an error.

    What the source does not have, what nobody tried to collect, and what was accepted is told, but fails nobody.
    """
    unfilled = [gap for gap in gaps if gap["exchange_date"] == day]
    here = [gap for gap in unfilled if not is_settled(gap)]
    settled = Counter(str(gap["state"]) for gap in unfilled if is_settled(gap))
    verdicts = {feed.name: _completeness(feed, unfilled) for feed in feeds}
    return dg.AssetCheckResult(
        passed=not here,
        severity=_severity(any(gap["severity"] != "warn" for gap in here)),
        description=f"{len(here)} open gaps" if here else "; ".join(f"{n}: {v}" for n, v in verdicts.items()),
        metadata={
            "open_gaps": len(here),
            "missing_ids": sum(int(str(gap["size"])) for gap in here),
            "settled_gaps": dg.MetadataValue.json(dict(settled)),
            "feeds": dg.MetadataValue.json(verdicts),
            "gaps": _table(here, ("feed", "scope", "first_id", "last_id", "size", "severity", "state")),
        },
    )


def _completeness(feed: Feed, gaps: Sequence[Gap]) -> str:
    """A feed whose ids have holes, or that has none, can lose rows unseen: never call it complete."""
    if feed.rule != "contiguous":
        return "not_verifiable"
    of_feed = [gap for gap in gaps if gap["feed"] == feed.name]
    if not of_feed:
        return "no_open_gap"
    return "settled_gaps" if all(map(is_settled, of_feed)) else "gaps"


def dead_letters(lake: Lake, table: Table, _feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """No record of the batches that touched the date was a dead letter."""
    return dead_result([told for told in receipts_after(lake, table) if day in told.dead_days])


def dead_result(batches: Sequence[Told]) -> dg.AssetCheckResult:
    """Judge batches by the worst of them. Up to 1 % dead is a warning, more an error."""
    dead, worst = total(batches, "dead"), max((told.dead_share for told in batches), default=0.0)
    bad = [
        {"batch": told.sequence_number, "read": told.total("read"), "dead": told.total("dead")}
        for told in sorted(batches, key=lambda t: -t.dead_share)
        if told.total("dead")
    ]
    return dg.AssetCheckResult(
        passed=dead == 0,
        severity=_severity(worst > DEAD_SHARE_ERROR),
        description=f"{dead} dead letters; see audit.dead_letters" if dead else "no dead letters",
        metadata={
            "dead": dead,
            "read": total(batches, "read"),
            "worst_batch_percent": round(worst * 100, 4),
            "batches": _table(bad, ("batch", "read", "dead")),
        },
    )


def duplicate_keys(lake: Lake, table: Table, _feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """Each key and revision is stored once, also counting the dates beside it."""
    near = [day + timedelta(days=n) for n in (-1, 0, 1)]
    return duplicates_result(
        day, pa.concat_tables(day_rows(lake, table, d, [*table.key, "exchange_date"]) for d in near)
    )


def duplicates_result(day: date, rows: pa.Table) -> dg.AssetCheckResult:
    """Judge the keys of one date. rows: message_id, revision, exchange_date of it and the dates beside it."""
    counted = rows.group_by(["message_id", "revision"]).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted["count_all"], 1))
    here = rows.filter(pc.equal(rows["exchange_date"], day))["message_id"]
    found = twice.filter(pc.is_in(twice["message_id"], here.combine_chunks())).sort_by("message_id")
    return dg.AssetCheckResult(
        passed=not len(found),
        description=f"{len(found)} keys are stored more than once" if len(found) else f"{len(here)} keys, each once",
        metadata={
            "rows": len(here),
            "repeated_keys": len(found),
            "keys": _table(found.slice(0, SAMPLE_ROWS).to_pylist(), ("message_id", "revision", "count_all")),
        },
    )


def value_rules(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """Every stored row follows its contract: types, nulls, signs, choices, dates, pairs."""
    from k2_assets.rules import broken_rules, checked_columns  # pandera: a second that only validation pays

    rows = day_rows(lake, table, day, checked_columns(table))
    broken = broken_rules(table, feeds, day, rows)
    sample = [{"rule": b.rule, **row} for b in broken for row in b.sample.to_dicts()]
    return dg.AssetCheckResult(
        passed=not broken,
        description="; ".join(f"{b.rule}: broken by {b.rows}" for b in broken)
        or f"{len(rows)} rows follow the contract",
        metadata={
            "rows": len(rows),
            "broken_rules": dg.MetadataValue.json({b.rule: b.rows for b in broken}),
            "sample": _table(
                sample, ("rule", "message_id", "revision", "kafka_topic", "kafka_partition", "kafka_offset")
            ),
        },
    )


def freshness(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """Feeds whose exchange date is open were heard of lately; other dates are not applicable."""
    now = clock.now()
    are_open = tuple(feed for feed in feeds if _is_open(feed, day, now))
    columns = ["kafka_topic", "ingestion_timestamp"]
    rows = day_rows(lake, table, day, columns) if are_open else table.arrow_schema().empty_table().select(columns)
    return freshness_result(are_open, rows, now)


def freshness_result(feeds: tuple[Feed, ...], rows: pa.Table, now: datetime) -> dg.AssetCheckResult:
    """Judge how long ago each feed was heard of. feeds: those open now. rows: topic and ingestion time of the date."""
    newest = rows.group_by("kafka_topic").aggregate([("ingestion_timestamp", "max")]).to_pylist()
    heard = {row["kafka_topic"]: row["ingestion_timestamp_max"] for row in newest}
    ages = {f.name: (now - heard[f.topic]).total_seconds() for f in feeds if f.topic in heard}
    quiet = {name: age for name, age in ages.items() if age > QUIET_SECONDS_MAX}
    said = "; ".join(f"{name}: {age:.0f} s ago" for name, age in ages.items())
    return dg.AssetCheckResult(
        passed=not quiet,
        severity=dg.AssetCheckSeverity.WARN,
        description=said or "not applicable: no feed has rows of a date that is open now",
        metadata={
            "applicable": bool(ages),
            "seconds_since_newest": dg.MetadataValue.json({name: round(age, 1) for name, age in ages.items()}),
            "quiet": _table([{"feed": n, "seconds": round(age)} for n, age in quiet.items()], ("feed", "seconds")),
        },
    )


def _is_open(feed: Feed, day: date, now: datetime) -> bool:
    start, end = day_bounds(day, feed.timezone)
    return start <= now < end


ROW_CHECKS: dict[str, Evaluate] = {"duplicate_keys": duplicate_keys, "value_rules": value_rules}
"""Checks that read every row of the date."""
_CHECKS: dict[str, Evaluate] = {
    "sequence_gaps": sequence_gaps,
    "dead_letters": dead_letters,
    "freshness": freshness,
    **ROW_CHECKS,
}
_TICKS_ONLY = ("sequence_gaps", "freshness")
"""Statements of coverage and descriptions of instruments have no sequence, and come when there is something to say."""


def checks_of(table: Table) -> dict[str, Evaluate]:
    """The checks of one table, by name."""
    ticks = table in TICK_TABLES
    return {name: evaluate for name, evaluate in _CHECKS.items() if ticks or name not in _TICKS_ONLY}


def check_definitions(table: Table, feeds: tuple[Feed, ...]) -> list[dg.AssetChecksDefinition]:
    """Define the checks of one table apart from its asset, so that people can ask them again for any date."""
    return [_definition(table, feeds_of(table, feeds), name, evaluate) for name, evaluate in checks_of(table).items()]


def _definition(table: Table, feeds: tuple[Feed, ...], name: str, evaluate: Evaluate) -> dg.AssetChecksDefinition:
    def check(context: dg.AssetCheckExecutionContext, k2: K2Resource) -> dg.AssetCheckResult:
        settings = k2.settings()
        day = date.fromisoformat(context.partition_key)
        return evaluate(Lake(settings.catalog(), settings.warehouse_path()), table, feeds, day)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitions of checks; the version is pinned for it
        decorate = dg.asset_check(
            asset=asset_key(table), name=name, description=evaluate.__doc__, partitions_def=DAILY, blocking=False
        )
        return decorate(check)


def _severity(is_error: bool) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN


def _table(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> dg.MarkdownMetadataValue:
    """The first rows as a Markdown table; `none` when there are none."""
    lines = ["| " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for row in list(rows)[:SAMPLE_ROWS]]
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return dg.MetadataValue.md("\n".join([*head, *lines]) if lines else "none")


def _cell(value: object) -> str:
    """Stored text as text: what a feed sent must not become markup."""
    text = "".join(c if c.isprintable() else " " for c in str(value))[:CELL_CHARACTERS_MAX]
    for mark in ("\\", "|", "`", "*", "_", "[", "]"):
        text = text.replace(mark, f"\\{mark}")
    return text.replace("&", "&amp;").replace("<", "&lt;")
