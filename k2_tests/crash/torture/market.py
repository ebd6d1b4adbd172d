"""A producer at its worst: new trades, holes that are filled late, repetitions, revisions, returns, and poison."""

from __future__ import annotations

import io
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import fastavro
from confluent_kafka import Producer

from k2_core.avro import avro_schema
from k2_core.contracts import Table
from k2_core.feeds import Feed
from k2_tests.crash.ledger import Ledger, Told, row, sha256
from k2_tests.ticks import NOON, asx_trade, quote, trade

MIDNIGHT = NOON.replace(hour=0)
"""When the markets begin, so that a correction of half an hour moves a row to another date."""
BEFORE_MIDNIGHT = timedelta(minutes=30)

FLUSH_SECONDS_MAX = 30.0
UNKNOWN_SCHEMA_ID = 4_242
WIDER = {"name": "venue_note", "type": ["null", "string"], "default": None, "doc": "A field only a newer writer has."}
SYMBOLS = ("BTCUSDT", "ETHUSDT")

Record = dict[str, Any]


def wider_schema(table: Table) -> dict[str, Any]:
    """The writer schema of a newer feed: one field more than the lake knows."""
    schema = avro_schema(table)
    return {**schema, "fields": [*schema["fields"], WIDER]}


class Encoder:
    """Records of one table as bytes, under the schema of today or the wider one."""

    def __init__(self, table: Table, schema_id: int, wider_id: int) -> None:
        self.table = table
        self._ids = {False: schema_id, True: wider_id}
        schemas = {False: avro_schema(table), True: wider_schema(table)}
        self._schemas = {wide: fastavro.parse_schema(schema) for wide, schema in schemas.items()}

    def encode(self, record: Mapping[str, Any], *, wide: bool, schema_id: int | None = None) -> bytes:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, self._schemas[wide], {**record, "venue_note": "as told"})
        return b"\0" + (schema_id or self._ids[wide]).to_bytes(4, "big") + body.getvalue()


@dataclass
class Market:
    """Sends what a feed may send and worse; each acknowledgement goes to the ledger.

    wide: whether records are written under the wider schema from now on.
    """

    rng: random.Random
    ledger: Ledger
    encoders: Mapping[str, Encoder]
    feeds: tuple[Feed, ...]
    wide: bool = False
    _next_id: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    _holes: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    _sent: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    _producer: Producer | None = None

    def connect(self, bootstrap: str) -> None:
        """Send to another broker from now on; what the one before has not answered it never will."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.poll(0)
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 2, "log_level": 0}
        )

    def send(self, count: int) -> None:
        """Hand so many records to the producer."""
        assert self._producer is not None, "connect first"
        for _ in range(count):
            feed = self.rng.choice(self.feeds)
            value, told = self._any(feed)
            self._put(feed, value, told)
        self._producer.poll(0)

    def send_again(self, count: int) -> None:
        """Send what was sent before, newest first, as a feed does that was told of a loss."""
        for feed in self.feeds:
            for record in self._sent[feed.name][-count:]:
                self._put(feed, *self._good(feed, record))

    def flush(self) -> None:
        """Wait until the broker has answered for every record."""
        assert self._producer is not None, "connect first"
        left = self._producer.flush(FLUSH_SECONDS_MAX)
        assert left == 0, f"{left} records were not answered for"

    def _put(self, feed: Feed, value: bytes | None, told: Told) -> None:
        assert self._producer is not None, "connect first"
        partition = self.rng.randrange(feed.kafka_partitions)
        on_delivery = self.ledger.on_delivery(told)
        self._producer.produce(feed.topic, value, b"key", partition=partition, on_delivery=on_delivery)

    def _any(self, feed: Feed) -> tuple[bytes | None, Told]:
        old = self._sent[feed.name]
        kinds: list[tuple[float, Callable[[Feed], tuple[bytes | None, Told]]]] = [(0.62, self._fresh)]
        if old:
            kinds += [(0.10, self._repeated), (0.12, self._revised), (0.06, self._precursor)]
        kinds.append((0.10, self._poison))
        (chosen,) = self.rng.choices([make for _, make in kinds], [weight for weight, _ in kinds])
        return chosen(feed)

    def _fresh(self, feed: Feed) -> tuple[bytes | None, Told]:
        record = self._new(feed)
        self._sent[feed.name].append(record)
        return self._good(feed, record)

    def _new(self, feed: Feed) -> Record:
        symbol = self.rng.choice(SYMBOLS)
        at = (feed.name, symbol)
        if feed.rule == "none":
            self._next_id[feed.name, ""] += 1
            return asx_trade(str(self._next_id[feed.name, ""] // 3), self._next_id[feed.name, ""])
        if self._holes[at] and self.rng.random() < 0.3:
            number = self._holes[at].pop(self.rng.randrange(len(self._holes[at])))
        else:
            if self.rng.random() < 0.12:
                skipped = self.rng.randint(1, 4)
                self._holes[at] += range(self._next_id[at], self._next_id[at] + skipped)
                self._next_id[at] += skipped
            number = self._next_id[at]
            self._next_id[at] += 1
        made = trade if feed.kind == "trade" else quote
        day = MIDNIGHT + timedelta(days=SYMBOLS.index(symbol), milliseconds=number)
        return made(number, symbol=symbol, timestamp=day, ingestion_timestamp=day + timedelta(seconds=9))

    def _repeated(self, feed: Feed) -> tuple[bytes | None, Told]:
        """Said before; now and then received at another time, which is no content."""
        record = dict(self.rng.choice(self._sent[feed.name][-200:]))
        if self.rng.random() < 0.3:
            record["ingestion_timestamp"] += timedelta(seconds=self.rng.randint(1, 9))
        return self._good(feed, record)

    def _revised(self, feed: Feed) -> tuple[bytes | None, Told]:
        """The same key with other content, now and then of the day before.

        It may overtake its original in another Kafka partition: more than an hour apart the two would look like the
        end of one numbering and the start of the next (see `k2_core/numberings.py`).
        """
        record = dict(self.rng.choice(self._sent[feed.name][-200:]))
        price = "price" if feed.kind == "trade" else "bid_price"
        record[price] += Decimal(self.rng.randint(1, 5))
        if feed.rule != "none" and record["timestamp"].hour == MIDNIGHT.hour and self.rng.random() < 0.2:
            record["timestamp"] -= BEFORE_MIDNIGHT
        self._sent[feed.name].append(record)
        return self._good(feed, record)

    def _precursor(self, feed: Feed) -> tuple[bytes | None, Told]:
        """The first thing ever said of some key: a return to older content where it was revised since."""
        key = self.rng.choice(self._sent[feed.name][-200:])["message_id"]
        return self._good(feed, next(r for r in self._sent[feed.name] if r["message_id"] == key))

    def _good(self, feed: Feed, record: Record) -> tuple[bytes, Told]:
        value = self.encoders[feed.table.name].encode(record, wide=self.wide)
        return value, row(feed.table, record, value)

    def _poison(self, feed: Feed) -> tuple[bytes | None, Told]:
        """Bytes that are no record, or a record that breaks a hard rule; its id is known, but nothing is stored."""
        kind = self.rng.randrange(12)
        record = self._new(feed)
        encoder = self.encoders[feed.table.name]
        value = encoder.encode(record, wide=self.wide)
        if kind < 4:
            price = "price" if feed.kind == "trade" else "bid_price"
            value = encoder.encode({**record, price: Decimal(0)}, wide=self.wide)
            of_id = (record["symbol"], record["source_sequence"]) if feed.rule == "contiguous" else None
            if self.rng.random() < 0.5:  # its id may come again, well
                self._holes[feed.name, record["symbol"]].append(record["source_sequence"] or 0)
            return value, Told(sha256(value), dead_id=of_id)
        if feed.rule != "none":
            self._holes[feed.name, record["symbol"]].append(record["source_sequence"])
        junk: list[bytes | None] = [
            b"junk",
            b"",
            None,
            value[: self.rng.randint(6, len(value) - 1)],
            value + b"\1",
            b"\1" + value[1:],
        ]
        bad = junk[kind - 4] if kind - 4 < len(junk) else value[:5]
        if kind == 11 and self.rng.random() < 0.2:
            bad = encoder.encode(record, wide=self.wide, schema_id=UNKNOWN_SCHEMA_ID)
        return bad, Told(sha256(bad))
