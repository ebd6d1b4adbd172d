"""Checks that read the rows of a date: what is stored beside the contract, the receipts, and the source's own issue."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2_assets.check_shown import SAMPLE_ROWS, chart, hours, hours_chart, sample, severity
from k2_assets.told import Told, receipts_since
from k2_core.contracts import Table
from k2_core.feeds import Feed
from k2_core.screen import int64s
from k2_core.tables import LINEAGE_NAMES
from k2_resources.lake.catalog import Lake
from k2_resources.lake.issues import day_differences
from k2_resources.lake.scans import day_rows
from k2_resources.settings import Settings

_SYMBOLS = ("first symbol", "last symbol")


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
            "keys": sample(found.slice(0, SAMPLE_ROWS).to_pylist(), ("message_id", "revision", "count_all")),
        },
    )


def value_rules(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """Every stored row follows its contract: types, nulls, signs, choices, dates, pairs."""
    from k2_assets.rules import broken_rules, checked_columns  # pandera: a second that only validation pays

    rows = day_rows(lake, table, day, checked_columns(table))
    broken = broken_rules(table, feeds, day, rows)
    found = [{"rule": b.rule, **row} for b in broken for row in b.sample.to_dicts()]
    return dg.AssetCheckResult(
        passed=not broken,
        description="; ".join(f"{b.rule}: broken by {b.rows}" for b in broken)
        or f"{len(rows)} rows follow the contract",
        metadata={
            "rows": len(rows),
            "offending_rows": sum(b.rows for b in broken),
            "broken_rules": dg.MetadataValue.json({b.rule: b.rows for b in broken}),
            "sample": sample(
                found, ("rule", "message_id", "revision", "kafka_topic", "kafka_partition", "kafka_offset")
            ),
        },
    )


def receipts_equal_rows(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """As many rows are stored of each feed as its receipts say, and no record is stored twice.

    Rows and receipts are read at the same commit, the last one told: what is committed meanwhile is in neither.
    """
    told = receipts_since(lake, table, day)
    rows = day_rows(lake, table, day, LINEAGE_NAMES, told[-1].snapshot_id if told else None)
    return receipts_result(feeds, told, rows, day)


def receipts_result(feeds: tuple[Feed, ...], told: Sequence[Told], rows: pa.Table, day: date) -> dg.AssetCheckResult:
    """Judge the rows of one date. rows: topic, epoch, Kafka partition and offset of each."""
    names = {feed.topic: feed.name for feed in feeds}
    counted = pc.value_counts(rows["kafka_topic"].combine_chunks()).to_pylist()
    stored = {names.get(entry["values"], entry["values"]): entry["counts"] for entry in counted}
    stated: Counter[str] = Counter()
    for (of, feed), count in ((key, count) for receipt in told for key, count in receipt.by_feed.items()):
        stated[feed] += count if of == day else 0
    unequal = [
        {"feed": name, "in_receipts": stated[name], "stored": stored.get(name, 0)}
        for name in sorted({*stored, *stated})
        if stated[name] != stored.get(name, 0)
    ]
    places = rows.group_by(list(LINEAGE_NAMES)).aggregate([([], "count_all")])
    twice = places.filter(pc.greater(places["count_all"], 1))
    said = [f"{len(unequal)} feeds have other rows than their receipts say"] if unequal else []
    said += [f"{len(twice)} records are stored more than once"] if len(twice) else []
    return dg.AssetCheckResult(
        passed=not said,
        description="; ".join(said) or f"{len(rows)} rows, as the receipts say",
        metadata={
            "rows": len(rows),
            "rows_in_receipts": sum(stated.values()),
            "difference": len(rows) - sum(stated.values()),
            "feeds": sample(unequal, ("feed", "in_receipts", "stored")),
            "repeated_records": sample(twice.slice(0, SAMPLE_ROWS).to_pylist(), (*LINEAGE_NAMES, "count_all")),
        },
    )


def withdrawn_rows(lake: Lake, _table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """Every row of a file source is in the latest load of its day: a line the vendor withdrew left none behind."""
    found = {
        (feed.name, symbol): difference
        for feed in feeds
        if feed.rule == "none"
        for symbol, difference in day_differences(lake, feed, day).items()
    }
    withdrawn = sum(max(len(d.withdrawn), d.stored - d.issued if not d.is_whole else 0) for d in found.values())
    many = sum(not d.is_whole for d in found.values())
    named = [{"feed": f, "symbol": s, "message_id": key} for (f, s), d in found.items() for key in d.withdrawn]
    said = f"{withdrawn} rows are not in the latest load of their day"
    said += f"; of {many} symbols too many differ to name them all" if many else ""
    return dg.AssetCheckResult(
        passed=not withdrawn and not many,
        severity=dg.AssetCheckSeverity.WARN,
        description=said if withdrawn or many else f"{len(found)} symbols have a latest load, and no other rows",
        metadata={
            "applicable": bool(found),
            "withdrawn": withdrawn,
            "not_stored": sum(d.missing for d in found.values()),
            "sample": sample(named, ("feed", "symbol", "message_id")),
            **({"by_symbol": chart([len(d.withdrawn) for d in found.values()], _SYMBOLS)} if named else {}),
        },
    )


def completeness(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """Nothing is known to be missing of any symbol: by ids without holes, or by the latest load of a file source.

    The verdicts are those a day close would publish now; what nobody can verify is told as such, and fails nobody.
    """
    from k2_assets.closing import judge_day  # the digests of a certificate: only who judges a day pays for them

    config = Settings().config
    judged = [j for feed in feeds for j in judge_day(lake, feed, day, config)]
    short = [j.row for j in judged if j.row["verdict"] == "incomplete"]
    verdicts = Counter(j.row["verdict"] for j in judged)
    return dg.AssetCheckResult(
        passed=not short,
        severity=severity(is_error=any(j.obstacles for j in judged)),
        description=", ".join(f"{count} symbols {verdict}" for verdict, count in sorted(verdicts.items())),
        metadata={
            "symbols": len(judged),
            "incomplete": len(short),
            "present": sum(j.row["present"] for j in judged),
            "missing": sum(j.row["missing"] or 0 for j in judged),
            "verdicts": dg.MetadataValue.json(dict(verdicts)),
            "symbols_short": sample(short, ("feed", "symbol", "verdict", "expected", "present", "missing")),
            "rows_by_hour": hours_chart(_rows_by_hour(lake, table, feeds, day)),
        },
    )


def _rows_by_hour(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date) -> "np.typing.NDArray[np.int64]":
    """Rows of a date by the hour of their exchange's own clock, shape (24,)."""
    rows = day_rows(lake, table, day, ["kafka_topic", "timestamp"])
    counts = np.zeros(24, np.int64)
    for feed in feeds:
        own = rows.filter(pc.equal(rows["kafka_topic"], feed.topic))
        counts += hours(int64s(own["timestamp"]), feed.timezone)
    return counts
