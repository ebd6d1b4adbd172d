"""Which Kafka partition each symbol's records go to: by its share of the volume, from a table in config.

A symbol keeps its partition for as long as anything of it is unread. The layout in force is a statement in K2_HOME,
held by every feed that sends by it; another is taken only when no other feed runs and the lake holds the whole topic.
A home without a statement reads the keys of what is unread: each must lie where the layout puts it.
"""

from __future__ import annotations

import fcntl
import json
import struct
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from k2_core.errors import Misconfigured
from k2_core.feeds import Feed
from k2_core.offsets import OffsetRange
from k2_feeds.backlog import Committed, waiting
from k2_resources.kafka import BY_KEY, KafkaLog
from k2_resources.settings import Settings

SHARED_PARTITIONS = 3
"""Kafka partitions for the symbols of the second tier."""
FOLDER = "partitions"
"""Where the layouts in force are stated, below K2_HOME."""
_SYMBOLS_MAX = 1 << 16
"""Places kept; more symbols than any exchange lists."""
_TAKING_SECONDS_MAX = 3.0
"""Feeds that start together wait so long for the first of them to state the layout."""
_TAKING_STEP_SECONDS = 0.05
_KEYS_AT_ONCE = 100_000
"""Records whose keys are looked at together."""
_MASK, _MIX = 0xFFFFFFFF, 0x5BD1E995
_SEED = 0x9747B28C
"""Of Kafka's MurmurHash2."""


@dataclass(frozen=True)
class Layout:
    """Places of the symbols of one topic. own: a Kafka partition each; shared: three for all of them."""

    topic: str
    kafka_partitions: int
    own: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tiers = [*self.own, *self.shared]
        if len(set(tiers)) != len(tiers):
            raise ValueError(f"{self.topic}: a symbol is named twice")
        if self.rest_from >= self.kafka_partitions:
            raise ValueError(
                f"{self.topic}: {len(self.own)} symbols of their own{' and three shared' if self.shared else ''} leave "
                f"none of {self.kafka_partitions} Kafka partitions for all others"
            )

    @property
    def has_tiers(self) -> bool:
        return bool(self.own or self.shared)

    @property
    def rest_from(self) -> int:
        """First Kafka partition of the symbols in no tier."""
        return len(self.own) + (SHARED_PARTITIONS if self.shared else 0)

    def place(self, symbol: str, key: bytes) -> int:
        """Kafka partition of a symbol; BY_KEY where the client's own hash decides."""
        if not self.has_tiers:
            return BY_KEY
        if symbol in self.own:
            return self.own.index(symbol)
        if symbol in self.shared:
            return len(self.own) + _hashed(key, SHARED_PARTITIONS)
        return self.rest_from + _hashed(key, self.kafka_partitions - self.rest_from)

    def place_of(self, key: bytes | None) -> int:
        """Kafka partition of a key EXCHANGE.SYMBOL; BY_KEY for any other key."""
        _, separator, symbol = (key or b"").decode("utf-8", "replace").partition(".")
        return self.place(symbol, key) if key and separator else BY_KEY


class Partitioner:
    """The places of symbols while a feed runs. A context manager: inside, no other layout is taken."""

    def __init__(
        self, settings: Settings, feeds: Iterable[Feed], log: KafkaLog, committed: Committed | None = None
    ) -> None:
        """committed: offsets the lake holds; without them no layout can change. Raises Misconfigured."""
        self._layouts = {layout.topic: layout for layout in load_layouts(settings, feeds)}
        self._folder = settings.home / FOLDER
        self._log = log
        self._committed = committed
        self._held = ExitStack()
        self.place = lru_cache(maxsize=_SYMBOLS_MAX)(self._place)

    def __enter__(self) -> Self:
        """Take the configured layouts. Raises Misconfigured when one differs and may not be taken now, Unreachable."""
        with ExitStack() as opening:
            for layout in self._layouts.values():
                self._hold(layout, opening)
            self._held = opening.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._held.close()

    def _place(self, topic: str, exchange: str, symbol: str) -> tuple[bytes, int]:
        key = f"{exchange}.{symbol}".encode()
        return key, self._layouts[topic].place(symbol, key)

    def place_of(self, topic: str, key: bytes | None) -> int:
        """Kafka partition of a record that has a key already."""
        return self._layouts[topic].place_of(key)

    def _hold(self, layout: Layout, held: ExitStack) -> None:
        """Share the statement of a topic with the other feeds, after changing it if that must and can be."""
        self._folder.mkdir(parents=True, exist_ok=True)
        statement = self._folder / f"{layout.topic}.json"
        lock = held.enter_context((self._folder / f"{layout.topic}.lock").open("a"))
        deadline = time.monotonic() + _TAKING_SECONDS_MAX
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _stated(statement) == layout:
                return
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._change(_stated(statement), layout)
                _state(statement, layout)
                continue
            # the lock is lost now: whoever starts at the same moment may have it, and may want the same
            if time.monotonic() > deadline:
                raise Misconfigured(
                    f"{layout.topic}: partitions.yaml says another layout than the feeds that run; stop them first, "
                    "or take the change back"
                )
            time.sleep(_TAKING_STEP_SECONDS)

    def _change(self, before: Layout | None, layout: Layout) -> None:
        """Make sure that a layout may be taken now. Raises Misconfigured."""
        unread = self._unread(layout) if before or layout.has_tiers else []
        if unread and before not in (None, layout):
            raise Misconfigured(
                f"{layout.topic}: partitions.yaml or feeds.yaml changed while {sum(r.rows_max for r in unread):,} "
                f"records are not in the lake (Kafka partitions {_numbers(unread)}); a symbol would have unread "
                "records in two of them. Take the change back, or let ingestion catch up first"
            )
        if unread and before is None:
            self._check_places(layout, unread)

    def _unread(self, layout: Layout) -> list[OffsetRange]:
        """What the lake does not hold of a topic. Raises Misconfigured when nobody says what it holds."""
        marks = {p: held for (_, p), held in self._log.watermarks([layout.topic]).items()}
        if marks and len(marks) < layout.kafka_partitions:
            raise Misconfigured(
                f"{layout.topic} has {len(marks)} Kafka partitions, feeds.yaml says {layout.kafka_partitions}"
            )
        if not any(held.high for held in marks.values()):
            return []
        if self._committed is None:
            raise Misconfigured(f"{layout.topic}: a layout is only taken by a feed that knows what the lake committed")
        known = self._committed(layout.topic)
        left = {p: waiting(known.get(p, 0), held.low, held.high) for p, held in marks.items()}
        return [OffsetRange(layout.topic, p, marks[p].high - n, marks[p].high) for p, n in left.items() if n]

    def _check_places(self, layout: Layout, unread: list[OffsetRange]) -> None:
        """Every unread record must lie where the layout puts its symbol. Raises Misconfigured."""
        for batch in self._log.read(unread, rows_max=_KEYS_AT_ONCE):
            for records in batch.records:
                keys = [envelope.key for envelope in records.envelopes]
                for kafka_partition, key in set(zip(records.kafka_partitions.tolist(), keys, strict=True)):
                    if (place := layout.place_of(key)) not in (BY_KEY, kafka_partition):
                        raise Misconfigured(
                            f"{layout.topic}: unread records of {key!r} lie in Kafka partition {kafka_partition}, by "
                            f"partitions.yaml they belong into {place}: let ingestion catch up before this home feeds"
                        )


def load_layouts(settings: Settings, feeds: Iterable[Feed]) -> list[Layout]:
    """The layout of each feed's topic by config/partitions.yaml. Raises Misconfigured."""
    path = settings.config / "partitions.yaml"
    try:
        document = yaml.safe_load(path.read_text()) if path.exists() else {}
        topics: Mapping[str, Any] = (document or {}).get("topics") or {}
        return [_layout(feed, topics.get(feed.topic) or {}) for feed in feeds]
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise Misconfigured(f"{path}: {error}") from error


def _layout(feed: Feed, tiers: Mapping[str, Any]) -> Layout:
    unknown = tiers.keys() - {"own", "shared"}
    if unknown:
        raise ValueError(f"{feed.topic}: {', '.join(sorted(unknown))}: expected own and shared")
    own, shared = (tuple(str(symbol) for symbol in tiers.get(tier) or ()) for tier in ("own", "shared"))
    return Layout(feed.topic, feed.kafka_partitions, own, shared)


def _numbers(ranges: Iterable[OffsetRange]) -> str:
    return ", ".join(str(r.kafka_partition) for r in ranges)


def _stated(statement: Path) -> Layout | None:
    """The layout in force; None where none was stated."""
    try:
        told = json.loads(statement.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Misconfigured(f"{statement}: {error}; remove it once everything sent is in the lake") from None
    return Layout(told["topic"], told["kafka_partitions"], tuple(told["own"]), tuple(told["shared"]))


def _state(statement: Path, layout: Layout) -> None:
    fresh = statement.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(layout), indent=2) + "\n")
    fresh.replace(statement)


def _hashed(key: bytes, partitions: int) -> int:
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Kafka's hash of a key: MurmurHash2, 32 bits, its seed."""
    found = _SEED ^ len(data)
    whole = len(data) & ~3
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        mixed = word * _MIX & _MASK
        found = (found * _MIX & _MASK) ^ ((mixed ^ mixed >> 24) * _MIX & _MASK)
    if whole < len(data):
        found = (found ^ int.from_bytes(data[whole:], "little")) * _MIX & _MASK
    found = (found ^ found >> 13) * _MIX & _MASK
    return found ^ found >> 15
