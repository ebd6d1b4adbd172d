"""Dead letters into Kafka again: the bytes as they were, and a statement of where the log took each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Self
from uuid import uuid4

from k2_core.feeds import Feed
from k2_core.letters import REPLAY_HEADER, REPLAYED, Delivery, Place
from k2_core.records import Header
from k2_feeds.backlog import Backlog, Committed
from k2_feeds.coverage import ALL, COVERAGE_FEED, EXCHANGE, Stamp, Tally, statement
from k2_feeds.outcomes import Row
from k2_feeds.partitioner import Partitioner
from k2_feeds.producer import FLUSH_SECONDS_MAX, FeedProducer
from k2_resources import clock
from k2_resources.kafka import KafkaLog, LogWriter
from k2_resources.settings import Settings

LETTERS_PER_STATEMENT = 500
"""Letters sent before their deliveries are stated: what a crash in between sends a second time."""


@dataclass(frozen=True)
class Original:
    """A record as it came, and where it died."""

    place: Place
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]


class Replay:
    """One replay: sends originals to their topics and states every delivery on k2.coverage. A context manager.

    A crash after a delivery and before its statement leaves a letter that looks as if it was never sent; the next
    replay sends it again, and its natural key makes the two records one row.
    """

    def __init__(self, settings: Settings, feeds: Iterable[Feed], *, by: str, committed: Committed | None) -> None:
        """by: who replays, for the statement. committed: offsets the lake holds, needed on the embedded broker."""
        self.collection_id = uuid4().hex
        self._settings = settings
        self._feeds = {feed.topic: feed for feed in feeds}
        self._by = by
        self._committed = committed
        self._open = ExitStack()
        self._room: dict[str, int] = {}

    def __enter__(self) -> Self:
        """Connect. Raises Misconfigured, Unreachable, SchemaUnavailable, BadInput."""
        coverage = [feed for feed in self._feeds.values() if feed.name == COVERAGE_FEED]
        producer = FeedProducer(self._settings, coverage, committed=self._committed)
        self._statements = self._open.enter_context(producer)
        log = KafkaLog(self._settings.bootstrap(), timeout_seconds=self._settings.kafka_timeout_seconds)
        partitioner = Partitioner(self._settings, self._feeds.values(), log, self._committed)
        self._place_of = self._open.enter_context(partitioner).place_of
        self._writer = self._open.enter_context(LogWriter(self._settings.bootstrap()))
        self._backlog = self._guard(log)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.__exit__(*error)  # type: ignore[arg-type]

    def send(self, originals: Iterable[Original], epochs: Mapping[str, int]) -> list[Delivery]:
        """Send originals, wait for each acknowledgement, state each delivery. epochs: topic -> its epoch now.

        Raises Unreachable; what was delivered before is stated as far as the broker still takes it.
        """
        deliveries: list[Delivery] = []
        left = iter(originals)
        while some := list(islice(left, LETTERS_PER_STATEMENT)):
            deliveries += self._send(some, epochs)
        return deliveries

    def _send(self, originals: list[Original], epochs: Mapping[str, int]) -> list[Delivery]:
        deliveries: list[Delivery] = []
        try:
            for original in originals:
                self._take_room(original)
                noted = partial(_note, deliveries, original.place, epochs[original.place.topic])
                header = (REPLAY_HEADER, str(original.place).encode())
                self._writer.send(
                    original.place.topic,
                    original.key,
                    original.value,
                    headers=[*original.headers, header],
                    on_acknowledged=noted,
                    partition=self._place_of(original.place.topic, original.key),
                )
            self._writer.flush(FLUSH_SECONDS_MAX)
        finally:
            self._state(deliveries)
        return deliveries

    def _state(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self._statements.send(self._statement(self._feeds[delivery.letter.topic], delivery), EXCHANGE)
        self._statements.flush()

    def _statement(self, feed: Feed, delivery: Delivery) -> Row:
        stamp = Stamp(self.collection_id, f"dead letters, by {self._by}", clock.now_us())
        told = {"letter": str(delivery.letter), "delivered": str(delivery.delivered)}
        return statement(
            feed, Tally(feed.name, ALL, rows=1), REPLAYED, stamp, name=f"{delivery.letter}:{REPLAYED}", **told
        )

    def _guard(self, log: KafkaLog) -> Backlog | None:
        if self._committed is None or not self._settings.is_embedded:
            return None
        return Backlog(log, self._writer, self._committed, bytes_max=self._settings.embedded_backlog_bytes_max)

    def _take_room(self, original: Original) -> None:
        """Wait for room in the embedded broker, which drops what it cannot hold."""
        if self._backlog is None:
            return
        self._backlog.sent(len(original.key or b"") + len(original.value or b""))
        topic = original.place.topic
        if self._room.get(topic, 0) < 1:
            self._room[topic] = self._backlog.room(topic)
        self._room[topic] -= 1


def _note(deliveries: list[Delivery], letter: Place, epoch: int, kafka_partition: int, offset: int) -> None:
    deliveries.append(Delivery(letter, Place(letter.topic, epoch, kafka_partition, offset)))
