"""What a read from the log gives: raw records with their lineage, and the ranges they fill."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k2_core.frames import Frames
from k2_core.offsets import OffsetRange

Header = tuple[str, bytes | None]


@dataclass(frozen=True)
class Envelope:
    """What came around one value. timestamp_ms: milliseconds since the epoch, -1 where the log holds none."""

    key: bytes | None
    headers: tuple[Header, ...]
    timestamp_ms: int


@dataclass(frozen=True)
class Records:
    """Records of one topic, any mix of its Kafka partitions, offset order within each.

    All columns have the same length n. envelopes: only dead letters ask for them, so a reader may open them late.
    joined: all values in order, some neighbours at a time, from a reader that joined them while they were at hand.
    """

    topic: str
    kafka_partitions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    values: Sequence[bytes | None]
    envelopes: Sequence[Envelope]
    joined: Sequence[Frames] = ()

    def __len__(self) -> int:
        return len(self.values)

    def without(self, kafka_partitions: Collection[int]) -> Records:
        """The records of all other Kafka partitions."""
        kept = ~np.isin(self.kafka_partitions, list(kafka_partitions))
        at = np.flatnonzero(kept).tolist()
        return Records(
            self.topic,
            self.kafka_partitions[kept],
            self.offsets[kept],
            [self.values[i] for i in at],
            [self.envelopes[i] for i in at],
        )


@dataclass(frozen=True)
class LogBatch:
    """Everything read in one go: the records by topic, and exactly the ranges that were consumed.

    ranges cover every planned partition that moved; offsets without a record (transaction markers, compaction)
    are inside a range and have no record.
    """

    ranges: tuple[OffsetRange, ...]
    records: tuple[Records, ...]


@dataclass(frozen=True)
class Watermarks:
    """[low, high) of one Kafka partition as the log holds it now."""

    low: int
    high: int


@dataclass(frozen=True)
class Incarnation:
    """Which cluster and which topic the offsets belong to. A recreated topic is another one."""

    cluster_id: str
    topic_id: str
