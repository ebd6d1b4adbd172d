"""What a scrape tells beyond the tables: how they stand in the log, what died, who answers, what room is left.

Asked anew each time, with a short patience: what does not answer is told as absent, never as zero.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from k2_api.daemon import DaemonLook
from k2_api.health import PATIENCE_SECONDS, dependencies
from k2_api.models import Dependency
from k2_api.reads import Pinned, Reads
from k2_core.contracts import DEAD_LETTERS, INGESTED, Table
from k2_core.errors import K2Error
from k2_core.feeds import Feed
from k2_core.protocol.ports import Head
from k2_core.standing import HALT_CODES, LogView, TopicStanding, topic_standings
from k2_core.watch import Telling
from k2_resources import clock
from k2_resources.dagster_graphql import DaemonView
from k2_resources.duck import parquet_paths, statement
from k2_resources.kafka import KafkaLog
from k2_resources.lake.catalog import TableState
from k2_resources.settings import Settings

CATALOG_SECONDS = 5.0
"""A catalog that somebody has locked may keep a reader for a minute; a scrape is given up after ten seconds."""
LetterCount = tuple[str, str, str, int]
"""Table, topic, reason, letters."""


class Scraper:
    """Asks the log, the audit tables and the machine; one look at the log at a time, however many scrapes there are."""

    def __init__(self, settings: Settings, feeds: Sequence[Feed], daemon: DaemonLook) -> None:
        self._settings = settings
        self._daemon = daemon
        self._feeds = tuple(feeds)
        self._log: KafkaLog | None = None
        self._looking: asyncio.Task[LogView | None] | None = None
        self._counted: tuple[tuple[str, int | None], list[LetterCount]] | None = None

    async def scrape(self, reads: Reads, pinned: Sequence[Pinned]) -> bytes:
        """Render everything as Prometheus text. pinned: the tables; none when the catalog does not answer."""
        counted = self._patiently(reads) if pinned else _nobody_knows()
        looks = self._look(), counted, self._answers(reads), self._daemon.look()
        log, letters, answers, view = await asyncio.gather(*looks)
        standings = [s for p in pinned for s in _standings(p.table, p.state, self._feeds, log)]
        families = [
            *_log_families(standings, log),
            *_letter_families(letters),
            *_machine_families(answers, self._rooms()),
            *_daemon_families(view, self._daemon.telling(view)),
        ]
        registry = CollectorRegistry()
        registry.register(_Families(families))
        return generate_latest(registry)

    async def standings(self, reads: Reads) -> list[TopicStanding]:
        """How every table stands in its topics; none while the catalog does not answer within a second."""

        async def states() -> list[TableState | None]:
            return await asyncio.gather(*(asyncio.to_thread(reads.lake.state, table) for table in INGESTED))

        try:
            log, found = await asyncio.gather(self._look(), asyncio.wait_for(states(), PATIENCE_SECONDS))
        except (K2Error, TimeoutError):
            return []
        return [s for t, state in zip(INGESTED, found, strict=True) for s in _standings(t, state, self._feeds, log)]

    async def _look(self) -> LogView | None:
        """The log as it is now; None when it does not answer in time. A look that takes longer is not asked twice."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(asyncio.to_thread(self._ask))
        try:
            return await asyncio.wait_for(asyncio.shield(self._looking), PATIENCE_SECONDS)
        except TimeoutError:
            return None

    def _ask(self) -> LogView | None:
        topics = [feed.topic for feed in self._feeds]
        try:
            bootstrap = self._settings.bootstrap()
            if self._log is None or self._log.bootstrap != bootstrap:
                self._log = KafkaLog(bootstrap, timeout_seconds=PATIENCE_SECONDS)
            return LogView(self._log.incarnation(topics), self._log.watermarks(topics))
        except K2Error:
            return None

    async def _patiently(self, reads: Reads) -> list[LetterCount] | None:
        """Dead letters by table, topic and reason; None when nobody can tell in time."""
        try:
            return await asyncio.wait_for(self._letters(reads), CATALOG_SECONDS)
        except (K2Error, TimeoutError):
            return None

    async def _letters(self, reads: Reads) -> list[LetterCount]:
        """Counted once per state of their table."""
        state = await asyncio.to_thread(reads.lake.state, DEAD_LETTERS)
        if state is None or state.snapshot_id is None:
            return []
        key = (state.table_uuid, state.snapshot_id)
        if self._counted is None or self._counted[0] != key:
            files = await asyncio.to_thread(reads.lake.files, DEAD_LETTERS, state.snapshot_id)
            rows = await reads.duck.query(statement("dead_letters"), {"files": parquet_paths(f.path for f in files)})
            self._counted = key, [(r["table_name"], r["topic"], r["reason"], r["letters"]) for r in rows.to_pylist()]
        return self._counted[1]

    async def _answers(self, reads: Reads) -> list[Dependency]:
        elsewhere = {"registry": self._settings.registry_url} if self._settings.registry_url else {}
        return await dependencies(reads, {**self._settings.endpoints(), **elsewhere})

    def _rooms(self) -> Mapping[str, int]:
        """Bytes free where K2 writes, of the places that are on this machine."""
        places = {"home": self._settings.home, "warehouse": Path(self._settings.warehouse_path())}
        return {name: shutil.disk_usage(place).free for name, place in places.items() if place.is_dir()}


async def _nobody_knows() -> None:
    return None


class _Families(Collector):
    """Hands over what was made."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _standings(
    table: Table, state: TableState | None, feeds: Iterable[Feed], log: LogView | None
) -> list[TopicStanding]:
    if state is None:
        return []
    return topic_standings(Head(table, state.table_uuid, state.properties, None), feeds, log)


def _log_families(standings: Iterable[TopicStanding], log: LogView | None) -> Iterator[Metric]:
    topic, partition = ("table", "topic"), ("table", "topic", "kafka_partition")
    exists = GaugeMetricFamily("k2_topic_exists", "Whether the log has the topic.", labels=topic)
    halted = GaugeMetricFamily("k2_topic_halted", "Whether planning refuses the topic.", labels=(*topic, "code"))
    paused = GaugeMetricFamily("k2_partition_paused", "Whether a Kafka partition is paused.", labels=partition)
    lag = GaugeMetricFamily("k2_partition_lag_records", "Records that wait in a Kafka partition.", labels=partition)
    for s in standings:
        for p in s.partitions:
            paused.add_metric((s.table, s.topic, str(p.kafka_partition)), p.paused is not None)
            if p.lag is not None:
                lag.add_metric((s.table, s.topic, str(p.kafka_partition)), p.lag)
        if log is not None:
            exists.add_metric((s.table, s.topic), s.found is not None)
            codes = {halt.code for halt in s.halts}
            for code in HALT_CODES:
                halted.add_metric((s.table, s.topic, code), code in codes)
    yield from (_one("k2_kafka_answers", "Whether the log told its bounds within a second.", log is not None), paused)
    if log is not None:
        yield from (exists, halted, lag)


def _letter_families(letters: Iterable[LetterCount] | None) -> Iterator[Metric]:
    if letters is not None:
        dead = CounterMetricFamily(
            "k2_dead_letters", "Records that could not become rows.", labels=("table", "topic", "reason")
        )
        for table, topic, reason, count in letters:
            dead.add_metric((table, topic, reason), count)
        yield dead


def _machine_families(answers: Iterable[Dependency], rooms: Mapping[str, int]) -> Iterator[Metric]:
    up = GaugeMetricFamily("k2_dependency_answers", "Whether a part answers within a second.", labels=("dependency",))
    for dependency in answers:
        up.add_metric((dependency.name,), dependency.status == "healthy")
    room = GaugeMetricFamily("k2_disk_free_bytes", "Bytes free where K2 writes.", labels=("place",))
    for place, free_bytes in rooms.items():
        room.add_metric((place,), free_bytes)
    yield from (up, room)


def _daemon_families(view: DaemonView | None, told: Telling | None) -> Iterator[Metric]:
    yield _one("k2_dagster_answers", "Whether Dagster's webserver told within a second how it is.", view is not None)
    age = view.tick_age_seconds(clock.now().timestamp()) if view is not None else None
    if age is not None:
        yield _one("k2_daemon_tick_age_seconds", "Seconds since any sensor ticked.", age)
    if view is not None and told is not None:
        oldest = told.oldest_undelivered_age_seconds or 0.0
        yield _one("k2_alerts_firing", "Conditions people were told of that go on.", told.firing)
        yield _one("k2_alerts_undelivered", "Notices that no channel, or not every one, has taken.", told.undelivered)
        yield _one("k2_alerts_oldest_undelivered_seconds", "Age of the oldest of them; 0 without one.", oldest)


def _one(name: str, doc: str, value: Any) -> Metric:
    family = GaugeMetricFamily(name, doc)
    family.add_metric((), value)
    return family
