"""The verdicts over records that no commit holds yet, as the next commits of their table will reach them.

The same decoder, rules and judge as an ingest run, against the same state and the same stored rows. Each batch also
sees what the batches before it would have stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.decode import Decoded, with_lineage
from k2_core.feeds import Feed
from k2_core.judge import judge_rows
from k2_core.offsets import Position
from k2_core.poison import is_poisoned
from k2_core.protocol.ports import Head
from k2_core.receipts import RangeCount
from k2_core.records import Records
from k2_core.verdict import State, Wanted
from k2_resources import clock
from k2_resources.lake.scans import stored_revisions
from k2_resources.lake.staging import read_state
from k2_resources.lake.uncommitted import ScratchFile, write_uncommitted

Partition = tuple[str, int]
"""Topic and Kafka partition."""
GROWTH = 2
"""What came last is joined with what came before it while that is not this many times larger: there are few pieces,
and each record is copied few times."""


@dataclass(frozen=True)
class Arrival:
    """Records of one topic in the order they came.

    rows: feed and lineage columns of those that could be decoded. dead: Kafka partition and offset of the others,
    shape (m, 2).
    """

    feed: Feed
    rows: pa.Table
    dead: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows) + len(self.dead)

    @classmethod
    def of(cls, feed: Feed, records: Records, decoded: Decoded, epoch: int) -> Arrival:
        """decoded: what was made of these records. epoch: of the incarnation they were read from."""
        at = np.array([d.index for d in decoded.dead], np.int64)
        dead = np.stack([records.kafka_partitions[at].astype(np.int64), records.offsets[at]], axis=1)
        return cls(feed, with_lineage(decoded, records, epoch), dead)

    def followed_by(self, other: Arrival) -> Arrival:
        """Both, one after the other."""
        rows = pa.concat_tables([self.rows, other.rows]).combine_chunks()
        return Arrival(self.feed, rows, np.concatenate([self.dead, other.dead]))

    def past(self, starts: Mapping[Partition, Position], kept: Collection[Partition]) -> Arrival:
        """What is at or past these offsets, of the kept Kafka partitions only."""
        topic = self.feed.topic
        firsts = {p: starts[topic, p].next if (topic, p) in starts else 0 for t, p in kept if t == topic}
        dead_at, dead_offsets = self.dead[:, 0], self.dead[:, 1]
        partitions, offsets = (self.rows[name].to_numpy() for name in ("kafka_partition", "kafka_offset"))
        highest = max((int(some.max(initial=0)) for some in (partitions, dead_at)), default=0)
        table = np.full(1 + max([highest, *firsts]), np.iinfo(np.int64).max)
        table[list(firsts)] = list(firsts.values())
        rows = self.rows.filter(pa.array(offsets >= table[partitions]))
        return Arrival(self.feed, rows, self.dead[dead_offsets >= table[dead_at]])


@dataclass(frozen=True)
class Part:
    """Rows a commit would store, and the files that hold them."""

    rows: pa.Table
    files: tuple[ScratchFile, ...]


class Verdicts:
    """What one head and the arrivals past it make: the rows its next commits would store, in files of a folder.

    at: the head, which may become a later one that holds the same rows.
    """

    def __init__(self, at: Head, folder: Path) -> None:
        self.at = at
        self.parts: list[Part] = []
        self._folder = folder
        self._states: dict[str, State] = {}
        self._read: Counter[Partition] = Counter()
        self._dead: Counter[Partition] = Counter()

    def judge(self, arrival: Arrival) -> None:
        """Judge what came next. Raises Damaged where what is stored cannot be read; then nothing of this holds."""
        topic, rows = arrival.feed.topic, arrival.rows
        state = self._states.get(topic)
        screened, verdict = judge_rows(
            arrival.feed,
            rows,
            state=read_state(self.at, topic) if state is None else state,
            stored=self._stored,
            today=clock.now().date(),
        )
        partitions, undecoded = rows["kafka_partition"].to_numpy(), arrival.dead[:, 0]
        rejected = partitions[[d.index for d in screened.dead]]
        _count(self._read, topic, partitions, undecoded)
        _count(self._dead, topic, rejected, undecoded)
        self._states[topic] = verdict.state
        self._add(verdict.rows)

    def poisoned(self) -> set[Partition]:
        """Kafka partitions that the commit of these records will pause: nothing past them follows until then."""
        return {key for key, dead in self._dead.items() if is_poisoned(_counted(key, self._read[key], dead))}

    def _stored(self, wanted: Wanted) -> pa.Table:
        """The stored revisions of wanted keys: of the lake, and of what goes before."""
        found = stored_revisions(self.at, wanted)
        ahead = [p.rows.filter(pc.is_in(p.rows["message_id"], wanted.message_ids)) for p in self.parts]
        return pa.concat_tables([found, *(rows.select(found.column_names) for rows in ahead)])

    def _add(self, rows: pa.Table) -> None:
        kept = list(self.parts)
        if not len(rows):
            return
        while kept and len(kept[-1].rows) <= GROWTH * len(rows):
            rows = pa.concat_tables([kept.pop().rows, rows]).combine_chunks()
        self.parts = [*kept, Part(rows, write_uncommitted(self.at, rows, self._folder))]


def _count(counter: Counter[Partition], topic: str, *partitions: npt.NDArray[Any]) -> None:
    """Count records by their Kafka partition."""
    for some in partitions:
        counts = np.bincount(some.astype(np.int64))
        counter.update({(topic, p): int(counts[p]) for p in np.flatnonzero(counts).tolist()})


def _counted(key: Partition, read: int, dead: int) -> RangeCount:
    return RangeCount(key[0], 0, key[1], 0, 0, read=read, dead=dead)
