"""Where a table stands in its topics: stored offsets beside the bounds of the log, what is paused, what halts it.

Looks only; the same lines tell `k2 topics list`, `k2 status` and /metrics, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from k2_core.contracts import Table
from k2_core.errors import Halted, IncarnationChanged, LogTruncated, OffsetBelowRetention
from k2_core.feeds import Feed, feeds_of
from k2_core.keys import paused_key
from k2_core.protocol.planning import Registered, plan_ranges, registered, start_of
from k2_core.protocol.ports import Head
from k2_core.records import Incarnation, Watermarks

HALT_CODES = tuple(sorted(halt.code for halt in (IncarnationChanged, LogTruncated, OffsetBelowRetention)))
"""Codes with which planning refuses a topic; a pause is told apart, since it stops one Kafka partition only."""


@dataclass(frozen=True)
class LogView:
    """What one look at the log gave: topics that do not exist are in neither."""

    incarnations: Mapping[str, Incarnation]
    watermarks: Mapping[tuple[str, int], Watermarks]


@dataclass(frozen=True)
class Halt:
    """Why planning refuses to go on, in the words of the error it raises."""

    code: str
    message: str


@dataclass(frozen=True)
class PartitionStanding:
    """One Kafka partition: next offset to read (None: never registered), [low, high) of the log, and why it stands."""

    kafka_partition: int
    next: int | None
    low: int | None
    high: int | None
    lag: int | None
    paused: str | None
    halt: Halt | None


@dataclass(frozen=True)
class TopicStanding:
    """One topic of one table. found: its incarnation in the log now; None where the log was not asked or has no such
    topic. halt: what stops the whole topic."""

    table: str
    topic: str
    known: Registered | None
    found: Incarnation | None
    halt: Halt | None
    partitions: tuple[PartitionStanding, ...]

    @property
    def halts(self) -> tuple[Halt, ...]:
        """Everything that stops it, the topic's own halt first."""
        return tuple(halt for halt in (self.halt, *(p.halt for p in self.partitions)) if halt is not None)

    @property
    def cut(self) -> tuple[PartitionStanding, ...]:
        """Kafka partitions whose log ends before what was read of them."""
        return tuple(p for p in self.partitions if p.halt is not None and p.halt.code == LogTruncated.code)

    @property
    def paused(self) -> dict[int, str]:
        """Paused Kafka partition -> reason."""
        return {p.kafka_partition: p.paused for p in self.partitions if p.paused is not None}

    @property
    def lag(self) -> int | None:
        """Records waiting in all its Kafka partitions; None while any of them cannot be told."""
        lags = [p.lag for p in self.partitions if p.lag is not None]
        return sum(lags) if self.found is not None and len(lags) == len(self.partitions) else None


def topic_standings(at: Head, feeds: Iterable[Feed], log: LogView | None) -> list[TopicStanding]:
    """How one table stands in each of its topics. log: None when it did not answer; then lags are not known."""
    return [_topic(at, feed, log) for feed in feeds_of(at.table, feeds)]


def tables_of(topic: str, feeds: Iterable[Feed]) -> list[Table]:
    """The tables that a topic fills, each once; none for a topic no feed names."""
    return list({feed.table.name: feed.table for feed in feeds if feed.topic == topic}.values())


def _topic(at: Head, feed: Feed, asked: LogView | None) -> TopicStanding:
    topic, known, log = feed.topic, registered(at, feed.topic), asked or LogView({}, {})
    # a log that did not answer halts nothing: it may well have the topic
    halt = _halt(lambda: plan_ranges(at, [feed], log.incarnations, {}, 1)) if asked else None
    marks = {p: m for (t, p), m in log.watermarks.items() if t == topic}
    kafka_partitions = sorted({*at.offsets.of_topic(topic), *marks})
    partitions = tuple(_partition(at, topic, p, marks.get(p), is_halted=halt is not None) for p in kafka_partitions)
    return TopicStanding(at.table.name, topic, known, log.incarnations.get(topic), halt, partitions)


def _partition(
    at: Head, topic: str, kafka_partition: int, marks: Watermarks | None, *, is_halted: bool
) -> PartitionStanding:
    known, stored = registered(at, topic), at.offsets.of_topic(topic).get(kafka_partition)
    next_offset = stored.next if stored else 0 if known else None
    halt, lag = None, None
    if marks is not None and not is_halted:  # offsets of another incarnation say nothing about this log
        halt = _halt(lambda: start_of(at, known, topic, kafka_partition, marks))
        lag = None if halt else marks.high - (marks.low if next_offset is None else next_offset)
    low, high = (marks.low, marks.high) if marks else (None, None)
    paused = at.property(paused_key(topic, kafka_partition))
    return PartitionStanding(kafka_partition, next_offset, low, high, lag, paused, halt)


def _halt(plan: Callable[[], object]) -> Halt | None:
    try:
        plan()
    except Halted as error:
        return Halt(error.code, str(error))
    return None
