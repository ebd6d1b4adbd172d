"""Exact reads: planned ranges in, batches out, and what the log says of itself."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import filterfalse
from typing import Any

import structlog
from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from k2_core.errors import K2Error, LogTruncated, OffsetBelowRetention, Unreachable
from k2_core.offsets import OffsetRange
from k2_core.records import Incarnation, LogBatch, Watermarks
from k2_resources.kafka.client import CLIENT, Message
from k2_resources.kafka.progress import Progress

INCARNATION_TOPIC = "k2.incarnation"
"""Where the embedded broker says which one it is; a real cluster has an id instead."""
_CONSUME_MAX = 10_000
"""Messages taken from the client at once; nothing above helps (measured)."""
_MEMORY_BYTES_MAX = 512 << 20
"""Bytes a reader and those who work on its batches may hold, unless told otherwise."""
_HELD_SHARE = 8
"""One batch is read while one waits decoded and one is judged and encoded; each takes two to three times its values."""
_QUEUE_SHARE = 4
"""The client's own queue, filled in the background."""
_CONSUME_FIRST = 100
"""Messages taken before their size is known; a message has a megabyte at most unless somebody raised that."""
_CONSUME_SECONDS = 0.05
"""A call waits this long to fill up, so it is also the longest a short tail is held back."""

_FOLLOWED_MAX = 2_000
"""Messages a follower takes at once: small batches, for it reads the end of a log and shares its process."""
_ENDLESS = 1 << 40
"""Offsets, more than anybody follows: the sum over a thousand partitions still fits into 64 bits."""

_CONSUMER = {
    **CLIENT,
    "allow.auto.create.topics": False,  # asking for a topic must not make it
    "group.id": "k2-read",  # demanded by the client; never joined, never committed to
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # an offset that is gone is an error, never a silent jump
    "isolation.level": "read_committed",
    "check.crcs": True,
    "enable.partition.eof": True,  # says how far a partition was read when its tail holds no records
    "fetch.wait.max.ms": 100,  # how late an end without records is noticed; the default is half a second
    "queued.min.messages": 500_000,
    "fetch.message.max.bytes": 8_388_608,
}
_HINT = {"session.timeout.ms": 2_000, "heartbeat.interval.ms": 500}
"""How long a hint waits for its group's coordinator. A consumer commits it: the admin request for that aborts the whole
process when it timed out and the coordinator comes back (librdkafka 2.16: rd_kafka_enq_once_del_source_return)."""
_ELECTING = (
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)
"""What a broker says for some milliseconds after it started or took a partition over."""
_ELECTING_SECONDS = 0.1
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]

log = structlog.get_logger(__name__)


class KafkaLog:
    """One Kafka cluster as K2 reads it. Safe to share between threads; connects when first asked."""

    def __init__(
        self,
        bootstrap: str,
        *,
        timeout_seconds: float = 10.0,
        memory_bytes_max: int = _MEMORY_BYTES_MAX,
        age_seconds_max: float = math.inf,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Connect when first asked.

        memory_bytes_max bounds the client's queue and, with what is made of it, every batch. age_seconds_max: a batch
        is given when its first record was read so long ago. config: further librdkafka properties, such as security
        ones; they win over K2's own.
        """
        self.bootstrap = bootstrap
        self.timeout_seconds = timeout_seconds
        self.age_seconds_max = age_seconds_max
        self._held_bytes_max = memory_bytes_max // _HELD_SHARE
        self._queue_kbytes = memory_bytes_max // _QUEUE_SHARE // 1024
        self._config = {"bootstrap.servers": bootstrap, **(config or {})}

    def watermarks(self, topics: Iterable[str]) -> dict[tuple[str, int], Watermarks]:
        """[low, high) of every Kafka partition, high being what a committed read can reach.

        A topic that does not exist has no entries. Raises Unreachable.
        """
        partitions = [TopicPartition(t, p) for t, count in self._partitions(topics).items() for p in count]
        # low before high: both only grow, so this order cannot give low > high
        low = self._offsets(partitions, _EARLIEST)
        high = self._offsets(partitions, _LATEST)
        return {at: Watermarks(low[at], high[at]) for at in low}

    def incarnation(self, topics: Iterable[str]) -> dict[str, Incarnation]:
        """Which cluster and which topic the offsets of each existing topic belong to. Raises Unreachable."""
        existing = self._partitions([*topics, INCARNATION_TOPIC])
        if existing.pop(INCARNATION_TOPIC, None):
            broker = self._embedded_incarnation()
            return {topic: Incarnation(broker, broker) for topic in existing}
        if not existing:
            return {}
        try:
            cluster = str(self._admin.list_topics(timeout=self.timeout_seconds).cluster_id)
            answers = self._admin.describe_topics(TopicCollection(list(existing)), request_timeout=self.timeout_seconds)
            return {topic: Incarnation(cluster, str(a.result().topic_id)) for topic, a in answers.items()}
        except KafkaException as error:
            raise self._unreachable("topic ids", error) from error

    def read(self, ranges: Sequence[OffsetRange], *, rows_max: int) -> Iterator[LogBatch]:
        """Read exactly the planned ranges, in batches of at most rows_max records (fewer when they are long).

        Ranges of consecutive batches are contiguous per Kafka partition and together equal the planned ones; offsets
        without a record (transaction markers, compaction) are inside. Raises OffsetBelowRetention, LogTruncated,
        and Unreachable when the log does not move towards an end for timeout_seconds.
        """
        progress = Progress(ranges)
        consumer = Consumer({**_CONSUMER, "queued.max.messages.kbytes": self._queue_kbytes, **self._config})
        try:
            consumer.assign([TopicPartition(r.topic, r.kafka_partition, r.start) for r in progress.unfinished()])
            while progress.left:
                self._fill(consumer, progress, rows_max)
                yield progress.batch()
        finally:
            consumer.close()

    def follow(self, starts: Mapping[tuple[str, int], int], *, wait_seconds: float) -> Generator[LogBatch, None, None]:
        """Read on from stated offsets without an end: whatever came within each wait, perhaps nothing.

        starts: next offset of each Kafka partition. Ranges of consecutive batches are contiguous, as those of `read`;
        offsets without a record are inside once something beyond them was seen. A broker that is gone is silence: who
        wants to know asks for the watermarks. Raises OffsetBelowRetention, LogTruncated, Unreachable.
        """
        ranges = [OffsetRange(topic, p, at, at + _ENDLESS) for (topic, p), at in starts.items()]
        progress = Progress(ranges)
        queue = {"queued.min.messages": _FOLLOWED_MAX, "queued.max.messages.kbytes": self._queue_kbytes}
        consumer = Consumer({**_CONSUMER, **queue, **self._config})
        try:
            consumer.assign([TopicPartition(r.topic, r.kafka_partition, r.start) for r in ranges])
            while True:
                self._absorb(consumer, progress, consumer.consume(_FOLLOWED_MAX, wait_seconds))
                yield progress.batch()
        finally:
            consumer.close()

    def commit_hint(self, group: str, positions: Mapping[tuple[str, int], int]) -> None:
        """Set the offsets of a consumer group, (topic, partition) -> next, for lag tools. Only a hint: never raises."""
        offsets = [TopicPartition(topic, partition, at) for (topic, partition), at in positions.items()]
        try:
            self._member(group).commit(offsets=offsets, asynchronous=False)
        except (KafkaException, ValueError) as error:
            log.warning("group offsets not set; only lag tools miss them", group=group, reason=str(error))

    @cached_property
    def _members(self) -> dict[str, Consumer]:
        return {}

    def _member(self, group: str) -> Consumer:
        """A client that names a group and never joins it."""
        if group not in self._members:
            self._members[group] = Consumer({**_CONSUMER, **_HINT, **self._config, "group.id": group})
        return self._members[group]

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient({**CLIENT, **self._config})

    def _partitions(self, topics: Iterable[str]) -> dict[str, list[int]]:
        """Kafka partitions of the topics that exist, from the metadata of the whole cluster: asks for none by name."""
        try:
            known = self._admin.list_topics(timeout=self.timeout_seconds).topics
        except KafkaException as error:
            raise self._unreachable("metadata", error) from error
        return {topic: sorted(known[topic].partitions) for topic in topics if topic in known}

    def _offsets(self, partitions: list[TopicPartition], where: OffsetSpec) -> dict[tuple[str, int], int]:
        if not partitions:
            return {}
        deadline = time.monotonic() + self.timeout_seconds
        while True:
            try:
                answers = self._admin.list_offsets(
                    dict.fromkeys(partitions, where),
                    isolation_level=IsolationLevel.READ_COMMITTED,
                    request_timeout=self.timeout_seconds,
                )
                return {(at.topic, at.partition): answer.result().offset for at, answer in answers.items()}
            except KafkaException as error:
                if error.args[0].code() not in _ELECTING or time.monotonic() > deadline:
                    raise self._unreachable("watermarks", error) from error
                time.sleep(_ELECTING_SECONDS)

    def _embedded_incarnation(self) -> str:
        high = self.watermarks([INCARNATION_TOPIC])[INCARNATION_TOPIC, 0].high
        if high == 0:
            raise Unreachable(f"{self.bootstrap}: {INCARNATION_TOPIC} is empty: the embedded broker is not ready")
        last = OffsetRange(INCARNATION_TOPIC, 0, high - 1, high)
        values = [
            value for batch in self.read([last], rows_max=1) for records in batch.records for value in records.values
        ]
        return (values[-1] or b"").decode()

    def _fill(self, consumer: Consumer, progress: Progress, rows_max: int) -> None:
        """Consume until rows_max records are held, the first of them is old, or every range is done."""
        deadline = time.monotonic() + self.timeout_seconds
        due = math.inf
        while progress.held < rows_max and self._has_room(progress) and (left := progress.left):
            room = progress.records_within(self._held_bytes_max) if progress.held else _CONSUME_FIRST
            wanted = min(_CONSUME_MAX, rows_max - progress.held, left, room)
            moved = self._absorb(consumer, progress, consumer.consume(wanted, _CONSUME_SECONDS))
            now = time.monotonic()
            if moved:
                deadline, due = now + self.timeout_seconds, min(due, now + self.age_seconds_max)
            elif now > deadline:
                raise Unreachable(self._stuck(progress.unfinished()))
            if now >= due:
                return

    def _has_room(self, progress: Progress) -> bool:
        return progress.held_bytes < self._held_bytes_max

    def _absorb(self, consumer: Consumer, progress: Progress, messages: list[Message]) -> bool:
        """Take what was consumed and stop asking for partitions that are done. Returns whether anything moved."""
        ends = list(filter(Message.error, messages))
        for end in ends:
            if end.error().code() != KafkaError._PARTITION_EOF:
                raise self._refused(end, progress)
        before = progress.left
        progress.take(list(filterfalse(Message.error, messages)) if ends else messages)
        for end in ends:
            progress.reach(end.topic(), end.partition(), end.offset())
        if done := progress.finished():
            consumer.pause([TopicPartition(*at) for at in done])
        return progress.left != before

    def _refused(self, message: Message, progress: Progress) -> K2Error:
        """What an error message means, as the error to raise."""
        topic, partition, error = message.topic(), message.partition(), message.error()
        if error.code() not in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            return Unreachable(f"{self.bootstrap}: {topic}[{partition}]: {error.str()} ({error.name()})")
        wanted = progress.next_of(topic, partition)
        held = self.watermarks([topic]).get((topic, partition), Watermarks(0, 0))
        if wanted < held.low:
            return OffsetBelowRetention(
                f"{topic}[{partition}] wants offset {wanted:,} but the log starts at {held.low:,}; "
                f"{held.low - wanted:,} records are gone. See k2 topics accept-loss"
            )
        return LogTruncated(
            f"{topic}[{partition}] wants offset {wanted:,} but the log ends at {held.high:,}: it was cut or made "
            "anew. See k2 topics adopt"
        )

    def _stuck(self, left: Sequence[OffsetRange]) -> str:
        where = ", ".join(f"{r.topic}[{r.kafka_partition}] at {r.start:,} of {r.end:,}" for r in left)
        return f"{self.bootstrap}: no record for {self.timeout_seconds:g} s, still to read: {where}. Is the broker up?"

    def _unreachable(self, what: str, error: KafkaException) -> Unreachable:
        cause = error.args[0]
        reason = cause.str() if isinstance(cause, KafkaError) else str(cause)
        return Unreachable(f"{self.bootstrap}: no {what} within {self.timeout_seconds:g} s: {reason}")
