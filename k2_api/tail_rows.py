"""What is held past one state of a table, and how it goes over to the next.

The lake says where it ends (C) and what it has seen (sequence state, stored rows); what is held here begins exactly
there. When the table moves on, what it took over is dropped and the rest is judged anew against it, so at any instant a
record is either in the snapshot a view names or in the view, judged as the commit will judge it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k2_api.tail_verdicts import GROWTH, Arrival, Partition, Verdicts
from k2_core.contracts import Table
from k2_core.decode import Decoded
from k2_core.feeds import Feed, feeds_of
from k2_core.offsets import OffsetRange, Offsets, Position
from k2_core.protocol.planning import Registered, registered
from k2_core.protocol.ports import Head
from k2_core.records import Records
from k2_resources.lake.uncommitted import Base, ScratchFile


@dataclass(frozen=True)
class TailView:
    """What one instant knows past a snapshot: C at its end, and files with every row up to there. Never changes."""

    table_uuid: str
    snapshot_id: int | None
    ends: Offsets
    files: tuple[ScratchFile, ...]

    def continues(self, table_uuid: str, offsets: Offsets) -> bool:
        """Whether a state of the table holds nothing past this view."""
        nothing = Position(-1, 0)
        covers = all(self.ends.positions.get(key, nothing) >= at for key, at in offsets.positions.items())
        return covers and table_uuid == self.table_uuid


class TailRows:
    """All that is held past the newest known state of one table. Used by one thread; its views by any.

    ends: next offset of every followed Kafka partition. under: topic -> the incarnation it is read from.
    """

    def __init__(self, table: Table, feeds: Iterable[Feed], base: Base, folder: Path) -> None:
        self.base = base
        self.ends: dict[Partition, Position] = {}
        self.under: dict[str, Registered] = {}
        self._feeds = {feed.topic: feed for feed in feeds_of(table, feeds)}
        self._folder = folder
        self._verdicts = Verdicts(base.head, folder)
        self._arrivals: dict[str, list[Arrival]] = {}

    @property
    def held(self) -> int:
        """Records held, the dead among them."""
        return sum(len(arrival) for pile in self._arrivals.values() for arrival in pile)

    @property
    def held_bytes(self) -> int:
        return sum(arrival.rows.nbytes for pile in self._arrivals.values() for arrival in pile)

    @property
    def stuck(self) -> set[Partition]:
        """Kafka partitions of which nothing more is taken until the table has moved on: they are about to be paused."""
        return self._verdicts.poisoned()

    def begin(self, under: Mapping[str, Registered], starts: Mapping[Partition, int]) -> None:
        """Hold these Kafka partitions, too, each from an offset on. under: what they are read from, by topic."""
        self.under.update(under)
        for (topic, p), start in starts.items():
            self.ends.setdefault((topic, p), Position(under[topic].epoch, start))

    def take(self, ranges: Iterable[OffsetRange], arrived: Iterable[tuple[Records, Decoded]]) -> None:
        """Judge what was read next and hold it. Raises Damaged; what is held is of no use any more then."""
        stuck = self.stuck
        for records, decoded in arrived:
            arrival = Arrival.of(self._feeds[records.topic], records, decoded, self.under[records.topic].epoch)
            if stuck:
                arrival = arrival.past({}, self.ends.keys() - stuck)
            self._verdicts.judge(arrival)
            _pile(self._arrivals.setdefault(records.topic, []), arrival)
        for r in ranges:
            if (key := (r.topic, r.kafka_partition)) not in stuck:
                self.ends[key] = Position(self.ends[key].epoch, r.end)

    def rebase(self, base: Base) -> None:
        """Go over to a later state of the table: drop what it holds, judge the rest against it.

        Nothing has changed where it raises (Damaged: the state was forgotten meanwhile).
        """
        at = base.head
        kept = {key for key in self.ends if self._goes_on(at, key)}
        took_over = {key: at.offsets.positions[key] for key in kept if key in at.offsets.positions}
        before = self.base.head.offsets.positions
        if kept == self.ends.keys() and all(before.get(key) == position for key, position in took_over.items()):
            self.base, self._verdicts.at = base, at  # files were rewritten, or what is not followed moved on
            return
        joined = (_joined(pile).past(took_over, kept) for pile in self._arrivals.values())
        arrivals, verdicts = [arrival for arrival in joined if len(arrival)], Verdicts(at, self._folder)
        for arrival in arrivals:
            verdicts.judge(arrival)
        self.base, self._verdicts = base, verdicts
        self._arrivals = {arrival.feed.topic: [arrival] for arrival in arrivals}
        self.ends = {key: max(self.ends[key], took_over.get(key, self.ends[key])) for key in kept}

    def view(self) -> TailView:
        """What is held now, as a reader may keep it."""
        at = self.base.head
        files = tuple(file for part in self._verdicts.parts for file in part.files)
        return TailView(at.table_uuid, self.base.snapshot_id, at.offsets.advanced(self.ends), files)

    def _goes_on(self, at: Head, key: Partition) -> bool:
        """Whether the table reads on where this Kafka partition is followed."""
        topic, kafka_partition = key
        same_table = at.table_uuid == self.base.head.table_uuid
        known = registered(at, topic)
        return same_table and known in (None, self.under[topic]) and not at.is_paused(topic, kafka_partition)


def _pile(pile: list[Arrival], arrival: Arrival) -> None:
    """Put an arrival on those before it, joined with the small ones among them."""
    while pile and len(pile[-1]) <= GROWTH * len(arrival):
        arrival = pile.pop().followed_by(arrival)
    pile.append(arrival)


def _joined(pile: Sequence[Arrival]) -> Arrival:
    whole = pile[-1]
    for arrival in reversed(pile[:-1]):
        whole = arrival.followed_by(whole)
    return whole
