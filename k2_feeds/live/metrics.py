"""What a live feed says of itself at /metrics beside its collection: read from its own state at each scrape.

Label sets are bounded: reasons and kinds are fixed words, and only the most silent symbols are named.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from k2_feeds.binance_live import NAME, LiveFeed
from k2_feeds.live.admission import State
from k2_feeds.live.links import REASONS

SYMBOLS_NAMED_MAX = 50
"""Symbols with a series of their own: those silent for longest. The rest is in the count of the stale."""


class LiveMetrics(Collector):
    """Every number of one feed, taken when asked."""

    def __init__(self, live: LiveFeed) -> None:
        self._live = live

    def collect(self) -> Iterable[Metric]:
        """Read the state of the feed."""
        yield from self._producing()
        yield from self._connections()
        yield from self._holes()
        yield from self._memory()
        yield from self._clocks()

    def _producing(self) -> Iterator[Metric]:
        producer = self._live.producer
        yield _counter("k2_feed_records_acknowledged", "Records the broker has.", producer.acknowledged)
        yield _counter("k2_feed_brokers_lost", "Times a producer had to be made anew.", producer.lost_brokers)

    def _connections(self) -> Iterator[Metric]:
        counts, breaker = self._live.intake.counts, self._live.admission.breaker
        yield _gauge("k2_feed_connections", "Connections that carry streams now.", counts.open)
        yield _counter("k2_feed_connection_attempts", "Attempts to connect.", counts.attempts)
        yield _counter("k2_feed_connection_failures", "Attempts that failed.", counts.failures)
        replaced = CounterMetricFamily(
            "k2_feed_connections_replaced", "Connections replaced, by reason.", labels=("feed", "reason")
        )
        for reason in REASONS:
            replaced.add_metric((NAME, reason), counts.replaced[reason])
        yield replaced
        state = GaugeMetricFamily("k2_feed_breaker", "1 for the state the breaker is in.", labels=("feed", "state"))
        for each in State:
            state.add_metric((NAME, each), float(breaker.state is each))
        yield state

    def _holes(self) -> Iterator[Metric]:
        counts = self._live.mending.counts
        yield _counter("k2_feed_holes", "Holes in trade ids, seen as they came to be.", counts.holes)
        yield _counter("k2_feed_ids_missing", "Ids in those holes.", counts.missing)
        yield _counter("k2_feed_trades_refetched", "Trades REST gave for them.", counts.filled)
        yield _counter("k2_feed_repair_failures", "Questions to REST without an answer.", counts.failures)
        yield _gauge("k2_feed_holes_waiting", "Holes not asked for yet.", self._live.mending.holes)

    def _memory(self) -> Iterator[Metric]:
        buffer, memory = self._live.buffer, self._live.intake.memory
        yield _gauge("k2_feed_buffer_bytes", "Frames in memory, on their way.", buffer.bytes_held)
        yield _gauge("k2_feed_buffer_bytes_max", "Room for them.", buffer.bytes_max)
        yield _gauge("k2_feed_spill_bytes", "Frames on disk, waiting for the broker.", buffer.spill.bytes_held)
        yield _gauge(
            "k2_feed_spill_bytes_max", "Room for them; when it is used up the feed stops.", buffer.spill.bytes_max
        )
        yield _counter("k2_feed_frames_spilled", "Frames that had to go to disk.", buffer.spilled)
        yield _gauge("k2_feed_resident_bytes", "Memory of this process.", memory.resident_bytes)
        yield _gauge("k2_feed_memory_growth_mb_per_hour", "Slope of memory over the last hour.", memory.mb_per_hour)
        yield _gauge("k2_feed_memory_leak_score", "0.5 at 10 MB/h of growth, 1.0 at 50 MB/h.", memory.score)

    def _clocks(self) -> Iterator[Metric]:
        silence, skew, now = self._live.silence, self._live.skew.seconds, time.monotonic()
        if skew is not None:
            text = "Shortest way of a frame in the last minute, by both clocks; below 0 ours is behind."
            yield _gauge("k2_feed_clock_skew_seconds", text, skew)
        yield _gauge("k2_feed_symbols", "Symbols to be heard of.", len(silence.heard))
        yield _gauge("k2_feed_symbols_stale", "Symbols silent for too long.", len(silence.stale))
        silent = GaugeMetricFamily(
            "k2_feed_symbol_silence_seconds", "The symbols silent for longest.", labels=("feed", "symbol")
        )
        for symbol, heard in sorted(silence.heard.items(), key=lambda at: at[1])[:SYMBOLS_NAMED_MAX]:
            silent.add_metric((NAME, symbol), now - heard)
        yield silent


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("feed",))
    family.add_metric((NAME,), value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    family = CounterMetricFamily(name, text, labels=("feed",))
    family.add_metric((NAME,), value)
    return family
