"""Closing a day: every symbol of some feeds judged and certified from one look at the lake. Imports no Dagster.

A day is closed from the rows below one C. What comes later changes the day, and another closing becomes its next
version; a closing that finds nothing changed adds nothing, so closing twice is closing once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from k2_core.certificates import CANONICAL_VERSION, digest, digest_columns, newest, ranges, sums, vector
from k2_core.contracts import CONTRACT_VERSION, DAYS, TRADES, Table
from k2_core.day_tables import ALL_SYMBOLS
from k2_core.days import Hole, Standing, by_ids, by_issue, changed, without_rows
from k2_core.errors import FencedOut
from k2_core.feeds import Feed
from k2_core.gap_states import Event
from k2_core.issues import Issue, difference
from k2_core.protocol.collect import collect
from k2_core.protocol.ports import Head, Outpaced
from k2_core.scopes import Scopes
from k2_core.sequences import ScopeState
from k2_core.summaries import total_order
from k2_core.verdict import State
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake
from k2_resources.lake.days import (
    Collected,
    append_closings,
    closings,
    collected_of,
    day_ticks,
    latest,
    letters_of,
    revised_keys,
    sequence_number_of,
    symbols_of,
)
from k2_resources.lake.issues import issues_of_day
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.scans import unfilled_gaps
from k2_resources.lake.staging import read_state
from k2_resources.rule_sets import conditions_version

ATTEMPTS_MAX = 10
"""Closings of other exchanges that may come in between; each takes as long as one commit."""

log = structlog.get_logger(__name__)
Row = dict[str, Any]


@dataclass(frozen=True)
class Stamp:
    """Who closes, when, by which code."""

    run_id: str
    closed: datetime
    code_version: str


@dataclass(frozen=True)
class Judged:
    """One symbol of one feed on the date. row: of audit.days, without a version. obstacles: why it cannot be closed."""

    row: Row
    obstacles: tuple[Hole, ...]


@dataclass(frozen=True)
class _Facts:
    """What is known of all symbols of a feed on a date. at: the head every row is read from."""

    feed: Feed
    day: date
    at: Head
    sequence_number: int
    state: State
    gaps: Mapping[str, Sequence[Event]]
    issues: Mapping[str, Issue]
    letters: Mapping[str, Sequence[tuple[int, int, int]]]
    collected: Mapping[str, Collected]
    rules: list[dict[str, str]]


def judge_day(lake: Lake, feed: Feed, day: date, config: Path) -> list[Judged]:
    """Judge one exchange date of every symbol of one feed. Reads only. Raises Damaged, NotFound."""
    facts = _facts(lake, feed, day, config)
    stored = symbols_of(facts.at, feed, day)
    revised = revised_keys(facts.at, feed)
    judged = [
        _judged(facts, symbol, rows, newest_rows)
        for some in day_ticks(facts.at, feed, day, stored)
        for symbol, rows, newest_rows in _by_symbol(some, revised)
    ]
    before = {row["symbol"] for row in closings(lake, feed=feed.name, day=day)} - {ALL_SYMBOLS}
    nothing = feed.table.arrow_schema().empty_table()
    absent = sorted(({*facts.issues, *before, *facts.collected}) - stored.keys())
    judged += [_judged(facts, symbol, nothing, nothing) for symbol in absent]
    return judged or [_judged(facts, ALL_SYMBOLS, nothing, nothing)]


def publish(lake: Lake, judged: Iterable[Judged], stamp: Stamp) -> list[Row]:
    """Append a version of every day that may be closed and says anything new; returns the rows appended.

    Raises FencedOut when others close without end.
    """
    free = [j.row for j in judged if not j.obstacles]
    for _ in range(ATTEMPTS_MAX):
        at = lake.head(DAYS)
        rows = _versions(lake, free, stamp)
        if not rows:
            return []
        try:
            append_closings(lake, at, rows)
        except (FencedOut, Outpaced):
            continue
        log.info("closed", rows=len(rows), feeds=sorted({row["feed"] for row in rows}))
        return rows
    raise FencedOut(f"{DAYS.name}: {ATTEMPTS_MAX} attempts lost to other closings; close the day again")


def _versions(lake: Lake, rows: Sequence[Row], stamp: Stamp) -> list[Row]:
    days = {(row["feed"], row["exchange_date"]) for row in rows}
    before = latest(row for feed, day in sorted(days) for row in closings(lake, feed=feed, day=day))
    found = []
    for row in rows:
        last = before.get((row["feed"], row["symbol"], row["exchange_date"]))
        if changed(last, row):
            found.append({**row, **vars(stamp), "version": last["version"] + 1 if last else 1})
    return found


def _facts(lake: Lake, feed: Feed, day: date, config: Path) -> _Facts:
    at = lake.head(feed.table)
    collect(IcebergLedger(lake), feed.table, reach, at)  # a gap that is not told yet would have no state
    has_ids = feed.rule == "contiguous"
    gaps: dict[str, list[Event]] = {}
    for gap in unfilled_gaps(lake, feed.name) if has_ids else ():
        gaps.setdefault(gap["scope"], []).append(gap)
    return _Facts(
        feed,
        day,
        at,
        sequence_number=sequence_number_of(at),
        state=read_state(at, feed.topic) if has_ids else {},
        gaps=gaps,
        issues=issues_of_day(lake, feed, day) if feed.rule == "none" else {},
        letters=letters_of(lake, feed),
        collected=collected_of(lake, feed, day),
        rules=_rules(feed.table, feed.exchange, config),
    )


def _rules(table: Table, exchange: str, config: Path) -> list[dict[str, str]]:
    """Everything beside the rows that an answer about the day depends on."""
    versions = {"contract": CONTRACT_VERSION, "canonical": CANONICAL_VERSION}
    conditions = conditions_version(config, exchange) if table.name == TRADES.name else None
    if conditions is not None:
        versions["conditions"] = conditions
    return [{"name": name, "version": version} for name, version in versions.items()]


def _by_symbol(rows: pa.Table, revised: pa.Table) -> Iterator[tuple[str, pa.Table, pa.Table]]:
    """Per symbol all its stored rows, and the newest revisions of them in total order."""
    best, scopes = newest(rows, revised), Scopes.of(rows["symbol"])
    for i, symbol in enumerate(scopes.names):
        places = scopes.order[scopes.bounds[i] : scopes.bounds[i + 1]]
        current = rows.take(pa.array(places[best[places]]))
        yield symbol, rows.take(pa.array(places)), current.take(total_order(current)).combine_chunks()


def _judged(facts: _Facts, symbol: str, stored: pa.Table, rows: pa.Table) -> Judged:
    """stored: all rows of the symbol on the date. rows: the newest revisions of them in total order."""
    standing = _standing(facts, symbol, stored, rows)
    spans = ranges(stored)
    told = facts.collected.get(symbol, Collected())
    distinct = len(rows) if len(rows) == len(stored) else _distinct(stored)
    row = {
        "feed": facts.feed.name,
        "symbol": symbol,
        "exchange_date": facts.day,
        "exchange": facts.feed.exchange,
        "table_name": facts.feed.table.name,
        "verdict": standing.verdict,
        "expected": standing.expected,
        "present": len(rows),
        "missing": standing.missing,
        "duplicates": len(stored) - distinct,
        "superseded": distinct - len(rows),
        "withdrawn": standing.withdrawn,
        "dead_letters": _within(facts.letters.get(symbol, ()), spans),
        "collections": told.collections,
        "covered_start": told.start,
        "covered_end": told.end,
        **_certificate(facts.feed.table, rows),
        "gaps": [{"gap_id": str(h.gap), "state": h.state, "size": h.gap.size} for h in standing.holes],
        "rules": facts.rules,
        "ranges": spans,
        "offsets": vector(facts.at.offsets),
        "lake_version": facts.at.offsets.version,
        "table_uuid": facts.at.table_uuid,
        "sequence_number": facts.sequence_number,
    }
    return Judged(row, standing.obstacles)


def _standing(facts: _Facts, symbol: str, stored: pa.Table, rows: pa.Table) -> Standing:
    issue = facts.issues.get(symbol)
    if not len(stored) and issue is None:
        return without_rows(is_collected=symbol in facts.collected)
    if facts.feed.rule == "contiguous":
        gaps = facts.gaps.get(symbol, ())
        return by_ids(facts.feed.name, rows, facts.state.get(symbol, ScopeState()), gaps)
    return by_issue(difference(pc.unique(stored["message_id"].combine_chunks()), issue) if issue else None)


def _certificate(table: Table, rows: pa.Table) -> Row:
    """What the rows alone tell. rows: newest revisions in total order."""
    columns, ids = digest_columns(table), pc.min_max(rows["source_sequence"]).as_py()
    return {
        "first_message_id": rows["message_id"][0].as_py() if len(rows) else None,
        "last_message_id": rows["message_id"][-1].as_py() if len(rows) else None,
        "first_id": ids["min"],
        "last_id": ids["max"],
        "sums": sums(rows, table),
        "digest_columns": list(columns),
        "sha256": digest(rows, columns) if len(rows) else None,
    }


def _distinct(stored: pa.Table) -> int:
    return len(stored.group_by(["message_id", "revision"]).aggregate([]))


def _within(places: Iterable[tuple[int, int, int]], spans: Sequence[Mapping[str, Any]]) -> int:
    """How many places lie in some ranges. places: epoch, Kafka partition, offset."""
    bounds = {(span["kafka_epoch"], span["kafka_partition"]): (span["start"], span["end"]) for span in spans}
    held = ((*bounds.get((epoch, p), (0, 0)), offset) for epoch, p, offset in places)
    return sum(1 for start, end, offset in held if start <= offset < end)
