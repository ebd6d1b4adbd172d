"""Names of the table properties in which a table keeps what K2 knows of it. All later work builds on these names."""

from __future__ import annotations

from collections.abc import Mapping

from k2_core.offsets import Offsets, Position

PREFIX = "k2."
SHARD = 0
"""A shard is a fixed set of a topic's Kafka partitions; there is one until scale-out."""
CONTRACT_KEY = f"{PREFIX}contract"
SWEPT_KEY = f"{PREFIX}swept"
"""Number of the last orphan sweep; whoever planned before it may hold files that are gone."""
COMPACTED_KEY = f"{PREFIX}compacted"
"""Number of the last rewrite of data files; two planned from the same head take out the same files."""
CLOSES_KEY = f"{PREFIX}closes"
"""On audit.days: how many commits closed dates; each names the versions it goes on from by this number."""
_OFFSET = f"{PREFIX}offset."


def offset_key(topic: str, kafka_partition: int) -> str:
    return f"{_OFFSET}{topic}.{kafka_partition}"


def topic_key(topic: str) -> str:
    return f"{PREFIX}topic.{topic}"


def state_key(topic: str) -> str:
    return f"{PREFIX}state.{topic}.{SHARD}"


def paused_key(topic: str, kafka_partition: int) -> str:
    return f"{PREFIX}paused.{topic}.{kafka_partition}"


def collected_key(table: str) -> str:
    return f"{PREFIX}collected.{table}"


def offsets_in(properties: Mapping[str, str]) -> Offsets:
    """C as the properties of a head hold it."""
    found: dict[tuple[str, int], Position] = {}
    for key, value in properties.items():
        if key.startswith(_OFFSET):
            topic, _, kafka_partition = key[len(_OFFSET) :].rpartition(".")
            found[topic, int(kafka_partition)] = Position.parse(value)
    return Offsets(found)
