"""Each table stated once: columns, meaning, key, partition, sort.

Belongs here: what a table is. Everything else projects it: Arrow below, Avro in `avro`, Iceberg in the
lake adapter, Dagster and pandera in the assets, prose in docs/DATA.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

CONTRACT_VERSION = "1"
"""Raised when a column changes meaning; part of the fence and of every answer's version."""

TIMESTAMP = pa.timestamp("us", tz="UTC")
PRICE = pa.decimal128(18, 8)
"""Ten integer and eight fractional digits: the largest value is 9,999,999,999.99999999."""
VENDOR_DATA = pa.map_(pa.string(), pa.string())
CONDITIONS = pa.list_(pa.field("element", pa.string(), nullable=False))

SIDES = ("BUY", "SELL", "SELL_SHORT", "UNKNOWN")
ASSET_CLASSES = ("equities", "crypto", "futures", "options")

Origin = Literal["feed", "judge", "lineage"]


@dataclass(frozen=True)
class Column:
    """One column: what it means and who states it.

    origin: `feed` columns travel in Avro, `judge` columns are decided by the verdict, `lineage` columns name the
    Kafka record. `content` columns decide whether two rows with one key say the same.
    """

    name: str
    type: pa.DataType
    doc: str
    nullable: bool = False
    unit: str = ""
    content: bool = False
    origin: Origin = "feed"
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table of the lake: its grain, key, partition and order."""

    name: str
    grain: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    partition: str | None = None
    sort: tuple[str, ...] = ()
    record: str | None = None
    """Name of its Avro record; None for a table no topic feeds."""

    @property
    def namespace(self) -> str:
        return self.name.split(".")[0]

    @property
    def short_name(self) -> str:
        return self.name.split(".")[1]

    @property
    def content(self) -> tuple[str, ...]:
        """Names of the content columns, in contract order."""
        return tuple(column.name for column in self.columns if column.content)

    @property
    def feed_columns(self) -> tuple[Column, ...]:
        """What a feed sends: the fields of the Avro record, in contract order."""
        return tuple(column for column in self.columns if column.origin == "feed")

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def arrow_schema(self, *, origins: tuple[Origin, ...] = ("feed", "judge", "lineage")) -> pa.Schema:
        """Project to Arrow: the given origins, in contract order, docs as field metadata."""
        return pa.schema(
            pa.field(c.name, c.type, nullable=c.nullable, metadata={"doc": c.doc})
            for c in self.columns
            if c.origin in origins
        )


REVISION = Column(
    "revision",
    pa.int32(),
    "0 = as first received; 1.. = later content for the same key. Readers take the newest.",
    origin="judge",
)
LINEAGE = (
    Column("kafka_topic", pa.string(), "Topic the record came from.", origin="lineage"),
    Column("kafka_epoch", pa.int32(), "Incarnation of that topic, counted from 0.", origin="lineage"),
    Column("kafka_partition", pa.int32(), "Kafka partition of the record.", origin="lineage"),
    Column("kafka_offset", pa.int64(), "Kafka offset of the record.", origin="lineage"),
)

_INSTRUMENT = (
    Column("symbol", pa.string(), "Instrument as the exchange writes it.", content=True),
    Column("exchange", pa.string(), "Exchange, upper case: BINANCE, ASX."),
    Column("asset_class", pa.string(), "Kind of instrument.", choices=ASSET_CLASSES),
    Column("currency", pa.string(), "Currency of prices."),
    Column("timestamp", TIMESTAMP, "Event time stated by the exchange.", unit="µs UTC", content=True),
)
_ENVELOPE = (
    Column("source_sequence", pa.int64(), "Id the source gives, when it gives one.", nullable=True),
    Column(
        "platform_sequence",
        pa.int64(),
        "Ordinal within (symbol, exchange_date) of a file source: breaks ties, proves nothing about the venue.",
        nullable=True,
    ),
    Column("ingestion_timestamp", TIMESTAMP, "Ingestion time: when our feed received it.", unit="µs UTC"),
    Column("vendor_data", VENDOR_DATA, "The rest of the source record.", nullable=True),
    Column("quality_flags", pa.int32(), "Bits, each named in k2_core.quality."),
    Column("exchange_date", pa.date32(), "Exchange-local trading date; the table partition.", origin="judge"),
)

TRADES = Table(
    name="market_data.trades",
    grain="one print as the exchange reported it",
    key=("message_id", "revision"),
    partition="exchange_date",
    sort=("symbol", "timestamp", "source_sequence"),
    record="Trade",
    columns=(
        Column("message_id", pa.string(), "Natural key, e.g. BINANCE:BTCUSDT:trade:3735683259."),
        REVISION,
        Column("trade_id", pa.string(), "`{EXCHANGE}-{source id}`."),
        *_INSTRUMENT,
        Column("price", PRICE, "Price of one unit.", unit="currency", content=True),
        Column("quantity", PRICE, "Units traded.", unit="units", content=True),
        Column("side", pa.string(), "Aggressor.", content=True, choices=SIDES),
        Column("trade_conditions", CONDITIONS, "The exchange's condition codes, raw.", content=True),
        *_ENVELOPE,
        *LINEAGE,
    ),
)

QUOTES = Table(
    name="market_data.quotes",
    grain="one best bid and offer as the exchange reported it",
    key=("message_id", "revision"),
    partition="exchange_date",
    sort=("symbol", "timestamp", "source_sequence"),
    record="Quote",
    columns=(
        Column("message_id", pa.string(), "Natural key, e.g. BINANCE:BTCUSDT:quote:50093239212."),
        REVISION,
        Column("quote_id", pa.string(), "`{EXCHANGE}-{source id}`."),
        *_INSTRUMENT,
        Column("bid_price", PRICE, "Best bid; null when nobody bids.", unit="currency", nullable=True, content=True),
        Column("bid_quantity", PRICE, "Units bid; null with bid_price.", unit="units", nullable=True, content=True),
        Column("ask_price", PRICE, "Best ask; null when nobody asks.", unit="currency", nullable=True, content=True),
        Column("ask_quantity", PRICE, "Units asked; null with ask_price.", unit="units", nullable=True, content=True),
        *_ENVELOPE,
        *LINEAGE,
    ),
)

COVERAGE = Table(
    name="audit.coverage",
    grain="one statement of a feed about what it collected",
    key=("message_id", "revision"),
    partition="exchange_date",
    sort=("timestamp",),
    record="Coverage",
    columns=(
        Column("message_id", pa.string(), "Natural key: COVERAGE:{collection_id}:{scope}:{event}."),
        REVISION,
        Column("collection_id", pa.string(), "One run of one feed command.", content=True),
        Column("event", pa.string(), "opened, closed or failed; replayed for a dead letter sent again.", content=True),
        Column("feed", pa.string(), "Feed collected, e.g. binance-trades.", content=True),
        Column("source", pa.string(), "Where it came from: file name, stream, simulator seed.", content=True),
        Column("exchange", pa.string(), "Exchange of the feed."),
        Column("symbol", pa.string(), "Scope: the symbol covered, or * for all of the feed.", content=True),
        Column("timestamp", TIMESTAMP, "When the feed stated it.", unit="µs UTC"),
        Column("first_id", pa.int64(), "Smallest source sequence sent.", nullable=True, content=True),
        Column("last_id", pa.int64(), "Largest source sequence sent.", nullable=True, content=True),
        Column("rows", pa.int64(), "Records sent.", content=True),
        Column("rejected", pa.int64(), "Source lines that could not be sent.", content=True),
        Column("opened", TIMESTAMP, "Smallest event time sent.", nullable=True, unit="µs UTC", content=True),
        Column("closed", TIMESTAMP, "Largest event time sent.", nullable=True, unit="µs UTC", content=True),
        Column("ingestion_timestamp", TIMESTAMP, "When the statement was produced.", unit="µs UTC"),
        Column("letter", pa.string(), "Dead letter sent again: topic[partition]@epoch:offset.", nullable=True),
        Column("delivered", pa.string(), "Where the log took it, written the same way.", nullable=True),
        Column("exchange_date", pa.date32(), "UTC date of the statement; the table partition.", origin="judge"),
        *LINEAGE,
    ),
)

_RANGE = pa.struct(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("kafka_epoch", pa.int32(), nullable=False),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("read", pa.int64(), nullable=False),
        pa.field("written", pa.int64(), nullable=False),
        pa.field("duplicates", pa.int64(), nullable=False),
        pa.field("revisions", pa.int64(), nullable=False),
        pa.field("dead", pa.int64(), nullable=False),
    ]
)
_FILE = pa.struct(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
_DATE = pa.struct(
    [
        pa.field("exchange_date", pa.date32(), nullable=False),
        pa.field("feed", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
    ]
)
_OFFSET = pa.struct(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("kafka_epoch", pa.int32(), nullable=False),
        pa.field("next", pa.int64(), nullable=False),
    ]
)


def _list(item: pa.DataType) -> pa.ListType:
    return pa.list_(pa.field("element", item, nullable=False))


RECEIPTS = Table(
    name="audit.receipts",
    grain="one commit to one table",
    key=("table_name", "table_uuid", "sequence_number"),
    sort=("table_name", "sequence_number"),
    columns=(
        Column("table_name", pa.string(), "Table committed to."),
        Column("table_uuid", pa.string(), "Iceberg identity of that table."),
        Column("sequence_number", pa.int64(), "Iceberg sequence number: the order of commits."),
        Column("snapshot_id", pa.int64(), "Snapshot the commit made."),
        Column("commit_time", TIMESTAMP, "Commit time: running maximum of snapshot timestamps.", unit="µs UTC"),
        Column("kind", pa.string(), "batch, register, adopt, accept_loss, resume or maintenance."),
        Column("run_id", pa.string(), "Run that committed."),
        Column("code_version", pa.string(), "K2 version that committed."),
        Column("schema_ids", _list(pa.int32()), "Writer schema ids met in the batch."),
        Column("ranges", _list(_RANGE), "Half-open Kafka ranges and what became of each record."),
        Column("files", _list(_FILE), "Data files and sidecars with rows and SHA-256."),
        Column("dates", _list(_DATE), "Rows stored per exchange_date and feed."),
        Column("offsets", _list(_OFFSET), "C: the offset vector after this commit."),
        Column("version", pa.string(), "SHA-256 digest of C."),
        Column("reverted", pa.int64(), "Duplicates that returned to content older than the newest."),
        Column("precision_upgrades", pa.int64(), "Duplicates that differ in time unit only."),
        Column("receipt_path", pa.string(), "The receipt file."),
        Column("receipt_sha256", pa.string(), "Its SHA-256."),
        Column("who", pa.string(), "Operator of an adopt, accept_loss or resume.", nullable=True),
        Column("why", pa.string(), "Their reason.", nullable=True),
    ),
)

DEAD_LETTERS = Table(
    name="audit.dead_letters",
    grain="one Kafka record that could not become a row",
    key=("kafka_topic", "kafka_epoch", "kafka_partition", "kafka_offset"),
    sort=("kafka_topic", "kafka_partition", "kafka_offset"),
    columns=(
        Column("table_name", pa.string(), "Table the record was meant for."),
        *LINEAGE,
        Column("kafka_timestamp", TIMESTAMP, "Time Kafka holds for the record.", unit="µs UTC", nullable=True),
        Column("key", pa.binary(), "Record key, as sent.", nullable=True),
        Column("value", pa.binary(), "Record bytes, as sent; null for a tombstone.", nullable=True),
        Column("headers", pa.string(), "Record headers: JSON list of [name, base64 value]."),
        Column("schema_id", pa.int32(), "Writer schema id, when one could be read.", nullable=True),
        Column("reason", pa.string(), "Stable reason code, named in k2_core.quality or k2_core.decode."),
        Column("detail", pa.string(), "What was found and what was expected."),
    ),
)

GAPS = Table(
    name="audit.gaps",
    grain="one event in the life of a gap; the state of a gap is its last event",
    key=("gap_id", "event_number"),
    sort=("feed", "scope", "first_id"),
    columns=(
        Column("gap_id", pa.string(), "feed:scope:session:first-last as detected."),
        Column("event_number", pa.int64(), "Order of the events of one table."),
        Column("state", pa.string(), "open, filled; later issues add states with evidence."),
        Column("feed", pa.string(), "Feed whose ids are missing."),
        Column("exchange", pa.string(), "Exchange of the feed."),
        Column("scope", pa.string(), "Scope of the id sequence: the symbol."),
        Column("session", pa.int32(), "Id numbering of the source, counted from 0."),
        Column("first_id", pa.int64(), "First missing id."),
        Column("last_id", pa.int64(), "Last missing id, inclusive."),
        Column("size", pa.int64(), "Ids missing."),
        Column("severity", pa.string(), "warn below 10, alert to 100, halt above."),
        Column("exchange_date", pa.date32(), "Exchange date of the row that revealed it."),
        Column("parent", pa.string(), "Gap this one is a remainder of.", nullable=True),
        Column("actor", pa.string(), "Who moved the state: judge, or an operator."),
        Column("evidence", pa.string(), "What shows it.", nullable=True),
        Column("snapshot_id", pa.int64(), "Snapshot of the table at which it was seen.", nullable=True),
        Column("version", pa.string(), "Digest of C at which it was seen.", nullable=True),
    ),
)

TICK_TABLES = (TRADES, QUOTES)
INGESTED = (TRADES, QUOTES, COVERAGE)
"""Tables that a topic feeds; every one goes through the same commit protocol."""
AUDIT = (RECEIPTS, DEAD_LETTERS, GAPS)
"""Tables the collector copies from receipts and sidecars."""
TABLES = (*INGESTED, *AUDIT)


def table_named(name: str) -> Table:
    """Find a contract by full or short name. Raises KeyError."""
    for table in TABLES:
        if name in (table.name, table.short_name):
            return table
    raise KeyError(name)
