"""What can be asked, as calls: the words of Python turned into those of HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, TypedDict

from k2_client.conversations import instant
from k2_client.steps import Call, Value

Instant = datetime | str
"""An instant: with a zone, or ISO 8601 text, which is UTC where it names no zone."""
Names = str | Sequence[str]
Interval = str


class Ticks(TypedDict, total=False):
    """Filters of trades and quotes. All of them must hold; those left out hold for every row.

    [start, end) is event time. version, snapshot_id, as_of and tag choose a state of the table, one of them at most.
    view: raw, clean or (trades) eligible. revisions: of corrected rows the newest content, the first, or all.
    """

    exchange: Names
    start: Instant
    end: Instant
    view: Literal["raw", "clean", "eligible"]
    revisions: Literal["latest", "first", "all"]
    order: Literal["asc", "desc"]
    fields: Sequence[str]
    version: str
    snapshot_id: int
    as_of: Instant
    tag: str


class Prints(Ticks, total=False):
    """Filters of trades alone: aggressors, condition codes, inclusive bounds of price and quantity."""

    sides: Names
    conditions: Names
    min_price: Decimal | str
    max_price: Decimal | str
    min_quantity: Decimal | str
    max_quantity: Decimal | str


def ticks(table: str, symbol: Names | None, asked: Mapping[str, Any]) -> Call:
    """The call for rows of a tick table, oldest first unless asked otherwise, in Arrow."""
    named = {"order": "asc", "symbols": symbol, **asked, "format": "arrow"}
    if "exchange" in named:
        named["exchanges"] = named.pop("exchange")
    fields = named.get("fields")
    if fields:
        named["fields"] = sorted({*fields, "timestamp"})  # where a stream goes on is told by it
    return Call("GET", f"/v1/{table}", _parameters(named))


def bars(interval: Interval, symbol: str, asked: Mapping[str, Any]) -> Call:
    """The call for bars of one symbol, oldest first."""
    return Call("GET", f"/v1/bars/{interval}", _parameters({"symbol": symbol, "limit": 10_000, **asked}))


def recent(symbol: str, exchange: str, window_minutes: int, limit: int) -> Call:
    """The call for trades of the last minutes, the tail of the log included."""
    asked = {"symbol": symbol, "exchange": exchange, "window_minutes": window_minutes, "limit": limit}
    return Call("GET", "/v1/trades/recent", _parameters(asked))


def statement(text: str, limit: int, asked: Mapping[str, Any]) -> Call:
    """The call for a statement, answered in Arrow."""
    body = {**_parameters({"sql": text, "limit": limit, "format": "arrow"}), **_parameters(asked, ("versions",))}
    return Call("POST", "/v1/sql", body=body)


def plain(path: str, asked: Mapping[str, Any]) -> Call:
    """The call for any other path of K2."""
    return Call("GET", path, _parameters(asked))


_RENAMED = {"start": "start_time", "end": "end_time"}


def _parameters(asked: Mapping[str, Any], kept: Sequence[str] = ()) -> dict[str, Value]:
    """Parameters as the server names and writes them; what is None is left out."""
    known = {name: value for name, value in asked.items() if value is not None}
    return {_RENAMED.get(n, n): (v if n in kept else _written(v)) for n, v in known.items()}


def _written(value: Any) -> Value:
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date | Decimal):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [str(_written(one)) for one in value]
    return value if isinstance(value, int) else str(value)
