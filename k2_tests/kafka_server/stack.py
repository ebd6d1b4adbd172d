"""A home whose feed of trades is a topic of its own, on any broker, with every record sent to it in a ledger."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from k2_assets.engine import Engine, ingest_until_caught_up
from k2_core.contracts import TRADES
from k2_core.feeds import Feed
from k2_resources.lake.verify import Proof
from k2_resources.settings import Settings
from k2_tests.kafka_server.ledger import Ledger
from k2_tests.kafka_server.server import KafkaServer
from k2_tests.stacks import Stack
from k2_tests.ticks import FEEDS, encoded, trade

FLUSH_SECONDS_MAX = 60.0
_topics = itertools.count()

PRODUCER = {
    "enable.idempotence": True,
    "linger.ms": 5,
    "compression.type": "lz4",
    "log_level": 0,
    "reconnect.backoff.max.ms": 500,
    "message.max.bytes": 32 << 20,
}


@dataclass
class LedgerStack:
    """A stack with one feed of trades whose every record is in the ledger."""

    stack: Stack
    feed: Feed
    ledger: Ledger
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def settings(self) -> Settings:
        return self.stack.settings

    @property
    def topic(self) -> str:
        return self.feed.topic

    def trades(self, count: int, **changes: Any) -> list[bytes]:
        """So many trades, as bytes, whose ids were not used before."""
        some = itertools.islice(self.numbers, count)
        return [encoded(trade(n, **changes), TRADES, self.ledger.schema_id) for n in some]

    def producer(self, **config: Any) -> Producer:
        """A producer on this stack's broker; config: librdkafka's, dots written as underscores."""
        given = {name.replace("_", "."): value for name, value in config.items()}
        return Producer({**PRODUCER, "bootstrap.servers": self.settings.bootstrap(), **given})

    def send(self, values: Iterable[bytes | None], *, partition: int = -1, **config: Any) -> None:
        """Produce records and wait until all are acknowledged. partition: -1 spreads them."""
        producer = self.producer(**config)
        self.queue(producer, values, partition=partition)
        assert producer.flush(FLUSH_SECONDS_MAX) == 0

    def queue(self, producer: Producer, values: Iterable[bytes | None], *, partition: int = -1) -> None:
        """Hand records to a producer whose acknowledgements go to the ledger."""
        for number, value in enumerate(values):
            key = b"key %d" % (number % 64)
            producer.produce(self.topic, value, key, partition=partition, on_delivery=self.ledger.on_delivery)
            producer.poll(0)

    def engine(self) -> Engine:
        """An engine as a process that just started would have it."""
        return self.stack.engine()

    def ingest(self) -> Engine:
        """Ingest until nothing waits, as a process that just started."""
        engine = self.engine()
        ingest_until_caught_up(engine)
        return engine

    def prove(self) -> Proof:
        """Prove table and dead letters against the ledger."""
        return self.ledger.prove(self.engine())

    def elsewhere(self, **settings: Any) -> LedgerStack:
        """The same feed and ledger with other settings."""
        return replace(self, stack=self.stack.elsewhere(**settings))


@dataclass
class RealStack(LedgerStack):
    """The same on a real Kafka, with what only that can do."""

    server: KafkaServer = field(kw_only=True)

    def watermarks(self) -> dict[int, tuple[int, int]]:
        """[low, high) of each Kafka partition as a committed read sees it."""
        marks = self.engine().kafka.watermarks([self.topic])
        return {p: (m.low, m.high) for (_, p), m in sorted(marks.items())}

    def readable(self) -> set[int]:
        """Offsets of Kafka partition 0 that any consumer sees, asked of the bare client."""
        config = {"bootstrap.servers": self.server.bootstrap, "group.id": "any", "enable.partition.eof": True}
        consumer = Consumer({**config, "auto.offset.reset": "earliest", "enable.auto.commit": False})
        consumer.assign([TopicPartition(self.topic, 0, 0)])
        offsets: set[int] = set()
        try:
            while True:
                for message in consumer.consume(1_000, 5.0):
                    if message.error() is None:
                        offsets.add(message.offset())
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        return offsets
        finally:
            consumer.close()

    def delete_records(self, partition: int, before: int) -> None:
        """Trim the head of one Kafka partition, as retention does."""
        asked = TopicPartition(self.topic, partition, before)
        for answer in self.server.admin.delete_records([asked]).values():
            assert answer.result(30).low_watermark == before

    def recreate(self, partitions: int) -> None:
        """Delete the topic and make it anew, empty; the ledger goes on in the next epoch."""
        self.delete_topic()
        self.server.create_topic(self.topic, partitions)
        self.ledger.epoch += 1

    def delete_topic(self) -> None:
        """Delete the topic and wait until it is gone."""
        self.server.admin.delete_topics([self.topic])[self.topic].result(30)
        while self.topic in self.server.admin.list_topics(timeout=10).topics:
            pass


@contextmanager
def ledger_stack(home: Path, bootstrap: str, registry_url: str, **settings: Any) -> Iterator[LedgerStack]:
    """A home on a broker that has the topics of config/feeds.yaml."""
    with ExitStack() as opened:
        settings = {"home": home, "kafka_bootstrap": bootstrap, "registry_url": registry_url, **settings}
        stack = Stack(Settings(**settings), opened)
        feed = FEEDS["binance-trades"]
        yield LedgerStack(stack, feed, Ledger(stack.register(feed)))


@contextmanager
def real_stack(
    home: Path,
    server: KafkaServer,
    registry_url: str,
    *,
    partitions: int = 4,
    topic_config: Mapping[str, str] | None = None,
    **settings: Any,
) -> Iterator[RealStack]:
    """A home on a topic of its own on a real Kafka."""
    feed = replace(FEEDS["binance-trades"], topic=f"trades.{next(_topics)}", kafka_partitions=partitions)
    server.create_topic(feed.topic, partitions, topic_config)
    config = home / "config"
    config.mkdir(parents=True)
    (config / "feeds.yaml").write_text(yaml.safe_dump({"feeds": [feed.entry()]}))
    places = {"home": home / "k2", "config": config, "kafka_bootstrap": server.bootstrap, "registry_url": registry_url}
    with ExitStack() as opened:
        stack = Stack(Settings(**{"kafka_timeout_seconds": 5.0, **places, **settings}), opened)
        yield RealStack(stack, feed, Ledger(stack.register(feed)), server=server)
