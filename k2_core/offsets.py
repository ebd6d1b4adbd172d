"""Half-open Kafka offset ranges and the offset vector C, the version of every answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class OffsetRange:
    """[start, end) of one Kafka partition of one topic. Start equal to end is an empty range."""

    topic: str
    kafka_partition: int
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"{self.topic}[{self.kafka_partition}] [{self.start}, {self.end}) is not a range")

    @property
    def rows_max(self) -> int:
        """Offsets covered: an upper bound of the records inside."""
        return self.end - self.start


@dataclass(frozen=True, order=True)
class Position:
    """How far one Kafka partition was read: incarnation of the topic, and the next offset."""

    epoch: int
    next: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.next}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read `epoch:next`. Raises ValueError."""
        epoch, next_offset = text.split(":")
        return cls(int(epoch), int(next_offset))


@dataclass(frozen=True)
class Offsets:
    """C: per topic and Kafka partition the (epoch, next offset). What is below C is in the answer, nothing else."""

    positions: Mapping[tuple[str, int], Position] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """SHA-256 over `topic TAB kafka_partition TAB epoch TAB next LF`, ordered by topic and partition."""
        lines = (f"{t}\t{p}\t{at.epoch}\t{at.next}\n" for (t, p), at in sorted(self.positions.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def advanced(self, to: Mapping[tuple[str, int], Position]) -> Offsets:
        """C after a commit. Raises ValueError where a position would go back."""
        for at, position in to.items():
            if at in self.positions and position < self.positions[at]:
                raise ValueError(f"{at[0]}[{at[1]}] would go back from {self.positions[at]} to {position}")
        return Offsets({**self.positions, **to})

    def of_topic(self, topic: str) -> dict[int, Position]:
        return {p: at for (t, p), at in self.positions.items() if t == topic}


def total_rows(ranges: Iterable[OffsetRange]) -> int:
    """Offsets covered by all ranges."""
    return sum(r.rows_max for r in ranges)
