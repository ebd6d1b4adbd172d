"""A small real stack for tests: broker, registry, lake and engine on one home, and a way to put records in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k2_assets.engine import Engine, open_engine
from k2_core.avro import avro_schema
from k2_core.feeds import Feed
from k2_resources.embedded_broker import embedded_broker
from k2_resources.kafka import LogWriter
from k2_resources.registry import Registry
from k2_resources.settings import Settings
from k2_tests.ticks import FEEDS, encoded

TOPICS = {feed.topic: feed.kafka_partitions for feed in FEEDS.values()}


@dataclass(frozen=True)
class Stack:
    settings: Settings

    opened: ExitStack

    def engine(self) -> Engine:
        return self.opened.enter_context(open_engine(self.settings))

    def elsewhere(self, **settings: str) -> Stack:
        """The same home, another server."""
        return Stack(self.settings.model_copy(update=settings), self.opened)

    def send(self, feed: Feed, records: Iterable[Mapping[str, Any]]) -> None:
        """Produce records as a feed would and wait until the broker has them."""
        schema_id = self.register(feed)
        self.send_bytes(feed, (encoded(r, feed.table, schema_id) for r in records))

    def register(self, feed: Feed) -> int:
        """Register the schema of a feed and give its id."""
        with closing(Registry(self.settings.registry())) as registry:
            return registry.register(feed.subject, avro_schema(feed.table))

    def send_bytes(self, feed: Feed, values: Iterable[bytes | None], key: bytes = b"BINANCE.BTCUSDT") -> None:
        """Produce whatever bytes there are."""
        with LogWriter(self.settings.bootstrap()) as writer:
            for value in values:
                writer.send(feed.topic, key, value)
            writer.flush(30)


@contextmanager
def stack(home: Path, registry_url: str) -> Iterator[Stack]:
    """A home with a broker of its own and the session's registry."""
    with embedded_broker(TOPICS) as bootstrap, ExitStack() as opened:
        yield Stack(Settings(home=home, kafka_bootstrap=bootstrap, registry_url=registry_url), opened)
