"""The thread that keeps one table's tail: reads the log on from where the lake ends, judges, shows, goes over.

It asks nobody's permission and stops nobody: what it cannot do is told by its standing, and tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from k2_api.tail_plan import Following, Partition, Reason, following
from k2_api.tail_rows import TailRows, TailView
from k2_core.contracts import Table
from k2_core.errors import Damaged, IncarnationChanged, K2Error, Misconfigured, NotFound
from k2_core.feeds import Feed, feeds_of
from k2_core.records import LogBatch
from k2_core.standing import LogView
from k2_core.waiting import Waiting
from k2_resources.decoders import Decoders, open_registry
from k2_resources.kafka import KafkaLog
from k2_resources.lake.catalog import Lake
from k2_resources.lake.uncommitted import base_of
from k2_resources.settings import Settings

LOG = logging.getLogger("k2.api")
WAIT_SECONDS = 0.1
"""Between two looks at the reader's queue: a fifth of what a record may take to be seen. A batch costs some 10 ms."""
POINTER_SECONDS = 0.1
"""Between two looks at the catalog's pointer, of half a millisecond: until it has gone over, a view continues the
snapshot before, which is as true."""
LOOK_SECONDS = 1.0
"""How often the log is asked for its ends: what a lag is told from, and how silence is told from an end."""
ANSWER_SECONDS = 2.0
"""Patience with a broker: while it is waited for, nothing new is shown."""
CLIENT_BYTES_MAX = 32 << 20
"""Of the Kafka client; a quarter of it is its queue."""
HELD_BYTES_MAX = 64 << 20
"""Decoded records held of one table, whatever their number; what is made of them takes as much again."""


@dataclass(frozen=True)
class Standing:
    """How the tail of a table is. lag_records: known to wait past its view; None while the log never answered.

    complete_at: monotonic seconds at which it was last known to hold all there was; None while it never did.
    """

    reason: Reason | None
    lag_records: int | None = None
    complete_at: float | None = None


@dataclass
class _Reader:
    """One reader of the log and what it goes by. read_to: how far it has read, whatever became of the records."""

    log: KafkaLog
    decoders: Decoders
    plan: Following
    seen: LogView
    seen_at: float
    read_to: dict[Partition, int]
    waiting: Waiting = field(default_factory=Waiting)


class TailLoop(threading.Thread):
    """Keeps one table's tail until it is stopped. view, standing: read by anybody, replaced whole."""

    def __init__(self, table: Table, feeds: Iterable[Feed], lake: Lake, settings: Settings, folder: Path) -> None:
        super().__init__(name=f"k2-tail-{table.short_name}", daemon=True)
        self.table = table
        self.view: TailView | None = None
        self.standing = Standing(Reason.STARTING)
        self._feeds = feeds_of(table, feeds)
        self._lake, self._settings, self._folder = lake, settings, folder
        self._ending = threading.Event()
        self._log: KafkaLog | None = None
        self._decoders: Decoders | None = None
        self._rows: TailRows | None = None
        self._is_warm = False
        self._asked_at = -POINTER_SECONDS

    def stop(self) -> None:
        """Ask it to end; it takes a moment."""
        self._ending.set()

    def run(self) -> None:
        """Follow the log, and begin again whenever something stopped that."""
        while not self._ending.is_set():
            try:
                again_at_once = self._follow()
            except Exception as error:
                self._stopped(error)
                again_at_once = False
            if not again_at_once:
                self._ending.wait(LOOK_SECONDS)
        if self._decoders is not None:
            self._decoders.registry.close()

    def _stopped(self, error: Exception) -> None:
        """Say why. What was shown stays shown."""
        if not isinstance(error, K2Error):
            LOG.error("the tail of %s stopped and begins anew", self.table.name, exc_info=error)
        reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.UNREACHABLE)
        self.standing = replace(self.standing, reason=reason)

    def _follow(self) -> bool:
        """One reader's life: it ends when something else is to be followed. Returns whether that is known already."""
        rows = self._rebased()
        log, decoders = self._connected()
        seen_at, seen = time.monotonic(), self._look(log)
        plan = following(rows.base.head, self._feeds, seen, rows.ends)
        if self._is_full(rows, plan.waiting(seen)):
            self.standing = replace(self.standing, reason=Reason.BEHIND, lag_records=_lag(rows, plan, seen))
            return False
        rows.begin(plan.under, plan.starts)
        reader = _Reader(log, decoders, plan, seen, seen_at, dict(plan.starts))
        ends = {key: seen.watermarks[key].high for key in plan.starts}
        self._show(rows, reader, ends)
        if not plan.starts:
            return False
        with closing(log.follow(plan.starts, wait_seconds=WAIT_SECONDS)) as batches:
            while not self._ending.is_set():
                self._take(rows, reader, next(batches))
                rows = self._rebased()
                if self._is_elsewhere(rows, reader) or self._sees_others(rows, reader):
                    return True
                self._show(rows, reader, ends)
        return False

    def _rebased(self) -> TailRows:
        """The rows over the head of now. Raises NotFound, Unreachable, Damaged."""
        if self._rows is not None and time.monotonic() < self._asked_at + POINTER_SECONDS:
            return self._rows
        self._asked_at = time.monotonic()
        if self._rows is None:
            self._is_warm = False
            self._rows = TailRows(self.table, self._feeds, base_of(self._lake, self.table), self._folder)
        elif self._rows.base.location != self._lake.pointer(self.table):
            base = base_of(self._lake, self.table)
            try:
                self._rows.rebase(base)
            except Damaged:
                if self._lake.pointer(self.table) == base.location:
                    raise
            self._publish(self._rows)
        return self._rows

    def _publish(self, rows: TailRows) -> None:
        """Let readers see what is held; what has not changed stays the same object."""
        if self._is_warm and (view := rows.view()) != self.view:
            self.view = view

    def _connected(self) -> tuple[KafkaLog, Decoders]:
        """Clients of the addresses of now: an embedded stack started again has others. Raises Misconfigured."""
        bootstrap, registry = self._settings.bootstrap(), self._settings.registry()
        if self._log is None or self._log.bootstrap != bootstrap:
            self._log = KafkaLog(bootstrap, timeout_seconds=ANSWER_SECONDS, memory_bytes_max=CLIENT_BYTES_MAX)
        if self._decoders is None or self._decoders.registry.url != registry:
            feeds = {feed.topic: feed for feed in self._feeds}
            self._decoders = Decoders(feeds, open_registry(self._settings))
        return self._log, self._decoders

    def _look(self, log: KafkaLog) -> LogView:
        topics = [feed.topic for feed in self._feeds]
        return LogView(log.incarnation(topics), log.watermarks(topics))

    def _take(self, rows: TailRows, reader: _Reader, batch: LogBatch) -> None:
        """Hold what was read, proven to be of the incarnation its offsets belong to."""
        if batch.records and reader.log.incarnation(reader.plan.under) != _incarnations(reader):
            raise IncarnationChanged(f"{self.table.name}: a topic was made anew while it was read")
        decoding = reader.decoders.decoding(self.table, batch, reader.waiting)
        self._rows = None  # until all of it is taken: half a batch must not be held
        rows.take(decoding.ranges, zip(decoding.batch.records, decoding.decoded, strict=True))
        self._rows = rows
        reader.read_to.update({(r.topic, r.kafka_partition): r.end for r in batch.ranges})

    def _is_elsewhere(self, rows: TailRows, reader: _Reader) -> bool:
        """Whether the reader stands elsewhere than the rows, or too much is held to read on."""
        stuck = rows.stuck | reader.waiting.partitions.keys()
        held = {key: rows.ends[key].next for key in reader.read_to if key in rows.ends}
        return self._is_full(rows, 0) or any(
            held.get(key) != at for key, at in reader.read_to.items() if key not in stuck
        )

    def _sees_others(self, rows: TailRows, reader: _Reader) -> bool:
        """Look at the log now and then: whether other Kafka partitions can be followed, or one that waited tried."""
        if time.monotonic() < reader.seen_at + LOOK_SECONDS:
            return False
        reader.seen_at, reader.seen = time.monotonic(), self._look(reader.log)
        plan = following(rows.base.head, self._feeds, reader.seen, rows.ends)
        before = (reader.plan.under, reader.plan.starts.keys())
        return (plan.under, plan.starts.keys()) != before or bool(reader.waiting.partitions)

    def _is_full(self, rows: TailRows, waiting: int) -> bool:
        return rows.held + waiting > self._settings.tail_records_max or rows.held_bytes > HELD_BYTES_MAX

    def _show(self, rows: TailRows, reader: _Reader, ends: dict[Partition, int]) -> None:
        """Publish what is held, once it reaches the ends the log had when the reader began."""
        held_back = rows.stuck | reader.waiting.partitions.keys()
        reached = (rows.ends[key].next >= end for key, end in ends.items() if key not in held_back)
        self._is_warm = self._is_warm or all(reached)
        reason = Reason.SCHEMA if reader.waiting.partitions else Reason.PAUSED if rows.stuck else reader.plan.reason()
        lag = _lag(rows, reader.plan, reader.seen)
        complete_at = self.standing.complete_at if lag else reader.seen_at
        self._publish(rows)
        self.standing = Standing(reason if self._is_warm else Reason.STARTING, lag, complete_at)


def _incarnations(reader: _Reader) -> dict[str, object]:
    return {topic: registered.incarnation for topic, registered in reader.plan.under.items()}


def _lag(rows: TailRows, plan: Following, seen: LogView) -> int:
    """Records the log held past what is held here, of topics whose offsets mean the same in both."""
    positions = rows.base.head.offsets.advanced(rows.ends).positions
    nexts = {key: positions[key].next for key in positions}
    waiting = ((key, m) for key, m in seen.watermarks.items() if key[0] in plan.under)
    return sum(max(0, m.high - nexts.get(key, m.low)) for key, m in waiting)


_REASONS: tuple[tuple[type[Exception], Reason], ...] = (
    (Misconfigured, Reason.OFF),
    (NotFound, Reason.OFF),
    (IncarnationChanged, Reason.HALTED),
    (Damaged, Reason.FAILED),
    (K2Error, Reason.UNREACHABLE),
    (Exception, Reason.FAILED),
)
