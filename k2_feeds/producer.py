"""Rows into Kafka: Avro by the contract, Confluent wire format, every record followed to its acknowledgement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from k2_core.avro import avro_schema
from k2_core.errors import Misconfigured
from k2_core.feeds import Feed
from k2_feeds.backlog import STALL_SECONDS_MAX, Backlog, Committed, Waiting
from k2_feeds.batches import Batch, records_of
from k2_feeds.encoding import ColumnEncoder, Encoder
from k2_feeds.outcomes import Row
from k2_feeds.partitioner import Partitioner
from k2_resources.kafka import KafkaLog, LogWriter
from k2_resources.registry import Registry
from k2_resources.settings import Settings

__all__ = ["FLUSH_SECONDS_MAX", "Encoder", "FeedProducer"]

FLUSH_SECONDS_MAX = 150.0
"""Longer than the client keeps trying, so that a flush that gives up knows the fate of every record."""
ROWS_AT_ONCE_MAX = 20_000
"""Rows of a batch encoded at once: some 10 MB while they are."""

RowEncoder = Callable[[Mapping[str, Any]], bytes]
EncoderOf = Callable[[Feed, Registry], RowEncoder | None]
"""How rows of a feed that come one by one are written, its schema registered; None is as its contract says."""


@dataclass
class _Lane:
    """One topic being sent to: how to write its records, and how many more before looking for room."""

    topic: str
    encode: RowEncoder
    encode_all: Callable[[pa.RecordBatch], list[bytes]]
    room: int = 0


class FeedProducer:
    """Sends rows of some feeds. A context manager; leaving it without an error flushes.

    On the embedded broker it waits while the lake is behind. `sent` and `acknowledged` count every record. Not to be
    shared between threads.
    """

    def __init__(
        self,
        settings: Settings,
        feeds: Iterable[Feed],
        *,
        committed: Committed | None = None,
        stall_seconds_max: float = STALL_SECONDS_MAX,
        on_wait: Callable[[Waiting], None] | None = None,
        encoder_of: EncoderOf | None = None,
    ) -> None:
        """committed: offsets the lake holds, needed on the embedded broker. Raises Misconfigured without it."""
        self._settings = settings
        self._feeds = tuple(feeds)
        self._committed = committed
        self._stall_seconds_max = stall_seconds_max
        self._on_wait = on_wait
        self._encoder_of = encoder_of or (lambda feed, registry: None)
        self._open = ExitStack()
        if settings.is_embedded and committed is None:
            raise Misconfigured("the embedded broker drops what is not ingested in time: say what the lake committed")

    def __enter__(self) -> Self:
        """Register the schemas and connect. Raises BadInput, Unreachable, SchemaUnavailable, Misconfigured."""
        bootstrap = self._settings.bootstrap()
        with closing(Registry(self._settings.registry())) as registry:
            self._lanes = {feed.name: _lane(feed, registry, self._encoder_of) for feed in self._feeds}
        log = KafkaLog(bootstrap, timeout_seconds=self._settings.kafka_timeout_seconds)
        with ExitStack() as opening:
            partitioner = Partitioner(self._settings, self._feeds, log, self._committed)
            self._place = opening.enter_context(partitioner).place
            self._writer = opening.enter_context(LogWriter(bootstrap, offsets=False))
            self._backlog = self._guard(log)
            self._open = opening.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.__exit__(kind, error, at)

    @property
    def sent(self) -> int:
        return self._writer.sent

    @property
    def acknowledged(self) -> int:
        return self._writer.acknowledged

    @property
    def writer(self) -> LogWriter:
        """What counts the records on their way; for metrics."""
        return self._writer

    def send(self, row: Row, exchange: str) -> None:
        """Queue one row under the key EXCHANGE.SYMBOL. Raises Unreachable once any record has failed."""
        lane = self._lanes[row.feed]
        key, kafka_partition = self._place(lane.topic, exchange, row.symbol)
        value = lane.encode(row.record)
        if self._backlog is not None:
            self._take_room(lane, self._backlog, len(key) + len(value))
        self._raise_failures()
        self._writer.send(lane.topic, key, value, partition=kafka_partition)

    def send_some(self, batch: Batch, exchange: str) -> int:
        """Queue the first rows of a batch, as many as there is room for. Returns how many: at least one.

        Raises Unreachable once any record has failed.
        """
        lane = self._lanes[batch.feed]
        symbols = batch.columns.column("symbol")
        places = [self._place(lane.topic, exchange, symbol) for symbol in symbols.dictionary.to_pylist()]
        keys, partitions = [key for key, _ in places], [kafka_partition for _, kafka_partition in places]
        n = min(len(batch), ROWS_AT_ONCE_MAX)
        if self._backlog is not None:
            lane.room = lane.room if lane.room > 0 else self._backlog.room(lane.topic)
            n = min(n, lane.room)
        values = lane.encode_all(batch.columns.slice(0, n))
        codes = symbols.indices.to_numpy()[:n].tolist()
        if self._backlog is not None:
            self._backlog.sent(sum(map(len, values)) + sum(len(keys[code]) for code in codes), n)
            lane.room -= n
        self._raise_failures()
        self._writer.send_all(lane.topic, [keys[c] for c in codes], values, [partitions[c] for c in codes])
        return n

    def flush(self, seconds_max: float = FLUSH_SECONDS_MAX) -> None:
        """Wait until every record is acknowledged. Raises Unreachable with the counts."""
        self._writer.flush(seconds_max)

    def _raise_failures(self) -> None:
        if self._writer.failed:
            self._writer.flush(0)

    def _guard(self, log: KafkaLog) -> Backlog | None:
        if self._committed is None or not self._settings.is_embedded:
            return None
        return Backlog(
            log,
            self._writer,
            self._committed,
            bytes_max=self._settings.embedded_backlog_bytes_max,
            stall_seconds_max=self._stall_seconds_max,
            on_wait=self._on_wait,
        )

    def _take_room(self, lane: _Lane, backlog: Backlog, payload_bytes: int) -> None:
        backlog.sent(payload_bytes)
        if lane.room < 1:
            lane.room = backlog.room(lane.topic)
        lane.room -= 1


def _lane(feed: Feed, registry: Registry, encoder_of: EncoderOf) -> _Lane:
    schema_id = registry.register(feed.subject, avro_schema(feed.table))
    if encode := encoder_of(feed, registry):
        return _Lane(feed.topic, encode, lambda rows: [encode(record) for record in records_of(rows)])
    return _Lane(feed.topic, Encoder(feed.table, schema_id), ColumnEncoder(feed.table, schema_id))
