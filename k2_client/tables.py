"""Answers as Arrow tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from k2_client.conversations import Reply
from k2_client.errors import Broken

DECIMAL = pa.decimal128(38, 8)
"""Ten digits more than prices have: volumes are sums."""
_INSTANT = pa.timestamp("us", tz="UTC")
_BAR_TYPES: Mapping[str, pa.DataType] = {
    **dict.fromkeys(("open_price", "high_price", "low_price", "close_price", "volume", "vwap", "twap"), DECIMAL),
    "twap_coverage": DECIMAL,
    **dict.fromkeys(("trade_count", "excluded_count", "gap_count"), pa.int64()),
    **dict.fromkeys(("is_final", "is_filled"), pa.bool_()),
    **dict.fromkeys(("window_start", "window_end"), _INSTANT),
    "exchange_date": pa.date32(),
}
"""Columns of a bar that are more than text."""
_BAR_COLUMNS = ("symbol", "exchange", "interval", "exchange_date", "window_start", "window_end", *_BAR_TYPES)


def table_of(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """One table of all batches; there is at least one, empty when there are no rows."""
    return pa.Table.from_batches(batches)


def shown(batch: pa.RecordBatch, fields: Sequence[str] | None) -> pa.RecordBatch:
    """The columns asked for, in the order in which the server shows them."""
    if not fields:
        return batch
    return batch.select([name for name in batch.schema.names if name in set(fields)])


def bars_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Bars with their types; a column this client does not know is text. Raises Broken."""
    found = list(rows)
    names = dict.fromkeys((*_BAR_COLUMNS, *(name for row in found[:1] for name in row)))
    schema = pa.schema([(name, _BAR_TYPES.get(name, pa.string())) for name in names])
    try:
        return pa.Table.from_pylist(
            [{n: _value(schema.field(n).type, row.get(n)) for n in names} for row in found], schema
        )
    except (ValueError, ArithmeticError, pa.ArrowException) as error:
        raise Broken(f"a bar cannot be read: {error}") from None


def sql_table(reply: Reply) -> pa.Table:
    """The rows of a statement; metadata say k2.versions and k2.truncated. Raises Broken."""
    told = {
        "k2.versions": reply.head.headers.get("k2-versions", ""),
        "k2.truncated": reply.head.headers.get("k2-truncated", ""),
    }
    try:
        rows = pa.ipc.open_stream(reply.body).read_all()
    except (pa.ArrowException, OSError) as error:
        raise Broken(f"the answer cannot be read: {error}") from None
    if str(rows.num_rows) != reply.head.headers.get("k2-row-count"):
        raise Broken(f"the answer has {rows.num_rows:,} rows and says that it has another number")
    return rows.replace_schema_metadata({**(rows.schema.metadata or {}), **told})


def _value(kind: pa.DataType, value: Any) -> Any:
    if value is None:
        return None
    if kind == DECIMAL:
        return Decimal(str(value))
    if kind == _INSTANT:
        return datetime.fromisoformat(value)
    if kind == pa.date32():
        return date.fromisoformat(value)
    return value if kind != pa.string() or isinstance(value, str) else str(value)
