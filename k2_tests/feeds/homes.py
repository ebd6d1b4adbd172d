"""A home whose broker and registry run, as `k2 up` would leave it, and what is in its log."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro

from k2_core.avro import avro_schema
from k2_core.feeds import Feed
from k2_core.offsets import OffsetRange
from k2_feeds.backlog import Committed
from k2_resources.kafka import KafkaLog
from k2_resources.settings import Settings, load_feeds

FEEDS = {feed.name: feed for feed in load_feeds(Settings())}
TOPICS = {feed.topic: feed.kafka_partitions for feed in FEEDS.values()}
WIRE_PREFIX_BYTES = 5


def home_on(folder: Path, broker: str, registry_url: str) -> Settings:
    """Settings of a home with the addresses of running servers."""
    settings = Settings(home=folder, kafka_bootstrap=None, registry_url=None)
    settings.endpoints_file.parent.mkdir(parents=True)
    settings.endpoints_file.write_text(json.dumps({"kafka": broker, "registry": registry_url}))
    return settings


def caught_up(broker: str) -> Committed:
    """A lake that holds everything the log holds."""
    log = KafkaLog(broker)
    return lambda topic: {partition: held.high for (_, partition), held in log.watermarks([topic]).items()}


def ends(broker: str) -> dict[tuple[str, int], int]:
    """Where every topic ends now."""
    return {at: held.high for at, held in KafkaLog(broker).watermarks(TOPICS).items()}


def since(broker: str, before: dict[tuple[str, int], int], feed: Feed) -> list[tuple[bytes, dict[str, Any]]]:
    """Keys and records of one feed that came after `before`, in the order of each Kafka partition."""
    now = ends(broker)
    ranges = [
        OffsetRange(topic, partition, start, now[topic, partition])
        for (topic, partition), start in before.items()
        if topic == feed.topic and now[topic, partition] > start
    ]
    schema = fastavro.parse_schema(avro_schema(feed.table))
    if not ranges:
        return []
    return [
        (envelope.key, decoded(value, schema))
        for batch in KafkaLog(broker).read(ranges, rows_max=100_000)
        for records in batch.records
        for envelope, value in zip(records.envelopes, records.values, strict=True)
    ]


def decoded(value: bytes, schema: Any) -> dict[str, Any]:
    """One wire-format value as fastavro reads it, logical types included."""
    found = fastavro.schemaless_reader(BytesIO(value[WIRE_PREFIX_BYTES:]), schema, schema)
    assert isinstance(found, dict)
    return found
