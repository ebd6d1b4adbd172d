"""Dead letters with what became of them: read from the lake, chosen for a replay, sent again. Imports no Dagster."""

import base64
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from k2_assets.engine import Engine
from k2_core.bodies import Decoder
from k2_core.contracts import COVERAGE, DEAD_LETTERS, INGESTED, Table
from k2_core.decode import decode
from k2_core.errors import IncarnationChanged, K2Error, Misconfigured, NotFound
from k2_core.feeds import Feed
from k2_core.letters import REPLAYED, Delivery, Fate, Place, Standing, deliveries_in, standings
from k2_core.offsets import Offsets
from k2_core.protocol.collect import collect
from k2_core.protocol.planning import registered
from k2_core.records import Envelope, Header, Records
from k2_core.standing import tables_of
from k2_core.tables import LINEAGE_NAMES
from k2_feeds.replay import Original, Replay
from k2_resources.avro_codec import decoder
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.scans import receipt_rows
from k2_resources.registry import Registry

_TOLD = ("table_name", "reason", "detail", "schema_id")
_STATEMENTS_AT_ONCE = 100_000
"""Records of one look at the end of k2.coverage."""


@dataclass(frozen=True)
class Letter:
    """One dead letter: why it died, how it stands, where its replays went."""

    place: Place
    table: str
    reason: str
    detail: str
    schema_id: int | None
    standing: Standing
    delivered: tuple[Place, ...]


@dataclass(frozen=True)
class Choice:
    """Which letters are meant; what is None does not matter."""

    table: str | None = None
    topic: str | None = None
    reason: str | None = None
    standing: Standing | None = None

    def of(self, letters: Iterable[Letter]) -> list[Letter]:
        return [letter for letter in letters if self._holds(letter)]

    def _holds(self, letter: Letter) -> bool:
        asked = (self.table, self.topic, self.reason, self.standing)
        found = (letter.table, letter.place.topic, letter.reason, letter.standing)
        return all(a is None or a == f for a, f in zip(asked, found, strict=True))


def read_letters(lake: Lake, unread: Iterable[Delivery] = ()) -> list[Letter]:
    """Every dead letter in log order. unread: deliveries stated on k2.coverage and not ingested yet.

    What a crash left uncollected is collected first: a letter that is not in audit.dead_letters yet would let the one
    before it look resolved.
    """
    tables = [table for table in INGESTED if lake.state(table) is not None]
    below = [lake.head(table).offsets for table in tables]
    for table in tables:
        collect(IcebergLedger(lake), table, reach)
    found = _letter_rows(lake)
    deliveries = list(dict.fromkeys([*_stated(lake), *unread]))
    past = _past(lake, tables, below, {d.delivered.topic for d in deliveries})
    known = standings(found, deliveries, past.fate)
    sent = defaultdict(list)
    for delivery in deliveries:
        sent[delivery.letter].append(delivery.delivered)
    return [
        Letter(
            at, row["table_name"], row["reason"], row["detail"], row["schema_id"], known[at], tuple(sorted(sent[at]))
        )
        for at, row in sorted(found.items())
    ]


def unread_deliveries(engine: Engine) -> list[Delivery]:
    """Deliveries that wait on k2.coverage, read past the lake: a replay must know of the one a minute ago.

    Raises Halted, Unreachable, SchemaUnavailable.
    """
    plan = engine.plan(COVERAGE, _STATEMENTS_AT_ONCE)
    batches = engine.kafka.read(plan.ranges, rows_max=_STATEMENTS_AT_ONCE)
    arrived = engine.ingestion.desk.arrivals(COVERAGE, batches)
    return [
        delivery
        for one in arrived
        for decoded in one.decoded  # type: ignore[attr-defined]
        for delivery in deliveries_in(decoded.rows.select(["event", "letter", "delivered"]).to_pylist())
    ]


def replay(engine: Engine, letters: Sequence[Letter], by: str) -> list[Delivery]:
    """Send letters again, wait until the broker has them, state where it put each.

    Raises Misconfigured, NotFound, IncarnationChanged before anything is sent; Unreachable.
    """
    if "letter" not in engine.lake.load(COVERAGE).schema().column_names:
        raise Misconfigured(f"{COVERAGE.name} was made by an older K2 and cannot hold where a replay went")
    epochs = {topic: _epoch(engine, topic) for topic in {letter.place.topic for letter in letters}}
    tables = {feed.topic: feed.table for feed in engine.feeds}
    with Replay(
        engine.settings, engine.feeds, by=by, committed=lambda topic: engine.lake.committed(tables[topic], topic)
    ) as sending:
        return sending.send(originals(engine.lake, [letter.place for letter in letters]), epochs)


def originals(lake: Lake, places: Collection[Place]) -> Iterator[Original]:
    """The records of letters as they came, a part of the table in memory at a time."""
    wanted, columns = set(places), (*LINEAGE_NAMES, "key", "value", "headers")
    where = f"kafka_offset == {next(iter(wanted)).offset}" if len(wanted) == 1 else "kafka_offset >= 0"
    for batch in lake.load(DEAD_LETTERS).scan(where, selected_fields=columns).to_arrow_batch_reader():
        for row in batch.to_pylist():
            if (at := _place(row)) in wanted:
                wanted.remove(at)
                yield Original(at, row["key"], row["value"], _headers(row["headers"]))


def decoded(registry: Registry, feeds: Iterable[Feed], original: Original) -> dict[str, Any] | str:
    """The fields of a letter, or why it has none to show."""
    at, tables = original.place, tables_of(original.place.topic, feeds)
    if not tables:
        return f"no feed in feeds.yaml names {at.topic}"
    where = np.array([at.kafka_partition], np.int32), np.array([at.offset], np.int64)
    records = Records(at.topic, *where, [original.value], [Envelope(original.key, original.headers, -1)])
    try:
        made = decode(records, tables[0], lambda schema_id: _decoder(registry, schema_id, tables[0]))
    except K2Error as error:
        return f"{error.code}: {error}"
    rows: list[dict[str, Any]] = made.rows.to_pylist()
    return rows[0] if rows else made.dead[0].detail


def _decoder(registry: Registry, schema_id: int, table: Table) -> Decoder | None:
    schema = registry.schema(schema_id)
    return None if schema is None else decoder(schema, table)


@dataclass(frozen=True)
class _Past:
    """What the lake has read. below: C, looked at before the letters were. batches: topic, epoch, Kafka partition ->
    the ranges whose records became rows, duplicates or letters."""

    below: Mapping[str, Offsets]
    batches: Mapping[tuple[str, int, int], Sequence[tuple[int, int]]]

    def fate(self, at: Place) -> Fate:
        stored = self.below[at.topic].of_topic(at.topic).get(at.kafka_partition) if at.topic in self.below else None
        if stored is None or (at.epoch, at.offset) >= (stored.epoch, stored.next):
            return "ahead"
        read = self.batches.get((at.topic, at.epoch, at.kafka_partition), ())
        return "read" if any(start <= at.offset < end for start, end in read) else "lost"


def _past(lake: Lake, tables: Sequence[Table], below: Sequence[Offsets], topics: set[str]) -> _Past:
    batches: dict[tuple[str, int, int], list[tuple[int, int]]] = defaultdict(list)
    by_topic = {topic: offsets for offsets in below for topic, _ in offsets.positions}
    for table, offsets in zip(tables, below, strict=True):
        if not topics & {topic for topic, _ in offsets.positions}:
            continue
        for receipt in receipt_rows(lake, table, columns=("kind", "ranges")).to_pylist():
            for r in receipt["ranges"] if receipt["kind"] == "batch" else ():
                batches[r["topic"], r["kafka_epoch"], r["kafka_partition"]].append((r["start"], r["end"]))
    return _Past(by_topic, batches)


def _letter_rows(lake: Lake) -> dict[Place, dict[str, Any]]:
    rows = lake.load(DEAD_LETTERS).scan(selected_fields=(*LINEAGE_NAMES, *_TOLD)).to_arrow().to_pylist()
    return {_place(row): row for row in rows}


def _stated(lake: Lake) -> list[Delivery]:
    table = lake.load(COVERAGE)
    if "letter" not in table.schema().column_names:  # made before there were replays
        return []
    scan = table.scan(f"event == '{REPLAYED}'", selected_fields=("event", "letter", "delivered"))
    return deliveries_in(scan.to_arrow().to_pylist())


def _place(row: Mapping[str, Any]) -> Place:
    return Place(row["kafka_topic"], row["kafka_epoch"], row["kafka_partition"], row["kafka_offset"])


def _headers(text: str) -> tuple[Header, ...]:
    return tuple((name, None if value is None else base64.b64decode(value)) for name, value in json.loads(text))


def _epoch(engine: Engine, topic: str) -> int:
    """The epoch in which a topic is read now. Raises NotFound, IncarnationChanged: a delivery must say its epoch."""
    for table in tables_of(topic, engine.feeds):
        known = registered(engine.lake.head(table), topic)
        found = engine.kafka.incarnation([topic]).get(topic)
        if known is None or found is None:
            raise NotFound(f"{topic}: {'never read into ' + table.name if known is None else 'no such topic'}")
        if known.incarnation != found:
            raise IncarnationChanged(f"{topic}: expected {known.incarnation}, found {found}. See `k2 topics adopt`.")
        return known.epoch
    raise NotFound(f"{topic}: no feed in feeds.yaml names this topic")
