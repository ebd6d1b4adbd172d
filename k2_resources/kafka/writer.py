"""Acknowledged writes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from k2_core.errors import BadInput, K2Error, Unreachable
from k2_core.records import Header
from k2_resources.kafka.client import CLIENT, Message

Acknowledged = Callable[[int, int], None]
"""Kafka partition and offset of a record that the broker has."""

BY_KEY = -1
"""Instead of a Kafka partition: the one the key hashes to."""
_FLUSH_SECONDS_MAX = 30.0
_FULL_QUEUE_SECONDS = 0.1
_STATISTICS_MILLISECONDS = 200
_DELIVERY_SECONDS_MAX = 120
"""A broker away for longer turns queued records into failures, which are counted and raised."""

_PRODUCER = {
    **CLIENT,
    "enable.idempotence": True,
    "acks": "all",
    "compression.type": "lz4",
    "linger.ms": 20,
    "partitioner": "murmur2_random",  # what Java producers do with a key, so both agree on its partition
    "queue.buffering.max.kbytes": 131_072,
    "queue.buffering.max.messages": 200_000,  # with the bytes above: some 130 MB wait here at most
    "message.timeout.ms": _DELIVERY_SECONDS_MAX * 1_000,
    "statistics.interval.ms": _STATISTICS_MILLISECONDS,
}

log = structlog.get_logger(__name__)


class LogWriter:
    """Idempotent writes to one cluster, every record followed to its acknowledgement.

    A context manager; not to be shared between threads. Leaving the block flushes, and raises Unreachable unless
    every record was acknowledged.
    """

    def __init__(self, bootstrap: str, *, offsets: bool = True, config: Mapping[str, Any] | None = None) -> None:
        """offsets: whether to learn where each record was put; without, records cost half and are counted all the same.

        config: further librdkafka properties; they win over K2's own.
        """
        self.bootstrap = bootstrap
        self.exit_seconds_max = _FLUSH_SECONDS_MAX
        """How long leaving the block may take; who sends again elsewhere what is left has no time to lose."""
        self.sent = 0
        self.failed = 0
        self.full_queue_waits = 0
        """How often sending waited because the client's queue was full."""
        self.last_error = ""
        self.delivered_offsets: dict[tuple[str, int], int] = {}
        """(topic, Kafka partition) -> offset after the last record acknowledged there."""
        self.payload_bytes = 0
        """Keys and values of the records put on the wire, uncompressed, as of the last statistics."""
        self.bytes_on_wire = 0
        """Bytes sent to the brokers for them, as of the last statistics."""
        self._tells_offsets = offsets
        self._delivered = 0
        self._settled = 0
        callbacks: dict[str, Any] = {"stats_cb": self._on_statistics, "error_cb": self._on_error}
        if not offsets:
            callbacks |= {"on_delivery": self._on_delivery, "delivery.report.only.error": True}
        self._producer = Producer({**_PRODUCER, "bootstrap.servers": bootstrap, **callbacks, **(config or {})})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        try:
            self.flush(self.exit_seconds_max)
        except Unreachable as unacknowledged:
            if error is None:
                raise
            error.add_note(str(unacknowledged))
        finally:
            # what is still queued would otherwise hold up the end of the process
            self._producer.purge()
            self._producer.poll(0)

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Sequence[Header] | None = None,
        timestamp_ms: int | None = None,
        on_acknowledged: Acknowledged | None = None,
        partition: int = BY_KEY,
    ) -> None:
        """Queue one record, waiting while the queue is full.

        on_acknowledged: told where the broker put it, by a writer that learns offsets. Raises BadInput when it is too
        large for any broker, Unreachable.
        """
        optional: dict[str, Any] = {} if timestamp_ms is None else {"timestamp": timestamp_ms}
        if self._tells_offsets:
            tell = self._on_delivery if on_acknowledged is None else partial(self._on_delivery, tell=on_acknowledged)
            optional["on_delivery"] = tell
        else:
            assert on_acknowledged is None, "this writer does not learn offsets"
        if headers:
            optional["headers"] = list(headers)
        self._queue(topic, value, key, partition, **optional)
        self.sent += 1
        self._producer.poll(0)

    def send_all(self, topic: str, keys: Iterable[bytes], values: Sequence[bytes], partitions: Iterable[int]) -> None:
        """Queue many records in their order, waiting while the queue is full; `sent` counts as far as it came.

        Only for a writer that does not learn offsets. Raises BadInput for a record too large for any broker,
        Unreachable.
        """
        assert not self._tells_offsets, "a writer that learns offsets sends one by one"
        produce, queued = self._producer.produce, 0
        try:
            for key, value, partition in zip(keys, values, partitions, strict=True):
                try:
                    produce(topic, value, key, partition)
                except (BufferError, KafkaException):
                    self._queue(topic, value, key, partition)
                queued += 1
        finally:
            self.sent += queued
        self._producer.poll(0)

    @property
    def acknowledged(self) -> int:
        """Records the broker has; while some are on their way, perhaps a few less."""
        if self._tells_offsets:
            return self._delivered
        # an event that waits to be told counts as a record on its way: less, never more
        return max(self._settled, self.sent - self.failed - len(self._producer))

    @property
    def queued(self) -> int:
        """Records the client holds: not sent yet, or not yet acknowledged."""
        return self.sent - self.failed - self.acknowledged

    def flush(self, seconds_max: float) -> None:
        """Wait until every record sent is acknowledged. Raises Unreachable, with the counts, when some are not."""
        deadline = time.monotonic() + seconds_max
        while self._producer.flush(max(0.0, deadline - time.monotonic())) and time.monotonic() < deadline:
            pass  # statistics that came meanwhile also count as something left
        if not len(self._producer):
            self._settled = self.sent - self.failed
        if self.acknowledged < self.sent:
            raise Unreachable(
                f"{self.bootstrap}: {self.sent - self.acknowledged:,} of {self.sent:,} records not acknowledged, "
                f"{self.failed:,} of them failed; last error: {self.last_error or 'none'}. Send them again"
            )

    def poll(self, seconds_max: float = 0.0) -> None:
        """Take in acknowledgements and statistics that arrived, waiting at most so long for the first."""
        self._producer.poll(seconds_max)

    def _queue(self, topic: str, value: bytes | None, key: bytes | None, partition: int, **optional: Any) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, partition, **optional)
                return
            except BufferError:
                if not self.full_queue_waits:
                    log.warning("the client's queue is full; sending waits for the broker", topic=topic)
                self.full_queue_waits += 1
                self._producer.poll(_FULL_QUEUE_SECONDS)
            except KafkaException as error:
                raise self._rejected(topic, value, error.args[0]) from error

    def _rejected(self, topic: str, value: bytes | None, error: KafkaError) -> K2Error:
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return BadInput(f"{topic}: a record of {len(value or b''):,} bytes is larger than a broker takes")
        return Unreachable(f"{self.bootstrap}: {topic}: {error.str()} ({error.name()}); {self.last_error}")

    def _on_delivery(self, error: KafkaError | None, message: Message, tell: Acknowledged | None = None) -> None:
        if error is not None:
            self.failed += 1
            self.last_error = f"{message.topic()}: {error.str()} ({error.name()})"
            return
        self._delivered += 1
        at = (message.topic(), message.partition())
        self.delivered_offsets[at] = max(self.delivered_offsets.get(at, 0), message.offset() + 1)
        if tell is not None:
            tell(message.partition(), message.offset())

    def _on_error(self, error: KafkaError) -> None:
        self.last_error = f"{error.str()} ({error.name()})"

    def _on_statistics(self, text: str) -> None:
        statistics = json.loads(text)
        self.payload_bytes = statistics["txmsg_bytes"]
        self.bytes_on_wire = statistics["tx_bytes"]
