"""The ingestion engine: adapters composed into the commit protocol. Imports no Dagster.

The whole protocol is `Engine.execute`: plan, read, decode, judge, commit, collect, hint. Each step is a failpoint.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import structlog

from k2_assets.batches import Judged, dead_letter_rows, gap_rows, judge_records, receipt_for
from k2_assets.planning import Plan, Registered, plan_ranges, registered, remaining, start_of
from k2_assets.waiting import Waiting
from k2_core.contracts import CONTRACT_VERSION, INGESTED, TABLES, Table
from k2_core.decode import Decoder
from k2_core.errors import FencedOut, IncarnationChanged, SchemaUnavailable
from k2_core.feeds import Feed, feeds_of
from k2_core.offsets import OffsetRange
from k2_core.receipts import Committed, RangeCount, Receipt
from k2_core.records import Incarnation, LogBatch, Records, Watermarks
from k2_resources import clock, failpoints
from k2_resources.avro_codec import decoder
from k2_resources.failpoints import reach
from k2_resources.kafka import KafkaLog
from k2_resources.lake.catalog import Lake
from k2_resources.lake.collect import collect
from k2_resources.lake.commit import Change, Head, commit, head, read_state
from k2_resources.lake.fence import topic_key
from k2_resources.lake.scans import stored_revisions
from k2_resources.registry import Registry
from k2_resources.settings import Settings, load_feeds

log = structlog.get_logger(__name__)

CODE_VERSION = version("k2-platform")
HINT_GROUP = "k2-lake"
"""Consumer group whose offsets show lag tools how far the lake is; nothing in K2 reads them."""


@dataclass(frozen=True)
class Engine:
    """Everything a batch passes through."""

    settings: Settings
    feeds: tuple[Feed, ...]
    lake: Lake
    kafka: KafkaLog
    registry: Registry

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.registry.close()

    def plan(self, table: Table, rows_max: int | None = None) -> Plan:
        """Plan the next ranges of one table; empty when nothing waits. Writes nothing. Raises Halted."""
        at = head(self.lake, table)
        topics = self.topics(table)
        incarnations, marks = self.kafka.incarnation(topics), self.kafka.watermarks(topics)
        return plan_ranges(at, feeds_of(table, self.feeds), incarnations, marks, rows_max or self.settings.run_rows_max)

    def execute(self, table: Table, ranges: Sequence[OffsetRange], run_id: str) -> Iterator[Committed]:
        """Execute planned ranges, yielding each commit. Running them twice changes nothing the second time.

        A Kafka partition whose records need a schema nobody knows waits; the others go on, and the run ends with
        SchemaUnavailable.
        """
        reach("planned")
        self.register(table, run_id)
        collect(self.lake, table)
        at = head(self.lake, table)
        incarnations = self._incarnations(at)
        waiting = Waiting()
        for whole in self.kafka.read(remaining(at, ranges), rows_max=self.settings.rows_per_commit):
            reach("read")
            if self._incarnations(at) != incarnations:
                raise IncarnationChanged(f"{table.name}: the cluster changed while it was read; nothing is kept")
            batch = waiting.split(whole, self._schema_trouble)
            if not batch.ranges:
                continue
            yield self._commit_batch(table, batch, run_id, read_under=at)
            collect(self.lake, table)
            self.kafka.commit_hint(HINT_GROUP, {(r.topic, r.kafka_partition): r.end for r in batch.ranges})
            reach("hinted")
        waiting.complain()

    def _commit_batch(self, table: Table, batch: LogBatch, run_id: str, *, read_under: Head) -> Committed:
        at = head(self.lake, table)
        _expect_same_topics(at, read_under, batch.ranges)
        _expect_starts(at, batch.ranges)
        feeds = {feed.topic: feed for feed in feeds_of(table, self.feeds)}
        epochs = {topic: _known(at, topic).epoch for topic in {r.topic for r in batch.ranges}}
        judged = [self._judge(at, feeds[r.topic], r, epochs[r.topic]) for r in batch.records]
        reach("decoded")
        receipt = receipt_for(
            table, batch.ranges, epochs=epochs, judged=judged, run_id=run_id, code_version=CODE_VERSION
        )
        assert all(r.is_balanced for r in receipt.ranges), f"unbalanced receipt {receipt.ranges}"
        change = Change(
            receipt=receipt,
            rows=_together(table, [j.verdict.rows for j in judged if len(j.verdict.rows)]),
            dead_letters=dead_letter_rows(table, judged),
            gaps=gap_rows(judged),
            # also where nothing is remembered: a verdict relied on what was stored, so every commit moves this key
            states={j.feed.topic: j.verdict.state for j in judged},
        )
        reach("judged")
        committed = commit(self.lake, at, change)
        counts = {"rows": receipt.rows_stored, "dead": receipt.dead}
        log.info("committed", table=table.name, snapshot_id=committed.snapshot_id, **counts)
        return committed

    def _judge(self, at: Head, feed: Feed, records: Records, epoch: int) -> Judged:
        return judge_records(
            feed,
            records,
            epoch=epoch,
            decoder_of=partial(self._decoder, feed),
            state=read_state(at, feed.topic),
            stored=partial(stored_revisions, at),
            today=clock.now().date(),
        )

    def register(self, table: Table, run_id: str) -> Committed | None:
        """Accept the low watermarks of topics the table has never read as their start; None when all are known."""
        at = head(self.lake, table)
        topics = [t for t in self.topics(table) if registered(at, t) is None]
        incarnations = self.kafka.incarnation(topics) if topics else {}
        if not incarnations:
            return None
        marks = self.kafka.watermarks(incarnations)
        ranges = [RangeCount(t, 0, p, m.low, m.low) for (t, p), m in sorted(marks.items())]
        properties = {topic_key(t): Registered(0, i).to_json() for t, i in incarnations.items()}
        receipt = Receipt(table.name, "register", run_id, CODE_VERSION, CONTRACT_VERSION, tuple(ranges))
        return commit(self.lake, at, Change(receipt, properties=properties))

    def adopt(self, table: Table, topics: Iterable[str], *, run_id: str, who: str, why: str) -> Committed | None:
        """Go on with topics that were made anew: a new epoch from their low watermarks. None when none changed."""
        at = head(self.lake, table)
        current = self.kafka.incarnation(topics)
        changed = {t: k for t in current if (k := registered(at, t)) is not None and k.incarnation != current[t]}
        if not changed:
            return None
        marks = self.kafka.watermarks(changed)
        fresh = {t: Registered(known.epoch + 1, current[t]) for t, known in changed.items()}
        ranges = [RangeCount(t, fresh[t].epoch, p, low, low) for (t, p), low in _lows(at, changed, marks).items()]
        properties = {topic_key(t): r.to_json() for t, r in fresh.items()}
        receipt = Receipt(table.name, "adopt", run_id, CODE_VERSION, CONTRACT_VERSION, tuple(ranges), who=who, why=why)
        return commit(self.lake, at, Change(receipt, properties=properties))

    def lag(self, table: Table) -> dict[str, int]:
        """Records waiting per topic, from the stored offsets and the watermarks."""
        at, marks = head(self.lake, table), self.kafka.watermarks(self.topics(table))
        waiting = dict.fromkeys(self.topics(table), 0)
        for (topic, p), m in marks.items():
            waiting[topic] += m.high - start_of(at, registered(at, topic), topic, p, m)
        return waiting

    def _schema_trouble(self, topic: str, schema_id: int) -> SchemaUnavailable | None:
        """Why a schema id cannot be decided now; None when it can."""
        feed = next(feed for feed in self.feeds if feed.topic == topic)
        try:
            self._schema(feed, schema_id)
        except SchemaUnavailable as error:
            return error
        return None

    def _decoder(self, feed: Feed, schema_id: int) -> Decoder | None:
        """A decoder for a writer schema; None only when the registry is sure there is no such id."""
        schema = self._schema(feed, schema_id)
        return None if schema is None else decoder(schema, feed.table)

    def _schema(self, feed: Feed, schema_id: int) -> dict[str, Any] | None:
        """The writer schema of an id, None when there is none. Raises SchemaUnavailable, Unreachable."""
        schema = self.registry.schema(schema_id)
        if schema is not None or self.registry.knows_subject(feed.subject):
            return schema
        raise SchemaUnavailable(
            f"schema id {schema_id} is unknown and so is subject {feed.subject}: the registry may be another one or "
            f"empty. Records of {feed.topic} wait until it answers."
        )

    def topics(self, table: Table) -> list[str]:
        """The topics that fill one table."""
        return [feed.topic for feed in feeds_of(table, self.feeds)]

    def _incarnations(self, at: Head) -> dict[str, Incarnation]:
        """Incarnations of now, proven to be those the stored offsets belong to."""
        current = self.kafka.incarnation(self.topics(at.table))
        for topic, incarnation in current.items():
            known = registered(at, topic)
            if known is not None and known.incarnation != incarnation:
                raise IncarnationChanged(
                    f"{topic}: expected {known.incarnation}, found {incarnation}. See `k2 topics adopt`."
                )
        return current


def open_engine(settings: Settings) -> Engine:
    """Open every adapter and make the tables that do not exist."""
    failpoints.arm(settings.failpoint)
    settings.home.mkdir(parents=True, exist_ok=True)
    lake = Lake(settings.catalog(), settings.warehouse_path())
    lake.ensure(TABLES)
    kafka = KafkaLog(settings.bootstrap(), timeout_seconds=settings.kafka_timeout_seconds)
    return Engine(settings, load_feeds(settings), lake, kafka, Registry(settings.registry()))


def ingest_until_caught_up(engine: Engine, run_id: str | None = None) -> list[Committed]:
    """Plan and execute every table until nothing waits."""
    run = run_id or f"process-{os.getpid()}"
    committed: list[Committed] = []
    for table in INGESTED:
        collect(engine.lake, table)
        while (plan := engine.plan(table)).ranges:
            committed += engine.execute(table, plan.ranges, run)
    return committed


def _expect_same_topics(at: Head, read_under: Head, ranges: Sequence[OffsetRange]) -> None:
    """The epoch of a batch is that of its reading: a topic adopted since then makes its offsets mean other records."""
    for topic in {r.topic for r in ranges}:
        if at.property(topic_key(topic)) != read_under.property(topic_key(topic)):
            raise FencedOut(f"{topic} was adopted in {at.table.name} while it was read; plan again")


def _expect_starts(at: Head, ranges: Sequence[OffsetRange]) -> None:
    for r in ranges:
        known = _known(at, r.topic)
        stored = at.offsets.positions.get((r.topic, r.kafka_partition))
        if (stored.next if stored else 0) != r.start or (stored and stored.epoch != known.epoch):
            raise FencedOut(
                f"{r.topic}[{r.kafka_partition}]: read from {r.start:,}, but {at.table.name} is at {stored}"
            )


def _known(at: Head, topic: str) -> Registered:
    known = registered(at, topic)
    if known is None:
        raise FencedOut(f"{topic} is not registered in {at.table.name}")
    return known


def _lows(at: Head, topics: Iterable[str], marks: dict[tuple[str, int], Watermarks]) -> dict[tuple[str, int], int]:
    """Where to start anew: the low watermark of every partition there is, 0 for those that were and are not yet."""
    were = {key: 0 for key in at.offsets.positions if key[0] in set(topics)}
    return dict(sorted({**were, **{key: m.low for key, m in marks.items()}}.items()))


def _together(table: Table, rows: list[pa.Table]) -> pa.Table | None:
    """The rows of several feeds in the order of their table."""
    if not rows:
        return None
    order = [(name, "ascending") for name in ("exchange_date", *table.sort)]
    return pa.concat_tables(rows).sort_by(order)
