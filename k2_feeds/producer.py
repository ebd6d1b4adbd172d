"""Rows into Kafka: Avro by the contract, Confluent wire format, every record followed to its acknowledgement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from io import BytesIO
from types import TracebackType
from typing import Any, Self

import fastavro
import pyarrow as pa

from k2_core.avro import avro_schema
from k2_core.contracts import Table
from k2_core.errors import Misconfigured
from k2_core.feeds import Feed
from k2_feeds.backlog import STALL_SECONDS_MAX, Backlog, Committed, Waiting
from k2_feeds.outcomes import Row
from k2_feeds.values import unscaled
from k2_resources.kafka import KafkaLog, LogWriter
from k2_resources.registry import Registry
from k2_resources.settings import Settings

_MAGIC = b"\0"
_SCHEMA_ID_BYTES = 4
FLUSH_SECONDS_MAX = 150.0
"""Longer than the client keeps trying, so that a flush that gives up knows the fate of every record."""


class Encoder:
    """Writes rows of one contract as Confluent Avro. schema_id: what the registry gave to that schema."""

    def __init__(self, table: Table, schema_id: int) -> None:
        self._schema = fastavro.parse_schema(avro_schema(table))
        self._prefix = _MAGIC + schema_id.to_bytes(_SCHEMA_ID_BYTES, "big")
        self._decimals = tuple(c.name for c in table.feed_columns if pa.types.is_decimal(c.type))

    def __call__(self, record: Mapping[str, Any]) -> bytes:
        """Encode one record. Decimals go as the shortest two's complement of the unscaled value."""
        fields = dict(record)
        for name in self._decimals:
            if fields[name] is not None:
                whole = unscaled(fields[name])
                fields[name] = whole.to_bytes(whole.bit_length() // 8 + 1, "big", signed=True)
        out = BytesIO()
        out.write(self._prefix)
        fastavro.schemaless_writer(out, self._schema, fields)
        return out.getvalue()


@dataclass
class _Lane:
    """One topic being sent to: how to write its records, and how many more before looking for room."""

    topic: str
    encode: Encoder
    room: int = 0


class FeedProducer:
    """Sends rows of some feeds. A context manager; leaving it without an error flushes.

    On the embedded broker it waits while the lake is behind. `sent` and `acknowledged` count every record.
    """

    def __init__(
        self,
        settings: Settings,
        feeds: Iterable[Feed],
        *,
        committed: Committed | None = None,
        stall_seconds_max: float = STALL_SECONDS_MAX,
        on_wait: Callable[[Waiting], None] | None = None,
    ) -> None:
        """committed: offsets the lake holds, needed on the embedded broker. Raises Misconfigured without it."""
        self._settings = settings
        self._feeds = tuple(feeds)
        self._committed = committed
        self._stall_seconds_max = stall_seconds_max
        self._on_wait = on_wait
        self._open = ExitStack()
        if settings.is_embedded and committed is None:
            raise Misconfigured("the embedded broker drops what is not ingested in time: say what the lake committed")

    def __enter__(self) -> Self:
        """Register the schemas and connect. Raises BadInput, Unreachable, SchemaUnavailable, Misconfigured."""
        bootstrap = self._settings.bootstrap()
        with closing(Registry(self._settings.registry())) as registry:
            self._lanes = {feed.name: _lane(feed, registry) for feed in self._feeds}
        self._writer = self._open.enter_context(LogWriter(bootstrap))
        self._backlog = self._guard(bootstrap)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.__exit__(kind, error, at)

    @property
    def sent(self) -> int:
        return self._writer.sent

    @property
    def acknowledged(self) -> int:
        return self._writer.acknowledged

    def send(self, row: Row, exchange: str) -> None:
        """Queue one row under the key EXCHANGE.SYMBOL. Raises Unreachable once any record has failed."""
        lane = self._lanes[row.feed]
        key, value = f"{exchange}.{row.symbol}".encode(), lane.encode(row.record)
        if self._backlog is not None:
            self._take_room(lane, self._backlog, len(key) + len(value))
        if self._writer.failed:
            self._writer.flush(0)
        self._writer.send(lane.topic, key, value)

    def flush(self, seconds_max: float = FLUSH_SECONDS_MAX) -> None:
        """Wait until every record is acknowledged. Raises Unreachable with the counts."""
        self._writer.flush(seconds_max)

    def _guard(self, bootstrap: str) -> Backlog | None:
        if self._committed is None or not self._settings.is_embedded:
            return None
        log = KafkaLog(bootstrap, timeout_seconds=self._settings.kafka_timeout_seconds)
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


def _lane(feed: Feed, registry: Registry) -> _Lane:
    return _Lane(feed.topic, Encoder(feed.table, registry.register(feed.subject, avro_schema(feed.table))))
