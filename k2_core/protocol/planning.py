"""Which offsets to read next, from one look at the table and one at the log. Planning never writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from k2_core.contracts import Table
from k2_core.errors import IncarnationChanged, LogTruncated, OffsetBelowRetention
from k2_core.feeds import Feed
from k2_core.keys import topic_key
from k2_core.offsets import OffsetRange, Position, total_rows
from k2_core.protocol.ports import Head
from k2_core.records import Incarnation, Watermarks


@dataclass(frozen=True)
class Registered:
    """What a table knows of a topic: how often it was made anew, and which incarnation its offsets belong to."""

    epoch: int
    incarnation: Incarnation

    def to_json(self) -> str:
        return json.dumps(
            {"epoch": self.epoch, "cluster": self.incarnation.cluster_id, "topic": self.incarnation.topic_id},
            separators=(",", ":"),
        )


@dataclass(frozen=True)
class Plan:
    """What one run shall read: half-open ranges from the stored offsets to the watermarks of now."""

    table: Table
    ranges: tuple[OffsetRange, ...]

    @property
    def rows_max(self) -> int:
        return total_rows(self.ranges)


def registered(at: Head, topic: str) -> Registered | None:
    """What the table says of a topic; None before its first registration."""
    text = at.property(topic_key(topic))
    if text is None:
        return None
    entry = json.loads(text)
    return Registered(int(entry["epoch"]), Incarnation(entry["cluster"], entry["topic"]))


def plan_ranges(
    at: Head,
    feeds: Iterable[Feed],
    incarnations: Mapping[str, Incarnation],
    watermarks: Mapping[tuple[str, int], Watermarks],
    rows_max: int,
) -> Plan:
    """Plan from the stored offsets up to the watermarks, rows_max offsets in all.

    Raises IncarnationChanged, OffsetBelowRetention, LogTruncated: halts, never skips.
    """
    ranges: list[OffsetRange] = []
    for feed in feeds:
        known = registered(at, feed.topic)
        if feed.topic not in incarnations:
            if known is None:
                continue
            raise IncarnationChanged(
                f"{feed.topic}: {at.table.name} holds offsets of cluster {known.incarnation.cluster_id}, topic "
                f"{known.incarnation.topic_id}; there is no such topic now. See `k2 topics adopt`."
            )
        if known is not None and known.incarnation != incarnations[feed.topic]:
            raise IncarnationChanged(
                f"{feed.topic}: {at.table.name} holds offsets of cluster {known.incarnation.cluster_id}, topic "
                f"{known.incarnation.topic_id}; found {incarnations[feed.topic].cluster_id}, "
                f"{incarnations[feed.topic].topic_id}. See `k2 topics adopt`."
            )
        for (topic, p), marks in sorted(watermarks.items()):
            if topic == feed.topic and not at.is_paused(topic, p):
                start = start_of(at, known, topic, p, marks)
                ranges.append(OffsetRange(topic, p, start, max(marks.high, start)))
    return Plan(at.table, _bounded([r for r in ranges if r.rows_max], rows_max))


def start_of(at: Head, known: Registered | None, topic: str, kafka_partition: int, marks: Watermarks) -> int:
    """Where to read on: the stored offset; the low watermark before a registration; 0 for a partition added later."""
    if known is None:
        return marks.low
    stored = at.offsets.positions.get((topic, kafka_partition), Position(known.epoch, 0))
    where = f"{topic}[{kafka_partition}]"
    if marks.low > stored.next:
        raise OffsetBelowRetention(
            f"{where}: {at.table.name} wants offset {stored.next:,} but the log starts at {marks.low:,}; "
            f"{marks.low - stored.next:,} records are gone. See `k2 topics accept-loss`."
        )
    if marks.high < stored.next:
        raise LogTruncated(
            f"{where}: {at.table.name} has read up to offset {stored.next:,} but the log ends at {marks.high:,}; "
            f"it was truncated or made anew. See `k2 topics adopt`."
        )
    return stored.next


def _bounded(ranges: list[OffsetRange], rows_max: int) -> tuple[OffsetRange, ...]:
    """Cap the whole plan, each range in proportion, so that no partition starves behind another."""
    total = total_rows(ranges)
    if total <= rows_max:
        return tuple(ranges)
    return tuple(
        OffsetRange(r.topic, r.kafka_partition, r.start, r.start + max(1, r.rows_max * rows_max // total))
        for r in ranges
    )


def remaining(at: Head, ranges: Iterable[OffsetRange]) -> tuple[OffsetRange, ...]:
    """What of planned ranges is not in the table yet; a range executed twice has nothing left the second time.

    Nothing is left either of a Kafka partition that was paused after it was planned.

    Raises LogTruncated when a range starts past the stored offset: reading it would leave a hole.
    """
    left = []
    for r in ranges:
        known = registered(at, r.topic)
        stored = at.offsets.positions.get((r.topic, r.kafka_partition))
        next_offset = stored.next if stored else (0 if known else r.start)
        if next_offset < r.start:
            raise LogTruncated(
                f"{r.topic}[{r.kafka_partition}]: the plan starts at {r.start:,} but {at.table.name} is at "
                f"{next_offset:,}; the range between would be skipped. Plan again."
            )
        if next_offset < r.end and not at.is_paused(r.topic, r.kafka_partition):
            left.append(OffsetRange(r.topic, r.kafka_partition, next_offset, r.end))
    return tuple(left)
