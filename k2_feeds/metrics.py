"""What a collection of any feed says of itself at /metrics: its own counts, read at each scrape, at no cost between.

Label sets are bounded: feeds are those of the command, reasons are fixed words, kinds beyond a hundred are counted
together; no symbol is a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from k2_core.errors import Misconfigured
from k2_feeds.collection import Collection
from k2_feeds.outcomes import Refusal
from k2_resources.kafka import LogWriter


class CollectionMetrics(Collector):
    """Every count of one collection: lines by what became of them, by feed or reason."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    def collect(self) -> Iterable[Metric]:
        """Read the counts."""
        rows = Counter({feed.name: 0 for feed in self._collection.feeds})
        for tally in list(self._collection.tallies.values()):
            rows[tally.feed] += tally.rows
        rejected = {str(reason): self._collection.reasons[reason] for reason in Refusal}
        yield _counter("k2_collection_rows", "Rows handed to the broker.", "feed", rows)
        yield _counter("k2_collection_rejected", "Lines nobody can read; they are kept.", "reason", rejected)
        yield _counter(
            "k2_collection_passed_over", "Lines that are none of ours.", "kind", dict(self._collection.passed_over)
        )


class WriterMetrics(Collector):
    """Every count of one Kafka client: records by how far they are."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer

    def collect(self) -> Iterable[Metric]:
        """Read the counts."""
        writer = self._writer
        counts = {
            "k2_producer_records_sent": ("Records given to the client.", writer.sent),
            "k2_producer_records_acknowledged": ("Records every replica has.", writer.acknowledged),
            "k2_producer_records_failed": ("Records the broker never took.", writer.failed),
            "k2_producer_queue_full": ("Times sending waited for room in the client's queue.", writer.full_queue_waits),
            "k2_producer_payload_bytes": ("Keys and values put on the wire, before compression.", writer.payload_bytes),
            "k2_producer_wire_bytes": ("Bytes sent to brokers.", writer.bytes_on_wire),
        }
        for name, (text, value) in counts.items():
            yield CounterMetricFamily(name, text, value)
        yield GaugeMetricFamily("k2_producer_queue_records", "Records in the client, on their way.", writer.queued)


@contextmanager
def serving(collectors: Iterable[Collector], host: str, port: int) -> Iterator[int]:
    """Serve /metrics while the block runs. Gives the port; 0 asks for any. Raises Misconfigured."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise Misconfigured(f"metrics on {host}:{port}: {error.strerror}; give --metrics-port another") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for word, value in values.items():
        family.add_metric((word,), value)
    return family
