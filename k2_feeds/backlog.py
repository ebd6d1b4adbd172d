"""Room in the embedded broker: a producer waits while the lake is behind, so that nothing is dropped unread.

The broker keeps 5 MiB or 100,000 record sets of a Kafka partition, then drops the oldest, read or not. What is not
yet in the lake must stay below both. Several feeds may send at once, so the log itself is asked again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from k2_core.errors import Unreachable
from k2_core.feeds import Feed
from k2_resources.kafka import KafkaLog, LogWriter
from k2_resources.settings import Settings

if TYPE_CHECKING:
    from k2_resources.lake.catalog import Lake

Committed = Callable[[str], Mapping[int, int]]
"""Topic -> (Kafka partition -> next offset to ingest), as the lake has committed it; absent where nothing was yet."""

STALL_SECONDS_MAX = 600.0
"""An ingest run of a million rows takes seconds; ten minutes without any movement mean that nobody ingests."""
_SAFETY = 1.25
"""Records of other producers may compress worse than ours did."""
_STEP_BYTES = 256 * 1024
"""Sent to one Kafka partition at most between two looks: small against what the broker holds beyond our limit."""
_RECORDS_MAX = 80_000
"""Below the broker's 100,000 record sets, even if every record were a set of its own."""
_RECORD_OVERHEAD_BYTES = 24
"""Offset, time and lengths of one record beside its key and value."""
_RATIO_SAMPLE_BYTES = 64 * 1024
"""Payload after which the measured compression is believed; before, none is assumed."""
_POLL_SECONDS = 0.25
_FLUSH_SECONDS_MAX = 30.0


@dataclass(frozen=True)
class Waiting:
    """Said while a producer waits: the fullest Kafka partition of a topic, and for how long it has not moved."""

    topic: str
    records: int
    records_max: int
    seconds: float


@dataclass(frozen=True)
class _Load:
    """Records of the fullest Kafka partition that the lake does not hold yet, and what tells movement apart."""

    records: int
    state: tuple[tuple[int, ...], ...]


def committed_by(settings: Settings, feeds: Iterable[Feed]) -> Committed:
    """What the lake of a home has committed, opened when first asked. Raises Misconfigured where no stack runs."""
    settings.bootstrap()  # says how to start a stack before anything is looked for in its home
    tables = {feed.topic: feed.table for feed in feeds}

    @cache
    def lake() -> Lake:
        from k2_resources.lake.catalog import Lake  # a feed that never asks need not load it

        return Lake(settings.catalog(), settings.warehouse_path())

    return lambda topic: lake().committed(tables[topic], topic)


class Backlog:
    """How many more records one producer may send to a topic before it has to look again."""

    def __init__(
        self,
        log: KafkaLog,
        writer: LogWriter,
        committed: Committed,
        *,
        bytes_max: int,
        stall_seconds_max: float = STALL_SECONDS_MAX,
        on_wait: Callable[[Waiting], None] | None = None,
    ) -> None:
        """bytes_max: compressed bytes left unconsumed in one Kafka partition."""
        self._log = log
        self._writer = writer
        self._ask = committed
        self._bytes_max = bytes_max
        self._stall_seconds_max = stall_seconds_max
        self._on_wait = on_wait
        self._known: dict[str, Mapping[int, int]] = {}
        self._bytes = 0
        self._records = 0

    def sent(self, payload_bytes: int, records: int = 1) -> None:
        """Take note of records, by the size of their keys and values together."""
        self._bytes += payload_bytes + records * _RECORD_OVERHEAD_BYTES
        self._records += records

    def room(self, topic: str) -> int:
        """Wait until there is room, then say for how many records: at least one.

        Raises Unreachable when nothing moves for stall_seconds_max.
        """
        since, last = time.monotonic(), _Load(-1, ())
        while True:
            step, most = self._limits()
            load = self._load(topic, most)
            free = most - load.records - self._in_flight()
            if free >= max(1, step // 4) or load.records + self._in_flight() == 0:
                return max(1, min(free, step))
            if load.state != last.state:
                since, last = time.monotonic(), load
            self._wait(Waiting(topic, load.records, most, time.monotonic() - since))

    def _limits(self) -> tuple[int, int]:
        """Records between two looks, and records left unconsumed, at most; every one might go to one partition."""
        each = self._bytes_each()
        most = int(min(self._bytes_max / (each * _SAFETY), _RECORDS_MAX))
        return max(1, int(min(_STEP_BYTES / each, most / 4))), max(1, most)

    def _bytes_each(self) -> float:
        """Compressed bytes of an average record; uncompressed until enough was measured."""
        average = self._bytes / self._records if self._records else 256.0
        payload = self._writer.payload_bytes
        if payload < _RATIO_SAMPLE_BYTES:
            return average
        return average * min(1.0, self._writer.bytes_on_wire / payload)

    def _load(self, topic: str, most: int) -> _Load:
        """The committed offsets as last known serve while they leave room: they only grow."""
        if topic in self._known:
            load = self._measure(topic)
            if load.records + self._in_flight() < most // 2:
                return load
        self._known[topic] = self._ask(topic)
        return self._measure(topic)

    def _measure(self, topic: str) -> _Load:
        marks = self._log.watermarks([topic])
        known = self._known[topic]
        left = [waiting(known.get(p, 0), held.low, held.high) for (_, p), held in marks.items()]
        state = tuple((p, held.high, known.get(p, 0)) for (_, p), held in sorted(marks.items()))
        return _Load(max(left, default=0), state)

    def _in_flight(self) -> int:
        self._writer.poll()
        return self._writer.sent - self._writer.acknowledged - self._writer.failed

    def _wait(self, waiting: Waiting) -> None:
        if waiting.seconds > self._stall_seconds_max:
            raise Unreachable(
                f"{waiting.topic}: {waiting.records:,} records wait in one Kafka partition and none was ingested for "
                f"{waiting.seconds:.0f} s; sending more would make the embedded broker drop them. "
                f"{self._writer.acknowledged:,} of {self._writer.sent:,} records are acknowledged. "
                "Is `k2 up` or `k2 ingest` running? Then run the same command again"
            )
        if self._in_flight():
            # what is on its way counts as waiting in every partition until the log says where it went
            self._writer.flush(_FLUSH_SECONDS_MAX)
            return
        if self._on_wait:
            self._on_wait(waiting)
        self._writer.poll(_POLL_SECONDS)


def waiting(committed: int, low: int, high: int) -> int:
    """Count the records of a Kafka partition that the lake lacks. Offsets of an earlier broker say nothing here."""
    return high - (max(committed, low) if committed <= high else low)
