"""One table's way from a planned range to its commits: plan, read, judge, commit, collect, forget, hint.

Also the ways past a halt: register, adopt, accept a loss, resume. Each is a fenced commit with a receipt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from k2_core.contracts import CONTRACT_VERSION, Table
from k2_core.errors import Damaged, FencedOut, IncarnationChanged, NotFound, PartitionPaused
from k2_core.feeds import Feed, feeds_of
from k2_core.keys import paused_key, topic_key
from k2_core.offsets import OffsetRange, Position
from k2_core.poison import pauses
from k2_core.protocol.collect import collect
from k2_core.protocol.commit import commit
from k2_core.protocol.planning import Plan, Registered, plan_ranges, registered, remaining, start_of
from k2_core.protocol.ports import Change, Head, Landed, Ledger, Log, Reach
from k2_core.protocol.retain import expire
from k2_core.receipts import Committed, Kind, RangeCount, Receipt
from k2_core.records import Incarnation, LogBatch, Watermarks

HINT_GROUP = "k2-lake"
"""Consumer group whose offsets show lag tools how far the lake is; nothing in K2 reads them."""


class Arrived(Protocol):
    """Records that were read and can be decided now, and the ranges they fill."""

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """What was read: contiguous with the batch before, per Kafka partition."""


class Desk(Protocol):
    """What becomes of records between the log and the ledger."""

    def arrivals(self, table: Table, batches: Iterator[LogBatch]) -> Iterator[Arrived]:
        """Decode what can be decided now, perhaps ahead of who asks. Raises SchemaUnavailable once all else is done."""

    def judge(self, at: Head, arrived: Any, epochs: Mapping[str, int], run_id: str) -> Change:
        """Decide every record against what the head holds. Writes nothing."""


@dataclass(frozen=True)
class Ingestion:
    """The protocol over its ports. rows_per_commit bounds a batch; code_version goes into every receipt."""

    ledger: Ledger
    log: Log
    desk: Desk
    feeds: tuple[Feed, ...]
    reach: Reach
    code_version: str
    rows_per_commit: int

    def plan(self, table: Table, rows_max: int) -> Plan:
        """Plan the next ranges of one table; empty when nothing waits. Writes nothing. Raises Halted."""
        at = self.ledger.head(table)
        topics = self.topics(table)
        incarnations, marks = self.log.incarnation(topics), self.log.watermarks(topics)
        return plan_ranges(at, feeds_of(table, self.feeds), incarnations, marks, rows_max)

    def execute(self, table: Table, ranges: Sequence[OffsetRange], run_id: str) -> Iterator[Committed]:
        """Execute planned ranges, yielding each commit. Running them twice changes nothing the second time.

        A Kafka partition whose records need a schema nobody knows waits; the others go on, and the run ends with
        SchemaUnavailable. A Kafka partition full of dead letters is paused, and the run ends with PartitionPaused.
        """
        self.reach("planned")
        self.register(table, run_id)
        collect(self.ledger, table, self.reach)
        at = read_under = self.ledger.head(table)
        for arrived in self.desk.arrivals(table, self._batches(at, ranges)):
            _expect_same_topics(at, read_under, arrived.ranges)
            _expect_starts(at, arrived.ranges)
            landed = self._commit_batch(at, arrived, run_id)
            at = landed.head
            yield landed.committed
            collect(self.ledger, table, self.reach, at)
            if expire(self.ledger, at):
                at = self.ledger.head(table)
            self.log.commit_hint(HINT_GROUP, {(r.topic, r.kafka_partition): r.end for r in arrived.ranges})
            self.reach("hinted")
            _complain_of_pauses(at, arrived.ranges)

    def _batches(self, at: Head, ranges: Sequence[OffsetRange]) -> Iterator[LogBatch]:
        """Read what is left of the ranges, each batch proven to be of the incarnation its offsets belong to."""
        incarnations = self._incarnations(at)
        for batch in self.log.read(remaining(at, ranges), rows_max=self.rows_per_commit):
            self.reach("read")
            if self._incarnations(at) != incarnations:
                raise IncarnationChanged(f"{at.table.name}: the cluster changed while it was read; nothing is kept")
            yield batch

    def _commit_batch(self, at: Head, arrived: Arrived, run_id: str) -> Landed:
        epochs = {topic: _known(at, topic).epoch for topic in {r.topic for r in arrived.ranges}}
        change = self._judged(at, arrived, epochs, run_id)
        assert all(r.is_balanced for r in change.receipt.ranges), f"unbalanced receipt {change.receipt.ranges}"
        assert _covers(change.receipt, arrived.ranges), f"{change.receipt.ranges} is not what was read"
        self.reach("judged")
        paused = {**change.properties, **pauses(change.receipt)}
        return self._commit(at, replace(change, properties=paused))

    def _commit(self, at: Head, change: Change) -> Landed:
        landed = commit(self.ledger, at, change)
        self.reach("committed")
        return landed

    def _judged(self, at: Head, arrived: Arrived, epochs: Mapping[str, int], run_id: str) -> Change:
        """What the desk makes of a batch. A file that is gone because others went on from there is no damage."""
        try:
            return self.desk.judge(at, arrived, epochs, run_id)
        except Damaged as error:
            now = self.ledger.head(at.table)
            if now.properties == at.properties and self.ledger.snapshots(now) == self.ledger.snapshots(at):
                raise
            raise FencedOut(f"{at.table.name}: another writer committed while this one judged; plan again") from error

    def register(self, table: Table, run_id: str) -> Committed | None:
        """Accept the low watermarks of topics the table has never read as their start; None when all are known."""
        at = self.ledger.head(table)
        topics = [t for t in self.topics(table) if registered(at, t) is None]
        incarnations = self.log.incarnation(topics) if topics else {}
        if not incarnations:
            return None
        marks = self.log.watermarks(incarnations)
        ranges = [RangeCount(t, 0, p, m.low, m.low) for (t, p), m in sorted(marks.items())]
        properties = {topic_key(t): Registered(0, i).to_json() for t, i in incarnations.items()}
        return self._decree(at, "register", ranges, properties, run_id=run_id)

    def adopt(self, table: Table, topics: Iterable[str], *, run_id: str, who: str, why: str) -> Committed | None:
        """Go on with topics that were made anew, or cut: a new epoch from their low watermarks. None when none were.

        What is read a second time is judged by its keys, and counted as duplicates.
        """
        at = self.ledger.head(table)
        current = self.log.incarnation(topics)
        marks = self.log.watermarks(current)
        changed = {
            t: known
            for t in current
            if (known := registered(at, t)) is not None and (known.incarnation != current[t] or _is_cut(at, t, marks))
        }
        if not changed:
            return None
        marks = {key: m for key, m in marks.items() if key[0] in changed}
        fresh = {t: Registered(known.epoch + 1, current[t]) for t, known in changed.items()}
        ranges = [RangeCount(t, fresh[t].epoch, p, low, low) for (t, p), low in _lows(at, changed, marks).items()]
        properties = {topic_key(t): r.to_json() for t, r in fresh.items()}
        return self._decree(at, "adopt", ranges, properties, run_id=run_id, who=who, why=why)

    def accept_loss(self, table: Table, topic: str, *, run_id: str, who: str, why: str) -> Committed | None:
        """Go on past records the log no longer holds: every partition jumps to its low watermark. None without a loss.

        Raises IncarnationChanged: what is gone of another topic is not this one's loss. Raises NotFound.
        """
        at = self.ledger.head(table)
        known = registered(at, topic)
        current = self.log.incarnation([topic]).get(topic)
        if known is None or current is None:
            raise NotFound(f"{topic}: {'not registered in ' + table.name if known is None else 'no such topic'}")
        if known.incarnation != current:
            raise IncarnationChanged(f"{topic}: expected {known.incarnation}, found {current}. See `k2 topics adopt`.")
        before = at.offsets.of_topic(topic)
        ranges = [
            RangeCount(topic, known.epoch, p, stored.next, m.low)
            for (_, p), m in sorted(self.log.watermarks([topic]).items())
            if m.low > (stored := before.get(p, Position(known.epoch, 0))).next
        ]
        return self._decree(at, "accept_loss", ranges, {}, run_id=run_id, who=who, why=why) if ranges else None

    def resume(
        self, table: Table, topic: str, kafka_partitions: Iterable[int] | None, *, run_id: str, who: str, why: str
    ) -> Committed | None:
        """Read paused Kafka partitions of a topic again; all of them with None. None when none of them is paused."""
        at = self.ledger.head(table)
        asked = at.offsets.of_topic(topic) if kafka_partitions is None else kafka_partitions
        keys: dict[str, str | None] = {paused_key(topic, p): None for p in asked if at.is_paused(topic, p)}
        return self._decree(at, "resume", [], keys, run_id=run_id, who=who, why=why) if keys else None

    def lag(self, table: Table) -> dict[str, int]:
        """Records waiting per topic, from the stored offsets and the watermarks. Raises Halted."""
        at, marks = self.ledger.head(table), self.log.watermarks(self.topics(table))
        waiting = dict.fromkeys(self.topics(table), 0)
        for (topic, p), m in marks.items():
            waiting[topic] += m.high - start_of(at, registered(at, topic), topic, p, m)
        return waiting

    def topics(self, table: Table) -> list[str]:
        """The topics that fill one table."""
        return [feed.topic for feed in feeds_of(table, self.feeds)]

    def _decree(
        self,
        at: Head,
        kind: Kind,
        ranges: Sequence[RangeCount],
        properties: Mapping[str, str | None],
        *,
        run_id: str,
        who: str | None = None,
        why: str | None = None,
    ) -> Committed:
        """Commit a receipt without a record: a decision about where to read on."""
        receipt = Receipt(
            at.table.name, kind, run_id, self.code_version, CONTRACT_VERSION, tuple(ranges), who=who, why=why
        )
        return self._commit(at, Change(receipt, properties=properties)).committed

    def _incarnations(self, at: Head) -> dict[str, Incarnation]:
        """Incarnations of now, proven to be those the stored offsets belong to."""
        topics = self.topics(at.table)
        current = self.log.incarnation(topics)
        for topic in topics:
            known = registered(at, topic)
            if known is not None and known.incarnation != current.get(topic):
                raise IncarnationChanged(
                    f"{topic}: expected {known.incarnation}, found {current.get(topic)}. See `k2 topics adopt`."
                )
        return current


def _covers(receipt: Receipt, ranges: Sequence[OffsetRange]) -> bool:
    counted = {(r.topic, r.kafka_partition, r.start, r.end) for r in receipt.ranges}
    return counted == {(r.topic, r.kafka_partition, r.start, r.end) for r in ranges}


def _expect_same_topics(at: Head, read_under: Head, ranges: Sequence[OffsetRange]) -> None:
    """The epoch of a batch is that of its reading: a topic adopted since then makes its offsets mean other records."""
    for topic in {r.topic for r in ranges}:
        if at.property(topic_key(topic)) != read_under.property(topic_key(topic)):
            raise FencedOut(f"{topic} was adopted in {at.table.name} while it was read; plan again")


def _expect_starts(at: Head, ranges: Sequence[OffsetRange]) -> None:
    for r in ranges:
        known = _known(at, r.topic)
        stored = at.offsets.positions.get((r.topic, r.kafka_partition))
        if (stored.next if stored else 0) != r.start or (stored and stored.epoch != known.epoch):
            raise FencedOut(
                f"{r.topic}[{r.kafka_partition}]: read from {r.start:,}, but {at.table.name} is at {stored}"
            )


def _complain_of_pauses(at: Head, ranges: Sequence[OffsetRange]) -> None:
    """Stop loudly where the batch just committed paused its partition: what was read ahead of it must not follow."""
    reasons = {f"{r.topic}[{r.kafka_partition}]": at.property(paused_key(r.topic, r.kafka_partition)) for r in ranges}
    paused = {where: reason for where, reason in reasons.items() if reason is not None}
    if paused:
        told = "; ".join(f"{where}: {reason}" for where, reason in sorted(paused.items()))
        raise PartitionPaused(f"{at.table.name}: {told}. See `k2 topics resume`.")


def _known(at: Head, topic: str) -> Registered:
    known = registered(at, topic)
    if known is None:
        raise FencedOut(f"{topic} is not registered in {at.table.name}")
    return known


def _is_cut(at: Head, topic: str, marks: Mapping[tuple[str, int], Watermarks]) -> bool:
    """Whether the log of a topic ends before what was read of it."""
    stored = at.offsets.of_topic(topic)
    return any(m.high < stored[p].next for (t, p), m in marks.items() if t == topic and p in stored)


def _lows(at: Head, topics: Iterable[str], marks: Mapping[tuple[str, int], Watermarks]) -> dict[tuple[str, int], int]:
    """Where to start anew: the low watermark of every partition there is, 0 for those that were and are not yet."""
    were = {key: 0 for key in at.offsets.positions if key[0] in set(topics)}
    return dict(sorted({**were, **{key: m.low for key, m in marks.items()}}.items()))
