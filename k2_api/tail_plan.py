"""Which Kafka partitions of a table the tail follows, from where, and why it leaves the others alone.

Pure: one look at the table and one at the log, as an ingest run plans from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from k2_core.errors import Halted
from k2_core.feeds import Feed
from k2_core.offsets import Position
from k2_core.protocol.planning import Registered, registered, start_of
from k2_core.protocol.ports import Head
from k2_core.records import Watermarks
from k2_core.standing import LogView

Partition = tuple[str, int]


class Reason(StrEnum):
    """Why the tail does not hold everything the log holds. Stable words: clients match on them."""

    OFF = "off"
    """Not wanted by the settings, or there is no log, or no table, to follow yet."""
    STARTING = "starting"
    """It has not read up to where the log ended when it began."""
    BEHIND = "behind"
    """More records wait than it may hold, or it has not caught up with the lake."""
    UNREACHABLE = "unreachable"
    """The log, the registry or the catalog does not answer; what was read before is still shown."""
    FAILED = "failed"
    """It stopped over something unforeseen, and begins anew; the log of the server has the cause."""
    HALTED = "halted"
    """A topic is not the one whose offsets are stored, or records of it are gone: ingest stands there, too."""
    PAUSED = "paused"
    """A Kafka partition is paused, or about to be: nothing of it becomes rows until somebody has looked."""
    SCHEMA = "schema"
    """Records of a Kafka partition wait for a schema nobody knows."""


@dataclass
class Following:
    """What is followed. under: by topic the incarnation; starts: next offsets; left: why others are not followed."""

    under: dict[str, Registered] = field(default_factory=dict)
    starts: dict[Partition, int] = field(default_factory=dict)
    left: dict[Partition, Reason] = field(default_factory=dict)

    def reason(self) -> Reason | None:
        """The gravest reason for which something is left out."""
        return Reason.HALTED if Reason.HALTED in self.left.values() else next(iter(self.left.values()), None)

    def waiting(self, log: LogView) -> int:
        """Records between the starts and the ends of the log."""
        return sum(max(0, log.watermarks[key].high - start) for key, start in self.starts.items())


def following(at: Head, feeds: Iterable[Feed], log: LogView, ends: Mapping[Partition, Position]) -> Following:
    """Plan what to follow. ends: how far it was held already, which is where to go on."""
    found = Following()
    for feed in feeds:
        known, there = registered(at, feed.topic), log.incarnations.get(feed.topic)
        if there is None and known is None:
            continue  # a topic nobody has made yet
        marks = {p: m for (t, p), m in log.watermarks.items() if t == feed.topic}
        if there is None or (known is not None and known.incarnation != there):
            found.left.update({(feed.topic, p): Reason.HALTED for p in marks or (0,)})
            continue
        found.under[feed.topic] = known or Registered(0, there)
        for p, m in marks.items():
            start = _start(at, (feed.topic, p), m, ends)
            if isinstance(start, Reason):
                found.left[feed.topic, p] = start
            else:
                found.starts[feed.topic, p] = start
    return found


def _start(at: Head, key: Partition, marks: Watermarks, ends: Mapping[Partition, Position]) -> int | Reason:
    """Where to go on with a Kafka partition, or why not."""
    if at.is_paused(*key):
        return Reason.PAUSED
    try:
        start = ends[key].next if key in ends else start_of(at, registered(at, key[0]), *key, marks)
    except Halted:
        return Reason.HALTED
    return start if marks.low <= start <= marks.high else Reason.HALTED
