"""Rows of any query as the bytes of an answer; decimals and instants are exact in every format."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import ipc

from k2_core.errors import BadInput

FORMATS = ("json", "ndjson", "csv", "arrow", "parquet")

_NANOSECONDS = pa.timestamp("ns")


def render(rows: pa.Table, form: str) -> bytes:
    """The bytes of rows in one of FORMATS; json is an array of objects. Raises BadInput for rows it cannot express."""
    repeated = [name for name, count in Counter(rows.column_names).items() if count > 1]
    if repeated:
        raise BadInput(f"two columns are named {repeated[0]!r}; name one of them with AS")
    try:
        return _RENDERINGS[form](rows)
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise BadInput(f"a value cannot be written as {form}: {error}") from error


def _json(rows: pa.Table) -> bytes:
    return b"[" + b",".join(_objects(rows)) + b"]"


def _ndjson(rows: pa.Table) -> bytes:
    return b"".join(line + b"\n" for line in _objects(rows))


def _csv(rows: pa.Table) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows.column_names)
    for row in _plain_rows(rows):
        writer.writerow(json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else v for v in row.values())
    return text.getvalue().encode()


def _arrow(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    with ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def _parquet(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd", compression_level=1)
    return sink.getvalue()


_RENDERINGS = {"json": _json, "ndjson": _ndjson, "csv": _csv, "arrow": _arrow, "parquet": _parquet}


def _objects(rows: pa.Table) -> Iterator[bytes]:
    for row in _plain_rows(rows):
        yield json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _plain_rows(rows: pa.Table) -> Iterator[dict[str, Any]]:
    for place, column in enumerate(rows.schema):
        if column.type == _NANOSECONDS:  # finer than Python's own
            text = pc.replace_substring(rows[place].cast(pa.string()), " ", "T")
            rows = rows.set_column(place, column.name, text)
    for batch in rows.to_batches():
        for row in batch.to_pylist():
            yield {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one line a kind of value
    """What JSON can say without losing anything: decimals and everything it has no word for become text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            return format(value, "f")
        case datetime() if value.tzinfo is not None:
            return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # the session's zone is UTC
        case date() | time():
            return value.isoformat()
        case bytes():
            return value.hex()
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case [(_, _), *_] if all(isinstance(pair, tuple) for pair in value):
            return {str(_plain(key)): _plain(inner) for key, inner in value}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return str(value)
