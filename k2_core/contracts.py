"""Each table stated once: columns, meaning, key, partition, sort.

Belongs here: what a table is. Everything else projects it: Arrow in `tables`, Avro in `avro`, Iceberg in the
lake adapter, Dagster and pandera in the assets, prose in docs/DATA.md.
"""

from __future__ import annotations

import pyarrow as pa

from k2_core.audit_tables import DEAD_LETTERS, GAPS, RECEIPTS
from k2_core.day_tables import DAYS
from k2_core.derived_tables import BARS
from k2_core.tables import CONDITIONS, LINEAGE, PRICE, REVISION, TIMESTAMP, VENDOR_DATA, Column, Table

__all__ = [
    "ASSET_CLASSES",
    "AUDIT",
    "CONDITIONS",
    "CONTRACT_VERSION",
    "COVERAGE",
    "DAYS",
    "DEAD_LETTERS",
    "GAPS",
    "INGESTED",
    "INSTRUMENTS",
    "PRICE",
    "QUOTES",
    "RECEIPTS",
    "SIDES",
    "TABLES",
    "TICK_TABLES",
    "TRADES",
    "VENDOR_DATA",
    "Column",
    "Table",
    "table_named",
]

CONTRACT_VERSION = "1"
"""Raised when a column changes meaning; part of the fence and of every answer's version."""

SIDES = ("BUY", "SELL", "SELL_SHORT", "UNKNOWN")
ASSET_CLASSES = ("equities", "crypto", "futures", "options")

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

INSTRUMENTS = Table(
    name="market_data.instruments",
    grain="one instrument as its exchange or vendor describes it from a date on",
    key=("message_id", "revision"),
    partition="exchange_date",
    sort=("symbol", "valid_from"),
    record="Instrument",
    dated_by="valid_from",
    columns=(
        Column("message_id", pa.string(), "Natural key, e.g. ASX:BHP:instrument:2008-05-07:7078."),
        REVISION,
        Column("instrument_id", pa.string(), "`{EXCHANGE}-{source id}`; outlives a symbol where the source has ids."),
        Column("symbol", pa.string(), "Instrument as the exchange writes it, from valid_from on.", content=True),
        Column("exchange", pa.string(), "Exchange, upper case: BINANCE, ASX."),
        Column("asset_class", pa.string(), "Kind of instrument.", choices=ASSET_CLASSES),
        Column("currency", pa.string(), "Currency of prices.", content=True),
        Column("valid_from", pa.date32(), "First exchange-local date it holds; part of the key."),
        Column(
            "valid_to", pa.date32(), "First date it no longer holds, as told; null = open.", nullable=True, content=True
        ),
        Column("timestamp", TIMESTAMP, "When the source stated it.", unit="µs UTC"),
        Column("name", pa.string(), "Name of the company.", nullable=True, content=True),
        Column("isin", pa.string(), "ISO 6166 number, as the source writes it.", nullable=True, content=True),
        Column("base_asset", pa.string(), "Asset that quantities count.", nullable=True, content=True),
        Column("status", pa.string(), "Trading status in the exchange's words.", nullable=True, content=True),
        Column("price_increment", PRICE, "Smallest step of prices.", unit="currency", nullable=True, content=True),
        Column("quantity_increment", PRICE, "Smallest step of quantities.", unit="units", nullable=True, content=True),
        Column("ingestion_timestamp", TIMESTAMP, "Ingestion time: when our feed received it.", unit="µs UTC"),
        Column("vendor_data", VENDOR_DATA, "The rest of the source record, nested values as JSON.", nullable=True),
        Column("quality_flags", pa.int32(), "Bits, each named in k2_core.quality."),
        Column(
            "exchange_date", pa.date32(), "Exchange-local date of the statement; the table partition.", origin="judge"
        ),
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
        Column(
            "event",
            pa.string(),
            "opened, closed, failed; issued for a day of files; replayed for a dead letter; of a gap, its state.",
            content=True,
        ),
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
        Column(
            "gap_id",
            pa.string(),
            "Gap the statement is about: feed:scope:session:first-last.",
            nullable=True,
            content=True,
        ),
        Column("evidence", pa.string(), "What shows it: JSON.", nullable=True, content=True),
        Column("exchange_date", pa.date32(), "UTC date of the statement; the table partition.", origin="judge"),
        *LINEAGE,
    ),
)

TICK_TABLES = (TRADES, QUOTES)
INGESTED = (TRADES, QUOTES, INSTRUMENTS, COVERAGE)
"""Tables that a topic feeds; every one goes through the same commit protocol."""
AUDIT = (RECEIPTS, DEAD_LETTERS, GAPS)
"""Tables the collector copies from receipts and sidecars."""
TABLES = (*INGESTED, *BARS, *AUDIT, DAYS)


def table_named(name: str) -> Table:
    """Find a contract by full or short name. Raises KeyError."""
    for table in TABLES:
        if name in (table.name, table.short_name):
            return table
    raise KeyError(name)
