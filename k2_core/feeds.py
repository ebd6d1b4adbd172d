"""A feed is one topic: which table it fills, how its ids behave, in which calendar its days lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

from k2_core.contracts import Table, table_named
from k2_core.sessions import Sessions

SequenceRule = Literal["contiguous", "monotonic", "none"]
RULES: tuple[SequenceRule, ...] = ("contiguous", "monotonic", "none")


Reader = Literal["binance-dumps", "binance-rest", "binance-exchange-info", "asx-files", "asx-companies"]
READERS: tuple[Reader, ...] = get_args(Reader)


@dataclass(frozen=True)
class SourceOfRecord:
    """Where any day of a feed can be had again, and what reads it there.

    place: a folder or file, from the home; for binance-rest an address, which is asked for symbols.
    """

    reader: Reader
    place: str
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feed:
    """One topic and what K2 knows about it.

    rule: contiguous (ids have no holes), monotonic (ids rise, holes are normal), none (no ids).
    kind: the third word of a message_id: trade, quote, instrument. source_of_record: None where a lost day is lost.
    sessions: when its exchange trades; None where it always does.
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
    source_of_record: SourceOfRecord | None = None
    sessions: Sessions | None = None

    @property
    def subject(self) -> str:
        """Registry subject of its Avro schemas."""
        return f"{self.topic}-value"

    def entry(self) -> dict[str, Any]:
        """What config/feeds.yaml says of it: the inverse of `parse_feeds`."""
        names = {"table": self.table.name, "sessions": self.sessions and self.sessions.name}
        record = self.source_of_record and asdict(self.source_of_record)
        stated = {**vars(self), **names, "source_of_record": record}
        return {name: value for name, value in stated.items() if value is not None}


def parse_feeds(document: Mapping[str, Any], sessions: Callable[[str], Sessions]) -> tuple[Feed, ...]:
    """Read the content of config/feeds.yaml. sessions: those of a name.

    Raises ValueError naming the entry and the field that is wrong.
    """
    entries = document.get("feeds")
    if not isinstance(entries, list) or not entries:
        raise ValueError("feeds: expected a non-empty list")
    feeds = tuple(_parse(entry, sessions) for entry in entries)
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


def _parse(entry: Any, sessions: Callable[[str], Sessions]) -> Feed:
    try:
        record = _source_of_record(entry.get("source_of_record"))
        hours = sessions(entry["sessions"]) if entry.get("sessions") else None
        objects = {"table": table_named(entry["table"]), "source_of_record": record, "sessions": hours}
        feed = Feed(**{**entry, **objects})
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"feeds: entry {entry!r}: {error}") from error
    if feed.rule not in RULES:
        raise ValueError(f"feeds: {feed.name}: rule {feed.rule!r}, expected one of {RULES}")
    ZoneInfo(feed.timezone)
    if feed.sessions and (feed.sessions.exchange, feed.sessions.timezone) != (feed.exchange, feed.timezone):
        raise ValueError(f"feeds: {feed.name}: sessions {feed.sessions.name} are those of another exchange or clock")
    return feed


def _source_of_record(entry: Any) -> SourceOfRecord | None:
    if entry is None:
        return None
    found = SourceOfRecord(**{**entry, "symbols": tuple(entry.get("symbols", ()))})
    if found.reader not in READERS:
        raise ValueError(f"source_of_record: reader {found.reader!r}, expected one of {READERS}")
    if not isinstance(found.place, str) or not found.place:
        raise ValueError(f"source_of_record: place {found.place!r}, expected a folder, a file or an address")
    if bool(found.symbols) != (found.reader == "binance-rest"):
        raise ValueError("source_of_record: symbols go with binance-rest, which asks for them one by one")
    return found
