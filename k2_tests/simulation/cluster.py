"""Kafka as the protocol sees it: topics that are made, cut, made anew and widened, and the log port on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from k2_core.errors import LogTruncated, OffsetBelowRetention, Unreachable
from k2_core.offsets import OffsetRange
from k2_core.records import Incarnation, LogBatch, Watermarks
from k2_tests.simulation.scheduler import Scheduler
from k2_tests.simulation.weather import Weather


class Token(NamedTuple):
    """What stands for the bytes of a record. kind: good, bad (dies), unknown (its schema is not known yet)."""

    key: int
    content: int
    kind: str


class Read(NamedTuple):
    """A record as it was read."""

    topic: str
    kafka_partition: int
    offset: int
    token: Token


@dataclass
class Partition:
    """Every offset ever given, None where no record is (a marker, an aborted one); [low, high) can be read."""

    entries: list[Token | None] = field(default_factory=list)
    low: int = 0

    @property
    def high(self) -> int:
        return len(self.entries)


@dataclass
class Topic:
    """One incarnation of a topic."""

    topic_id: str
    partitions: list[Partition]


class Cluster:
    """Topics by name, and everything that ever was in them. acknowledged: what a producer was promised."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.ever: dict[tuple[str, str], Topic] = {}
        self.acknowledged: list[tuple[str, str, int, int, Token]] = []

    def create(self, name: str, partitions: int) -> None:
        """Make a topic; another one when the name was used before."""
        number = sum(1 for topic, _ in self.ever if topic == name)
        made = Topic(f"{name}#{number}", [Partition() for _ in range(partitions)])
        self.topics[name] = self.ever[name, made.topic_id] = made

    def delete(self, name: str) -> None:
        """Delete a topic; nobody can read it any more."""
        del self.topics[name]

    def produce(self, name: str, p: int, token: Token, *, acknowledge: bool) -> None:
        """Append a record, and promise it or not."""
        topic = self.topics[name]
        topic.partitions[p].entries.append(token)
        if acknowledge:
            self.acknowledged.append((name, topic.topic_id, p, topic.partitions[p].high - 1, token))


class SimulatedLog:
    """The log port over a cluster."""

    def __init__(self, cluster: Cluster, scheduler: Scheduler, weather: Weather, rng: Random) -> None:
        self.cluster = cluster
        self.scheduler = scheduler
        self.weather = weather
        self.rng = rng
        self.hints: dict[tuple[str, int], int] = {}

    def watermarks(self, topics: Iterable[str]) -> dict[tuple[str, int], Watermarks]:
        """[low, high) of every Kafka partition; low is asked before high."""
        self._ask("asking_watermarks")
        named = [name for name in topics if name in self.cluster.topics]
        lows = {(name, p): at.low for name in named for p, at in enumerate(self.cluster.topics[name].partitions)}
        self.scheduler.reach("asking_highs")
        return {(name, p): Watermarks(low, high) for (name, p), low in lows.items() for high in self._high(name, p)}

    def incarnation(self, topics: Iterable[str]) -> dict[str, Incarnation]:
        """Which topic the offsets belong to, of those that exist."""
        self._ask("asking_incarnation")
        return {t: Incarnation("sim", self.cluster.topics[t].topic_id) for t in topics if t in self.cluster.topics}

    def read(self, ranges: Sequence[OffsetRange], *, rows_max: int) -> Iterator[LogBatch]:
        """Read exactly the planned ranges. Raises OffsetBelowRetention, LogTruncated, Unreachable."""
        at = {(r.topic, r.kafka_partition): r.start for r in ranges}
        ends = {(r.topic, r.kafka_partition): r.end for r in ranges}
        while any(at[key] < end for key, end in ends.items()):
            starts = dict(at)
            held: list[Read] = []
            for key, end in ends.items():
                while at[key] < end and len(held) < rows_max:
                    held += self._fetch(key, at, min(end, at[key] + rows_max - len(held)))
                if held and self.weather.strikes("short_batch"):
                    break
            moved = tuple(OffsetRange(t, p, starts[t, p], at[t, p]) for t, p in ends if at[t, p] > starts[t, p])
            yield LogBatch(moved, tuple(held))  # type: ignore[arg-type]  # tokens, for a desk that reads tokens

    def commit_hint(self, group: str, positions: Mapping[tuple[str, int], int]) -> None:
        """Note how far a group is; nobody reads it."""
        self.hints.update(positions)

    def _ask(self, place: str) -> None:
        self.scheduler.reach(place)
        if self.weather.strikes("ask_fails"):
            raise Unreachable(f"{place}: no answer")

    def _high(self, name: str, p: int) -> list[int]:
        """The end of a partition, none when its topic is gone meanwhile."""
        topic = self.cluster.topics.get(name)
        return [topic.partitions[p].high] if topic and p < len(topic.partitions) else []

    def _fetch(self, key: tuple[str, int], at: dict[tuple[str, int], int], end: int) -> list[Read]:
        """Records from where a partition is towards end; moves it on past offsets without a record."""
        self.scheduler.reach("fetching")
        name, p = key
        topic = self.cluster.topics.get(name)
        if topic is None or p >= len(topic.partitions) or self.weather.strikes("fetch_fails"):
            raise Unreachable(f"{name}[{p}]: no record")
        partition, start = topic.partitions[p], at[key]
        if start < partition.low:
            return self._below_retention(key, at, partition, end)
        if start > partition.high:
            raise LogTruncated(f"{name}[{p}] wants {start}, ends at {partition.high}")
        if start == partition.high:
            raise Unreachable(f"{name}[{p}] stuck at {start} of {end}")
        at[key] = min(end, partition.high, start + 1 + int(self.rng.random() * 4))
        return [Read(name, p, i, token) for i in range(start, at[key]) if (token := partition.entries[i]) is not None]

    def _below_retention(
        self, key: tuple[str, int], at: dict[tuple[str, int], int], partition: Partition, end: int
    ) -> list[Read]:
        raise OffsetBelowRetention(f"{key[0]}[{key[1]}] wants {at[key]}, starts at {partition.low}")
