"""Checks that every batch is told by: of its receipt, of the gap ledger, and of how old its rows are. None reads a day.

Evaluated at the end of every ingest run for the dates it touched, and again whenever somebody asks.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow as pa

from k2_assets.check_shown import sample, severity
from k2_assets.told import Told, receipts_since, total
from k2_core.contracts import Table
from k2_core.exchange_dates import day_bounds
from k2_core.feeds import Feed
from k2_core.gap_states import is_settled
from k2_resources import clock
from k2_resources.lake.batch_facts import arrivals, column_differences, unreadable_letters
from k2_resources.lake.catalog import Lake
from k2_resources.lake.scans import day_rows, unfilled_gaps

DEAD_SHARE_ERROR = 0.01
"""Of a batch's records: fewer dead are single bad ones (a warning), more are a writer that is wrong."""
QUIET_SECONDS_MAX = 900.0
"""A liquid symbol prints each second and a stack restarts within one minute: a quarter of an hour is an outage."""
LAG_SECONDS_WARN, LAG_SECONDS_ERROR = 60.0, 900.0
"""From the feed's receipt of a record to the commit of its row. A batch takes seconds: a minute is a backlog, and a
quarter of an hour is an outage."""
LAG_BATCHES_MAX = 20
"""Newest batches of a date whose files are looked at: one small column of each."""

_LAST_TO_OPEN = "Z"
"""Symbols open in the order of their first letters."""

Gap = Mapping[str, object]


def sequence_gaps(lake: Lake, _table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """No id is missing in the feeds that number theirs without holes."""
    return gaps_result(feeds, gaps_of(lake, feeds), day)


def gaps_of(lake: Lake, feeds: Iterable[Feed]) -> list[Gap]:
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
        severity=severity(is_error=any(gap["severity"] != "warn" for gap in here)),
        description=f"{len(here)} open gaps" if here else "; ".join(f"{n}: {v}" for n, v in verdicts.items()),
        metadata={
            "open_gaps": len(here),
            "missing_ids": sum(int(str(gap["size"])) for gap in here),
            "settled_gaps": dg.MetadataValue.json(dict(settled)),
            "feeds": dg.MetadataValue.json(verdicts),
            "gaps": sample(here, ("feed", "scope", "first_id", "last_id", "size", "severity", "state")),
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
    return dead_result([told for told in receipts_since(lake, table, day) if day in told.dead_days])


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
        severity=severity(is_error=worst > DEAD_SHARE_ERROR),
        description=f"{dead} dead letters; see audit.dead_letters" if dead else "no dead letters",
        metadata={
            "dead": dead,
            "read": total(batches, "read"),
            "worst_batch_percent": round(worst * 100, 4),
            "batches": sample(bad, ("batch", "read", "dead")),
        },
    )


def schema(lake: Lake, table: Table, _feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """The table has the columns of its contract, and every record's schema could be read as it."""
    return schema_result(lake, table, [told for told in receipts_since(lake, table, day) if day in told.dead_days])


def schema_result(lake: Lake, table: Table, batches: Sequence[Told]) -> dg.AssetCheckResult:
    """Judge the columns as they are now, and the schemas that writers of these batches used.

    A column that differs is an error: other engines read the table by it. A record of a schema that cannot be read is
    a warning: it is a dead letter, and waits for whoever wrote it.
    """
    columns = column_differences(lake, table)
    letters = unreadable_letters(lake, table, (r for told in batches for r in told.ranges))
    ids = sorted({schema_id for told in batches for schema_id in told.schema_ids})
    said = [f"{len(columns)} columns differ from the contract"] if columns else []
    said += [f"{len(letters)} records have a schema that cannot be read"] if letters else []
    places = ("kafka_topic", "kafka_partition", "kafka_offset", "schema_id", "reason", "detail")
    return dg.AssetCheckResult(
        passed=not said,
        severity=severity(is_error=bool(columns)),
        description="; ".join(said) or f"{len(table.columns)} columns as stated",
        metadata={
            "differing_columns": len(columns),
            "unreadable_records": len(letters),
            "writer_schemas": len(ids),
            "schema_ids": dg.MetadataValue.json(ids),
            "columns": sample(columns, ("column", "contract", "table")),
            "records": sample(letters, places),
        },
    )


@dataclass(frozen=True)
class Waited:
    """How long rows of one feed in one batch waited for their commit, in seconds: the first of them, and the last."""

    batch: int
    feed: str
    rows: int
    seconds_max: float
    seconds_min: float


def lag(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """Rows of a date that is open were committed soon after their feed received them."""
    return lag_result(table, feeds, receipts_since(lake, table, day), day)


def lag_result(table: Table, feeds: tuple[Feed, ...], batches: Sequence[Told], day: date) -> dg.AssetCheckResult:
    """Judge the newest batches of one date by the row that waited longest. Of a date that is over, nothing is said.

    Rows of an older date come from files, dumps and captures: when they happened to be received says nothing.
    """
    now = clock.now()
    are_open = [feed for feed in feeds if _is_open(feed, day, now)]
    newest = [told for told in batches if told.dates.get(day)][-LAG_BATCHES_MAX:] if are_open else []
    waited = [one for told in newest for one in _waited(table, are_open, told, day)]
    worst = max((one.seconds_max for one in waited), default=0.0)
    late = sorted((one for one in waited if one.seconds_max > LAG_SECONDS_WARN), key=lambda one: -one.seconds_max)
    return dg.AssetCheckResult(
        passed=not late,
        severity=severity(is_error=worst > LAG_SECONDS_ERROR),
        description=f"committed {worst:.1f} s after they were received, at most"
        if waited
        else "not applicable: no feed has rows of a date that is open now",
        metadata={
            "applicable": bool(waited),
            "lag_seconds_max": round(worst, 3),
            "batches": len(newest),
            "late": sample(map(vars, late), ("batch", "feed", "rows", "seconds_max", "seconds_min")),
        },
    )


def _waited(table: Table, feeds: Iterable[Feed], told: Told, day: date) -> list[Waited]:
    rows = arrivals(table, [path for path in told.data_files if f"/{day}/" in path])
    grouped = rows.group_by("kafka_topic")
    sums = grouped.aggregate([("ingestion_timestamp", "min"), ("ingestion_timestamp", "max"), ([], "count_all")])
    by_topic = {row["kafka_topic"]: row for row in sums.to_pylist()}
    found = []
    for feed in feeds:
        if row := by_topic.get(feed.topic):
            ages = [told.commit_time - row[f"ingestion_timestamp_{end}"] for end in ("min", "max")]
            seconds = [round(age.total_seconds(), 3) for age in ages]
            found.append(Waited(told.sequence_number, feed.name, row["count_all"], *seconds))
    return found


def freshness(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """Feeds whose exchange date is open, and whose exchange is trading, were heard of lately."""
    now = clock.now()
    are_open = tuple(feed for feed in feeds if _trading_since(feed, day, now))
    columns = ["kafka_topic", "ingestion_timestamp"]
    rows = day_rows(lake, table, day, columns) if are_open else table.arrow_schema().empty_table().select(columns)
    return freshness_result(are_open, rows, day, now)


def freshness_result(feeds: tuple[Feed, ...], rows: pa.Table, day: date, now: datetime) -> dg.AssetCheckResult:
    """Judge how long ago each feed was heard of, counted from when trading began at the earliest.

    feeds: those asked about; of one that does not trade at that moment nothing is said. rows: topic and ingestion time
    of the date. A feed without a row of the date was not collected: no row is late.
    """
    newest = rows.group_by("kafka_topic").aggregate([("ingestion_timestamp", "max")]).to_pylist()
    heard = {row["kafka_topic"]: row["ingestion_timestamp_max"] for row in newest}
    since = {feed.name: _trading_since(feed, day, now) for feed in feeds}
    ages = {
        feed.name: (now - max(heard[feed.topic], start)).total_seconds()
        for feed in feeds
        if feed.topic in heard and (start := since[feed.name]) is not None
    }
    quiet = {name: age for name, age in ages.items() if age > QUIET_SECONDS_MAX}
    said = "; ".join(f"{name}: {age:.0f} s ago" for name, age in ages.items())
    return dg.AssetCheckResult(
        passed=not quiet,
        severity=dg.AssetCheckSeverity.WARN,
        description=said or "not applicable: no feed has rows of a date that is open and traded now",
        metadata={
            "applicable": bool(ages),
            "seconds_since_newest": round(max(ages.values(), default=0.0), 1),
            "by_feed": dg.MetadataValue.json({name: round(age, 1) for name, age in ages.items()}),
            "quiet": sample(({"feed": n, "seconds": round(age)} for n, age in quiet.items()), ("feed", "seconds")),
        },
    )


def _is_open(feed: Feed, day: date, now: datetime) -> bool:
    start, end = day_bounds(day, feed.timezone)
    return start <= now < end


def _trading_since(feed: Feed, day: date, now: datetime) -> datetime | None:
    """When the trading began that goes on now; None where the exchange does not trade at this moment of the date.

    Where it trades in phases, those count in which every symbol does: continuous trading of the last to open.
    """
    start, end = day_bounds(day, feed.timezone)
    if feed.sessions is None:
        return start if start <= now < end else None
    for phase in feed.sessions.continuous(_LAST_TO_OPEN, day):
        midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(feed.timezone))
        # wall clock of the exchange: what a phase is stated in, also where the clocks change at night
        opened, closed = (midnight + timedelta(microseconds=at) for at in (phase.start_us, phase.end_us))
        if opened <= now < closed:
            return opened.astimezone(UTC)
    return None
