"""The audit tables the collector copies from receipts and sidecars, each stated once. No topic feeds them."""

from __future__ import annotations

import pyarrow as pa

from k2_core.tables import LINEAGE, LINEAGE_NAMES, TIMESTAMP, Column, Table

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
_MOVED = pa.struct(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("kafka_epoch", pa.int32(), nullable=False),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("rows_in", pa.int64(), nullable=False),
        pa.field("rows_out", pa.int64(), nullable=False),
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
        Column("why", pa.string(), "Their reason; of a rewrite, what it rewrote.", nullable=True),
        Column("replaced", _list(_FILE), "Data files a rewrite took out, with rows and SHA-256.", nullable=True),
        Column("moved", _list(_MOVED), "Rows a rewrite moved, in and out, per log partition.", nullable=True),
    ),
)

DEAD_LETTERS = Table(
    name="audit.dead_letters",
    grain="one Kafka record that could not become a row",
    key=LINEAGE_NAMES,
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
    grain="one event in the life of a gap; k2_core.gap_states tells its state from them",
    key=("gap_id", "event_number"),
    sort=("feed", "scope", "first_id"),
    columns=(
        Column("gap_id", pa.string(), "feed:scope:session:first-last as detected."),
        Column("event_number", pa.int64(), "Order of the events of one table."),
        Column("state", pa.string(), "open and filled as the judge saw it; every other one as somebody stated it."),
        Column("feed", pa.string(), "Feed whose ids are missing."),
        Column("exchange", pa.string(), "Exchange of the feed."),
        Column("scope", pa.string(), "Scope of the id sequence: the symbol."),
        Column("session", pa.int32(), "Id numbering of the source, counted from 0."),
        Column("first_id", pa.int64(), "First missing id."),
        Column("last_id", pa.int64(), "Last missing id, inclusive."),
        Column("size", pa.int64(), "Ids missing."),
        Column("severity", pa.string(), "warn below 10, alert to 100, halt above."),
        Column(
            "exchange_date", pa.date32(), "Exchange date of the row that revealed it; of a statement, its UTC date."
        ),
        Column("parent", pa.string(), "Gap this one is a remainder of.", nullable=True),
        Column("actor", pa.string(), "Who moved the state: judge, a feed or an operator."),
        Column("evidence", pa.string(), "What shows it.", nullable=True),
        Column("snapshot_id", pa.int64(), "Snapshot of the table at which it was seen.", nullable=True),
        Column("version", pa.string(), "Digest of C at which it was seen.", nullable=True),
        Column("table_name", pa.string(), "Table whose commit told it.", nullable=True),
        Column("stated", TIMESTAMP, "When it was stated; null where the judge saw it.", nullable=True, unit="µs UTC"),
    ),
)
