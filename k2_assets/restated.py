"""Gaps of which somebody has stated something: the checks of dates that no batch of their own table touched.

A statement comes through k2.coverage, so it is the report of that table that hears of it: without this, a gap that was
accepted would stay red until the next trade of its date.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg

from k2_assets.check_batches import gaps_of, gaps_result
from k2_assets.partitions import is_partition
from k2_core.contracts import COVERAGE, Table
from k2_core.feeds import Feed, feeds_of
from k2_resources.lake.catalog import Lake
from k2_resources.lake.scans import gap_events

Event = Mapping[str, Any]


def restated(
    lake: Lake, table: Table, feeds: tuple[Feed, ...], snapshots: Collection[int], dates_max: int
) -> Iterator[tuple[Table, date, dg.AssetCheckResult]]:
    """How the gaps stand now of which commits of one table stated something: table, exchange date, sequence_gaps.

    table: only of coverage anything follows. feeds: all. At most dates_max dates a table, the newest: where there are
    more, Dagster's home is new, and the batches of those dates are told anyway.
    """
    if table.name != COVERAGE.name:
        return
    stated = [
        e for e in gap_events(lake).to_pylist() if e["table_name"] == table.name and e["snapshot_id"] in snapshots
    ]
    told = {event["feed"] for event in stated}
    for other in {feed.table.name: feed.table for feed in feeds if feed.name in told}.values():
        own = feeds_of(other, feeds)
        gaps = gaps_of(lake, own)
        days = {_date(gap) for gap in gaps if any(_concerns(event, gap) for event in stated)}
        for day in sorted(filter(is_partition, days))[-dates_max:]:
            yield other, day, gaps_result(own, gaps, day)


def _date(gap: Event) -> date:
    day = gap["exchange_date"]
    assert isinstance(day, date), "a column of dates"
    return day


def _concerns(event: Event, gap: Event) -> bool:
    """Whether a statement speaks of ids of a gap."""
    same = all(event[name] == gap[name] for name in ("feed", "scope", "session"))
    return same and event["first_id"] <= gap["last_id"] and gap["first_id"] <= event["last_id"]
