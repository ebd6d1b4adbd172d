"""A small verdict over tokens, with all that makes a real one hard: state, duplicates, revisions, letters, waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from k2_core.contracts import CONTRACT_VERSION, Table
from k2_core.errors import K2Error, SchemaUnavailable
from k2_core.keys import state_key
from k2_core.offsets import OffsetRange
from k2_core.protocol.ports import Change, Head
from k2_core.receipts import RangeCount, Receipt
from k2_core.records import LogBatch
from k2_tests.simulation.cluster import Read
from k2_tests.simulation.disk import Disk
from k2_tests.simulation.scheduler import Scheduler

GAP_EVERY = 7
"""A key divisible by this opens a gap when it is first seen."""

State = dict[int, tuple[int, ...]]
"""Key -> the contents stored under it, oldest first."""


class Row(NamedTuple):
    """A stored row with its lineage."""

    topic: str
    epoch: int
    kafka_partition: int
    offset: int
    key: int
    content: int
    revision: int


class Letter(NamedTuple):
    """A dead letter with its lineage."""

    topic: str
    epoch: int
    kafka_partition: int
    offset: int


@dataclass
class Judged:
    """What becomes of the records of one batch."""

    rows: list[Row]
    letters: list[Letter]
    gaps: list[tuple[str, int]]
    states: dict[str, State]
    counts: dict[tuple[str, int], list[int]]


WRITTEN, DUPLICATES, REVISIONS, DEAD = range(4)


def judge(reads: tuple[Read, ...], states: Mapping[str, State], epochs: Mapping[str, int]) -> Judged:
    """Decide records in the order they were read: unknown content is stored, known content is a duplicate."""
    found = Judged([], [], [], {topic: dict(state) for topic, state in states.items()}, {})
    for topic, p, offset, token in reads:
        counts = found.counts.setdefault((topic, p), [0, 0, 0, 0])
        if token.kind == "bad":
            found.letters.append(Letter(topic, epochs[topic], p, offset))
            counts[DEAD] += 1
            continue
        state = found.states[topic]
        contents = state.get(token.key, ())
        if token.content in contents:
            counts[DUPLICATES] += 1
            continue
        found.rows.append(Row(topic, epochs[topic], p, offset, token.key, token.content, len(contents)))
        state[token.key] = (*contents, token.content)
        counts[REVISIONS if contents else WRITTEN] += 1
        if not contents and token.key % GAP_EVERY == 0:
            found.gaps.append((topic, token.key))
    return found


@dataclass(frozen=True)
class Arrived:
    """A batch that can be decided now."""

    batch: LogBatch

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        return self.batch.ranges


@dataclass(frozen=True)
class SimulatedDesk:
    """The desk port. ahead: how many batches are read before the first is given."""

    disk: Disk
    scheduler: Scheduler
    knows_schemas: Callable[[], bool]
    ahead: int
    code_version: str

    def arrivals(self, table: Table, batches: Iterator[LogBatch]) -> Iterator[Arrived]:
        """Read ahead, and leave Kafka partitions behind whose schema is unknown. What is raised comes last."""
        waits: set[tuple[str, int]] = set()
        held: list[Arrived] = []
        trouble: K2Error | None = None
        while True:
            try:
                batch = next(batches, None)
            except K2Error as error:
                trouble = error
                break
            if batch is None:
                break
            decided = self._split(batch, waits)
            if decided.ranges:
                held.append(Arrived(decided))
            while len(held) > self.ahead:
                yield held.pop(0)
        yield from held
        if trouble is not None:
            raise trouble
        if waits:
            raise SchemaUnavailable(f"waiting: {sorted(waits)}")

    def judge(self, at: Head, arrived: Any, epochs: Mapping[str, int], run_id: str) -> Change:
        """Decide every record against the state the head names. Raises Damaged when that is gone."""
        self.scheduler.reach("decoded")
        paths = {topic: at.property(state_key(topic)) for topic in sorted(epochs)}
        states = {topic: self.disk.read(path) if path else {} for topic, path in paths.items()}
        judged = judge(arrived.batch.records, states, epochs)
        receipt = Receipt(
            at.table.name,
            "batch",
            run_id,
            self.code_version,
            CONTRACT_VERSION,
            tuple(_count(r, epochs[r.topic], judged.counts) for r in arrived.ranges),
        )
        read = {topic for topic, _ in judged.counts}
        states = {topic: state for topic, state in judged.states.items() if topic in read}
        return Change(receipt, judged.rows, judged.letters, judged.gaps, states)

    def _split(self, batch: LogBatch, waits: set[tuple[str, int]]) -> LogBatch:
        reads: tuple[Any, ...] = batch.records
        if not self.knows_schemas():
            waits |= {(r.topic, r.kafka_partition) for r in reads if r.token.kind == "unknown"}
        if not waits:
            return batch
        ranges = tuple(r for r in batch.ranges if (r.topic, r.kafka_partition) not in waits)
        return LogBatch(ranges, tuple(r for r in reads if (r.topic, r.kafka_partition) not in waits))


def _count(r: OffsetRange, epoch: int, counts: Mapping[tuple[str, int], list[int]]) -> RangeCount:
    mine = counts.get((r.topic, r.kafka_partition), [0, 0, 0, 0])
    return RangeCount(r.topic, epoch, r.kafka_partition, r.start, r.end, sum(mine), *mine)
