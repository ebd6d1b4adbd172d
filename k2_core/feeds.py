"""A feed is one topic: which table it fills, how its ids behave, in which calendar its days lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from zoneinfo import ZoneInfo

from k2_core.contracts import Table, table_named

SequenceRule = Literal["contiguous", "monotonic", "none"]
RULES: tuple[SequenceRule, ...] = ("contiguous", "monotonic", "none")


@dataclass(frozen=True)
class Feed:
    """One topic and what K2 knows about it.

    rule: contiguous (ids have no holes), monotonic (ids rise, holes are normal), none (no ids).
    kind: the third word of a message_id: trade, quote.
    """

    name: str
    topic: str
    table: Table
    exchange: str
    asset_class: str
    kind: str
    rule: SequenceRule
    timezone: str
    kafka_partitions: int

    @property
    def subject(self) -> str:
        """Registry subject of its Avro schemas."""
        return f"{self.topic}-value"


def parse_feeds(document: Mapping[str, Any]) -> tuple[Feed, ...]:
    """Read the content of config/feeds.yaml. Raises ValueError naming the entry and the field that is wrong."""
    entries = document.get("feeds")
    if not isinstance(entries, list) or not entries:
        raise ValueError("feeds: expected a non-empty list")
    feeds = tuple(_parse(entry) for entry in entries)
    for attribute in ("name", "topic"):
        values = [getattr(feed, attribute) for feed in feeds]
        if len(set(values)) != len(values):
            raise ValueError(f"feeds: {attribute} must be unique, found {sorted(values)}")
    for feed in feeds:
        twins = [
            f.name for f in feeds if (f.table.name, f.exchange, f.kind) == (feed.table.name, feed.exchange, feed.kind)
        ]
        if len(twins) > 1:
            raise ValueError(
                f"feeds: {twins} would share the keys {feed.exchange}:...:{feed.kind} of {feed.table.name}"
            )
    return feeds


def feeds_of(table: Table, feeds: Iterable[Feed]) -> tuple[Feed, ...]:
    """The feeds that fill one table, in config order."""
    return tuple(feed for feed in feeds if feed.table.name == table.name)


def _parse(entry: Any) -> Feed:
    try:
        feed = Feed(**{**entry, "table": table_named(entry["table"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"feeds: entry {entry!r}: {error}") from error
    if feed.rule not in RULES:
        raise ValueError(f"feeds: {feed.name}: rule {feed.rule!r}, expected one of {RULES}")
    ZoneInfo(feed.timezone)
    return feed
