"""Bodies of every format read back, as strictly as a careful client would."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from k2_tests.api.homes import Row

NAMES = ("json", "ndjson", "csv", "parquet", "arrow")


class CutOffError(Exception):
    """Raised for a body that is not whole."""


def read_body(name: str, body: bytes, headers: Mapping[str, str]) -> list[Row]:
    """Rows of a body as the contract types them. Raises CutOffError."""
    return {"json": _json, "ndjson": _ndjson, "csv": _csv, "parquet": _parquet, "arrow": _arrow}[name](body, headers)


def read_text_row(row: Mapping[str, Any]) -> Row:
    """A row of texts, JSON values or not, in the contract's types."""
    return {name: _typed(name, value) for name, value in row.items()}


def _json(body: bytes, headers: Mapping[str, str]) -> list[Row]:
    try:
        return [read_text_row(row) for row in json.loads(body)["data"]]
    except ValueError:
        raise CutOffError from None


def _ndjson(body: bytes, headers: Mapping[str, str]) -> list[Row]:
    try:
        rows = [json.loads(line) for line in body.splitlines()]
    except ValueError:
        raise CutOffError from None
    if not body.endswith(b"\n") or not rows or "_end" not in rows[-1]:
        raise CutOffError
    end, before = rows.pop()["_end"], body[: body[:-1].rfind(b"\n") + 1]
    if end["rows"] != len(rows) or end["sha256"] != hashlib.sha256(before).hexdigest():
        raise CutOffError
    assert end["version"] == headers["K2-Version"]
    return [read_text_row(row) for row in rows]


def _csv(body: bytes, headers: Mapping[str, str]) -> list[Row]:
    if not body.endswith(b"\n"):
        raise CutOffError
    reader = csv.DictReader(io.StringIO(body.decode(errors="replace"), newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error:
        raise CutOffError from None
    if len(rows) != int(headers["K2-Row-Count"]):
        raise CutOffError
    return [read_text_row({n: _from_csv(n, v) for n, v in row.items()}) for row in rows]


def _parquet(body: bytes, headers: Mapping[str, str]) -> list[Row]:
    try:
        return [_plain(row) for row in pq.read_table(io.BytesIO(body)).to_pylist()]
    except (pa.ArrowInvalid, OSError):
        raise CutOffError from None


def _arrow(body: bytes, headers: Mapping[str, str]) -> list[Row]:
    rows: list[Row] = []
    facts: Any = None
    try:
        reader = pa.ipc.open_stream(body)
        while True:
            batch, facts = reader.read_next_batch_with_custom_metadata()
            rows += batch.to_pylist()
    except StopIteration:
        pass
    except (pa.ArrowInvalid, OSError):
        raise CutOffError from None
    if facts is None or int(facts["k2.rows"]) != len(rows) or not body.endswith(b"\xff\xff\xff\xff\0\0\0\0"):
        raise CutOffError
    return [_plain(row) for row in rows]


def _plain(row: Row) -> Row:
    return {n: dict(v) if n == "vendor_data" and v is not None else v for n, v in row.items()}


def _from_csv(name: str, value: str) -> Any:
    if value == "":
        return None
    return json.loads(value) if name in ("vendor_data", "trade_conditions") else value


def _typed(name: str, value: Any) -> Any:
    if value is None:
        return None
    if "timestamp" in name:
        return datetime.fromisoformat(value)
    if name == "exchange_date":
        return datetime.fromisoformat(value).date()
    if "price" in name or "quantity" in name:
        assert isinstance(value, str), "no decimal is written as a number"
        return Decimal(value)
    return int(value) if name in _NUMBERS else value


_NUMBERS = ("revision", "source_sequence", "platform_sequence", "quality_flags")
