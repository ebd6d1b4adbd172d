"""What a feed says it collected: one statement when a collection opens, and one per symbol when it ends.

Receipts prove what arrived; these statements are what it is compared with. A collection without an end was killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from k2_core.feeds import Feed
from k2_core.gap_ids import GapId
from k2_feeds.outcomes import Row

COVERAGE_FEED = "coverage"
EXCHANGE = "K2"
ALL = "*"
"""Scope of a statement about all symbols of a feed."""

Event = Literal["opened", "closed", "failed"]


@dataclass
class Tally:
    """What was sent of one scope so far. Ids and times are the smallest and the largest; None before the first."""

    feed: str
    symbol: str
    rows: int = 0
    rejected: int = 0
    first_id: int | None = None
    last_id: int | None = None
    opened: int | None = None
    closed: int | None = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one record."""
        self.rows += 1
        self.first_id, self.last_id = _widened(self.first_id, self.last_id, record.get("source_sequence"))
        self.opened, self.closed = _widened(self.opened, self.closed, record["timestamp"])

    def merge(self, other: Tally) -> None:
        """Count everything another symbol counted; its ids are numbered apart and stay out."""
        self.rows += other.rows
        self.rejected += other.rejected
        for moment in (other.opened, other.closed):
            self.opened, self.closed = _widened(self.opened, self.closed, moment)


@dataclass(frozen=True)
class Stamp:
    """Who states something, and when. collection_id: one run of one command; now_us: µs UTC."""

    collection_id: str
    source: str
    now_us: int


def opening(feeds: Iterable[Feed], stamp: Stamp) -> list[Row]:
    """A statement per feed that its collection has begun."""
    return [statement(feed, Tally(feed.name, ALL), "opened", stamp) for feed in feeds]


def ending(feeds: Iterable[Feed], tallies: Iterable[Tally], event: Event, stamp: Stamp) -> list[Row]:
    """A statement per tally that its collection has ended."""
    by_name = {feed.name: feed for feed in feeds}
    return [statement(by_name[tally.feed], tally, event, stamp) for tally in tallies]


def sums(feeds: Iterable[Feed], tallies: Iterable[Tally], unattributed: int) -> list[Tally]:
    """One tally per feed over its symbols. unattributed: rejected lines that may have been of any of the feeds."""
    found = []
    tallies = list(tallies)
    for feed in feeds:
        total = Tally(feed.name, ALL, rejected=unattributed)
        for tally in (t for t in tallies if t.feed == feed.name):
            total.merge(tally)
        found.append(total)
    return found


def gap_statement(feed: Feed, gap: GapId, state: str, stamp: Stamp, evidence: Mapping[str, Any] | None = None) -> Row:
    """A statement that puts a gap in a state of k2_core.gap_ids.STATED. source of the stamp: who says so.

    It goes for every hole within the ids of the gap, whether or not the judge has seen it yet.
    """
    told = None if evidence is None else json.dumps(evidence, sort_keys=True, ensure_ascii=False, default=str)
    tally = Tally(feed.name, gap.scope, first_id=gap.first_id, last_id=gap.last_id)
    name = f"{gap}:{state}:{stamp.now_us}"
    return statement(feed, tally, state, stamp, name=name, gap_id=str(gap), evidence=told)


def statement(feed: Feed, tally: Tally, event: str, stamp: Stamp, *, name: str | None = None, **more: Any) -> Row:
    """A statement about what a tally counted. name: what of its collection it is; more: columns only its kind has."""
    record = {
        "message_id": f"COVERAGE:{stamp.collection_id}:{name or f'{feed.name}/{tally.symbol}:{event}'}",
        "collection_id": stamp.collection_id,
        "event": event,
        "feed": feed.name,
        "source": stamp.source,
        "exchange": feed.exchange,
        "symbol": tally.symbol,
        "timestamp": stamp.now_us,
        "first_id": tally.first_id,
        "last_id": tally.last_id,
        "rows": tally.rows,
        "rejected": tally.rejected,
        "opened": tally.opened,
        "closed": tally.closed,
        "ingestion_timestamp": stamp.now_us,
    }
    return Row(COVERAGE_FEED, feed.name, record | more)


def _widened(low: int | None, high: int | None, value: int | None) -> tuple[int | None, int | None]:
    if value is None:
        return low, high
    return (value if low is None else min(low, value)), (value if high is None else max(high, value))
