"""audit.days stated once: what K2 says of a day of one symbol, and the certificate anybody can compute again."""

from __future__ import annotations

import pyarrow as pa

from k2_core.tables import TIMESTAMP, Column, Table

SUM = pa.decimal128(38, 8)
"""Of prices or quantities: eight decimals as they have, and thirty digits before them, which no day fills."""
VERDICTS = ("complete", "incomplete", "not_verifiable", "not_collected")
ALL_SYMBOLS = "*"
"""Symbol of a day on which a feed has no row of any."""


def _list(**fields: pa.DataType) -> pa.ListType:
    item = pa.struct([pa.field(name, of, nullable=False) for name, of in fields.items()])
    return pa.list_(pa.field("element", item, nullable=False))


_NAMES = pa.list_(pa.field("element", pa.string(), nullable=False))
_GAPS = _list(gap_id=pa.string(), state=pa.string(), size=pa.int64())
_SUMS = _list(column=pa.string(), total=SUM)
_RULES = _list(name=pa.string(), version=pa.string())
_RANGES = _list(
    kafka_topic=pa.string(), kafka_epoch=pa.int32(), kafka_partition=pa.int32(), start=pa.int64(), end=pa.int64()
)
_OFFSETS = _list(topic=pa.string(), kafka_partition=pa.int32(), kafka_epoch=pa.int32(), next=pa.int64())

_JUDGED = (
    Column("verdict", pa.string(), "What can be said of the day, never a guess.", choices=VERDICTS),
    Column(
        "expected",
        pa.int64(),
        "Rows there must be at least: by ids without holes, or by the latest load; null where nobody can know.",
        nullable=True,
    ),
    Column("present", pa.int64(), "Rows there are: keys, each by its newest revision."),
    Column("missing", pa.int64(), "Rows known to be missing; null where nothing could tell.", nullable=True),
    Column("duplicates", pa.int64(), "Rows stored again under the same key and revision; a close wants none."),
    Column("superseded", pa.int64(), "Stored rows of the date that a later revision replaced, on whatever date."),
    Column("withdrawn", pa.int64(), "Keys stored that the latest load no longer has; null without one.", nullable=True),
    Column("dead_letters", pa.int64(), "Refused records of the symbol between the first and last offsets of its rows."),
    Column("collections", pa.int64(), "Collections that say they sent rows of the symbol at times of the date."),
    Column("covered_start", TIMESTAMP, "Earliest event time they state.", nullable=True, unit="µs UTC"),
    Column("covered_end", TIMESTAMP, "Latest event time they state.", nullable=True, unit="µs UTC"),
)
_CERTIFIED = (
    Column("first_message_id", pa.string(), "Key of the first row in total order.", nullable=True),
    Column("last_message_id", pa.string(), "Key of the last row in total order.", nullable=True),
    Column("first_id", pa.int64(), "Smallest id of its source; null where it gives none.", nullable=True),
    Column("last_id", pa.int64(), "Largest id of its source; null where it gives none.", nullable=True),
    Column("gaps", _GAPS, "Holes in the ids in the day or at its edges, with their states."),
    Column("sums", _SUMS, "Exact sum of each decimal content column over the rows; nulls count nothing."),
    Column("digest_columns", _NAMES, "Columns of a canonical row, in order."),
    Column("sha256", pa.string(), "SHA-256 over the canonical rows; null where there are none.", nullable=True),
    Column("rules", _RULES, "Versions of everything the answer depends on beside the rows."),
    Column("ranges", _RANGES, "Kafka offsets [start, end) that hold every stored row of the date."),
    Column("offsets", _OFFSETS, "C: rows below it were read, and no others."),
    Column("lake_version", pa.string(), "SHA-256 digest of C."),
)

DAYS = Table(
    name="audit.days",
    grain="one closing of one exchange date of one symbol of a feed",
    key=("feed", "symbol", "exchange_date", "version"),
    sort=("feed", "symbol", "exchange_date", "version"),
    columns=(
        Column("feed", pa.string(), "Feed whose day it is."),
        Column("symbol", pa.string(), f"Symbol; {ALL_SYMBOLS} where the feed has no row of any."),
        Column("exchange_date", pa.date32(), "Exchange-local date."),
        Column("version", pa.int32(), "1 = as first closed; 2.. = closed again because it changed. Read the largest."),
        Column("exchange", pa.string(), "Exchange of the feed."),
        Column("table_name", pa.string(), "Table that holds the rows."),
        *_JUDGED,
        *_CERTIFIED,
        Column("table_uuid", pa.string(), "Iceberg identity of that table."),
        Column("sequence_number", pa.int64(), "Commit of it that was read."),
        Column("closed", TIMESTAMP, "When it was closed.", unit="µs UTC"),
        Column("run_id", pa.string(), "Run that closed it."),
        Column("code_version", pa.string(), "K2 version that closed it."),
    ),
)
