"""The bookkeeping of one read: planned ranges, how far each is, and the messages held for the next batch."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, compress, repeat
from typing import Self, overload

import numpy as np
import numpy.typing as npt

from k2_core.frames import Frames
from k2_core.offsets import OffsetRange
from k2_core.records import Envelope, Header, LogBatch, Records
from k2_resources.kafka.client import Message

Positions = Mapping[str, npt.NDArray[np.int64]]
"""Topic -> an offset for each Kafka partition, by its number."""
_JOINED_MIN = 8_192
"""Messages whose values are joined at once: soon enough that a processor still has them in its cache, and so many that
what is done once for all of them is shared."""


class Progress:
    """How far each planned range was read, and the messages held since the last batch.

    Per topic, arrays indexed by Kafka partition; one that is not planned starts and ends at 0.
    """

    def __init__(self, ranges: Sequence[OffsetRange]) -> None:
        if len({(r.topic, r.kafka_partition) for r in ranges}) != len(ranges):
            raise ValueError("a Kafka partition is planned twice in one read")
        sizes = {r.topic: 1 + max(o.kafka_partition for o in ranges if o.topic == r.topic) for r in ranges}
        self._start = {topic: np.zeros(size, np.int64) for topic, size in sizes.items()}
        self._end = {topic: np.zeros(size, np.int64) for topic, size in sizes.items()}
        for planned in ranges:
            self._start[planned.topic][planned.kafka_partition] = planned.start
            self._end[planned.topic][planned.kafka_partition] = planned.end
        self._next = {topic: starts.copy() for topic, starts in self._start.items()}
        self._open = {topic: starts < self._end[topic] for topic, starts in self._start.items()}
        self._held: dict[str, _Held] = defaultdict(_Held)
        self.held = self.held_bytes = 0

    def unfinished(self) -> list[OffsetRange]:
        """What is left to read."""
        return _ranges(self._next, self._end)

    @property
    def left(self) -> int:
        """Offsets that are left to read."""
        return sum(int((ends - self._next[topic]).sum()) for topic, ends in self._end.items())

    def finished(self) -> list[tuple[str, int]]:
        """Planned Kafka partitions that were read to their end since this was asked last."""
        found = []
        for topic, ends in self._end.items():
            fresh = np.flatnonzero(self._open[topic] & (self._next[topic] >= ends))
            self._open[topic][fresh] = False
            found += [(topic, p) for p in fresh.tolist()]
        return found

    def records_within(self, bytes_max: int) -> int:
        """How many more records, of the average size so far, fit into so many bytes: at least one."""
        return max(1, int((bytes_max - self.held_bytes) / max(1.0, self.held_bytes / self.held)))

    def next_of(self, topic: str, partition: int) -> int:
        """Offset to read next."""
        return int(self._next[topic][partition])

    def take(self, messages: list[Message]) -> None:
        """Hold the messages inside the ranges; one at or past an end proves that its range is read."""
        for topic, own in self._by_topic(messages).items():
            columns = _Columns.of(own)
            ends = self._end[topic][columns.partitions]
            np.maximum.at(self._next[topic], columns.partitions, np.minimum(columns.offsets + 1, ends))
            inside = columns.inside(columns.offsets < ends)
            self.held += len(inside.messages)
            self.held_bytes += sum(map(len, inside.messages))
            self._held[topic].add(inside)

    def reach(self, topic: str, partition: int, position: int) -> None:
        """Move one range on to a position the reader is known to have passed, no further than its end."""
        clamped = min(position, int(self._end[topic][partition]))
        self._next[topic][partition] = max(self.next_of(topic, partition), clamped)

    def batch(self) -> LogBatch:
        """Give what is held, with the ranges it fills, and begin the next batch."""
        moved = tuple(_ranges(self._start, self._next))
        records = tuple(held.records(topic) for topic, held in self._held.items())
        self._start = {topic: at.copy() for topic, at in self._next.items()}
        self._held, self.held, self.held_bytes = defaultdict(_Held), 0, 0
        return LogBatch(moved, tuple(of_topic for of_topic in records if len(of_topic)))

    def _by_topic(self, messages: list[Message]) -> Mapping[str, list[Message]]:
        if len(self._end) == 1 or not messages:
            return {topic: messages for topic in self._end if messages}
        topics: dict[str, list[Message]] = defaultdict(list)
        for message in messages:
            topics[message.topic()].append(message)
        return topics


@dataclass(frozen=True)
class _Columns:
    """Messages of one topic with what is asked of all of them."""

    messages: list[Message]
    partitions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, messages: list[Message]) -> Self:
        # methods mapped as they are: a generator around each costs twice the call
        partitions = np.fromiter(map(Message.partition, messages), np.int32, len(messages))
        return cls(messages, partitions, np.fromiter(map(Message.offset, messages), np.int64, len(messages)))

    def inside(self, mask: npt.NDArray[np.bool_]) -> _Columns:
        """Only the messages where the mask is set."""
        if mask.all():
            return self
        return _Columns(list(compress(self.messages, mask)), self.partitions[mask], self.offsets[mask])


def _ranges(start: Positions, end: Positions) -> list[OffsetRange]:
    return [
        OffsetRange(topic, int(p), int(starts[p]), int(end[topic][p]))
        for topic, starts in start.items()
        for p in np.flatnonzero(starts < end[topic])
    ]


@dataclass
class _Held:
    """Messages of one topic on their way into a batch. Their values live on in the joined bytes alone."""

    messages: list[Message] = field(default_factory=list)
    partitions: list[npt.NDArray[np.int32]] = field(default_factory=list)
    offsets: list[npt.NDArray[np.int64]] = field(default_factory=list)
    joined: list[Frames] = field(default_factory=list)
    absent: set[int] = field(default_factory=set)
    _waiting: list[Message] = field(default_factory=list)

    def add(self, columns: _Columns) -> None:
        self.partitions.append(columns.partitions)
        self.offsets.append(columns.offsets)
        self._waiting += columns.messages
        if len(self._waiting) >= _JOINED_MIN:
            self._join()

    def records(self, topic: str) -> Records:
        if self._waiting:
            self._join()
        return Records(
            topic=topic,
            kafka_partitions=np.concatenate(self.partitions),
            offsets=np.concatenate(self.offsets),
            values=_Values(self.joined, self.absent, range(len(self.messages))),
            envelopes=_Envelopes(self.messages),
            joined=self.joined,
        )

    def _join(self) -> None:
        values = list(map(Message.value, self._waiting))
        if None in values:
            self.absent.update(i for i, value in enumerate(values, start=len(self.messages)) if value is None)
        self.joined.append(Frames.of(values))
        # methods mapped as they are, as above; the queue keeps nothing
        deque(map(Message.set_value, self._waiting, repeat(None)), maxlen=0)
        self.messages += self._waiting
        self._waiting = []


class _Values(Sequence[bytes | None]):
    """Values as they came, cut out of the joined bytes one by one. absent: those that are none. at: which these are."""

    def __init__(self, joined: Sequence[Frames], absent: set[int], at: range) -> None:
        self._joined, self._absent, self._at = joined, absent, at
        self._starts = [0, *accumulate(map(len, joined))]

    def __len__(self) -> int:
        return len(self._at)

    @overload
    def __getitem__(self, at: int) -> bytes | None: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes | None]: ...
    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes | None] | None:
        if isinstance(at, slice):
            return _Values(self._joined, self._absent, self._at[at])
        place = self._at[at]
        if place in self._absent:
            return None
        of = bisect_right(self._starts, place) - 1
        return self._joined[of][place - self._starts[of]]


class _Envelopes(Sequence[Envelope]):
    """Keys, headers and times of messages, opened one by one: asking all of them costs as much as decoding."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, at: int) -> Envelope: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Envelope]: ...
    def __getitem__(self, at: int | slice) -> Envelope | Sequence[Envelope]:
        if isinstance(at, slice):
            return _Envelopes(self._messages[at])
        message = self._messages[at]
        return Envelope(message.key(), _headers(message), _milliseconds(message))


def _headers(message: Message) -> tuple[Header, ...]:
    try:
        return tuple(message.headers() or ())
    except (UnicodeDecodeError, SystemError):
        # the client hands out no bytes of names that are not UTF-8; the record itself is none the worse
        return (("(a header name is not UTF-8)", None),)


def _milliseconds(message: Message) -> int:
    kind, milliseconds = message.timestamp()
    return milliseconds if kind else -1
