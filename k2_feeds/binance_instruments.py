"""Instruments of Binance spot: the exchangeInfo document, from a file or from REST.

It says how things are when it is asked for, not since when. So each answer is a description from the UTC date of its
server time on: the last one at or before a date tells how things were, and a day is told once however often it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from k2_core.windows import from_us
from k2_feeds.binance_frames import ASSET_CLASS, EXCHANGE, microseconds
from k2_feeds.instruments import Described, instrument_row, text
from k2_feeds.lines import KEPT_BYTES_MAX, read_lines
from k2_feeds.outcomes import Outcome, Outcomes, Refusal, Rejected, Row, Unusable
from k2_feeds.values import number, symbol
from k2_resources.binance.rest import BinanceRest

FEED = "binance-instruments"
DOCUMENT_BYTES_MAX = 64 << 20
"""The answer about all symbols has 3 to 20 MB; a larger document is another one."""
_COLUMNS = ("symbol", "status", "baseAsset", "quoteAsset")
_STEPS = {"price_increment": ("PRICE_FILTER", "tickSize"), "quantity_increment": ("LOT_SIZE", "stepSize")}


def read_exchange_info(path: Path, now_us: Callable[[], int]) -> Outcomes:
    """What each symbol of an exchangeInfo file became, gz or plain. now_us: the clock of receipt, µs UTC.

    Raises BadInput when the file cannot be opened.
    """
    try:
        document = _document(path)
    except Unusable as problem:
        yield _whole(str(path), problem)
        return
    yield from told_by(document, str(path), now_us())


def ask_exchange_info(url: str, symbols: Sequence[str], now_us: Callable[[], int]) -> Outcomes:
    """What each symbol the exchange tells of became. symbols: those to ask for; none asks for all.

    Raises Unreachable, BadInput (an unknown symbol), Misconfigured.
    """
    with BinanceRest(url) as rest:
        document = rest.exchange_info(symbols)
    return told_by(document, url, now_us())


def told_by(document: Any, source: str, received_us: int) -> Outcomes:
    """What each symbol of an exchangeInfo document became; a rejection names its place in the list, from 1.

    document: decoded JSON, without floats. source: how to name where it comes from.
    """
    try:
        stated_us, symbols = _stated_us(document), _symbols(document)
    except Unusable as problem:
        yield _whole(source, problem)
        return
    for place, entry in enumerate(symbols, start=1):
        yield _outcome(entry, source, place, stated_us, received_us)


def _document(path: Path) -> Any:
    content = bytearray()
    for line in read_lines(path):
        if isinstance(line, Rejected):
            raise Unusable(line.reason, line.detail)
        content += line.content
        if len(content) > DOCUMENT_BYTES_MAX:
            raise Unusable(Refusal.LINE_TOO_LONG, f"more than {DOCUMENT_BYTES_MAX} bytes are no exchangeInfo")
    try:
        return json.loads(content, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise Unusable(Refusal.NOT_JSON, f"{type(error).__name__}: {error!s:.200}") from None


def _stated_us(document: Any) -> int:
    if not isinstance(document, dict) or "serverTime" not in document:
        raise Unusable(Refusal.MISSING_VALUE, "no exchangeInfo: it has no serverTime")
    return microseconds(document["serverTime"], "serverTime")


def _symbols(document: Mapping[str, Any]) -> list[Any]:
    found = document.get("symbols")
    if not isinstance(found, list) or not found:
        raise Unusable(Refusal.MISSING_VALUE, "no exchangeInfo: it has no list of symbols")
    return found


def _outcome(entry: Any, source: str, place: int, stated_us: int, received_us: int) -> Outcome:
    try:
        return _row(entry, stated_us, received_us)
    except Unusable as problem:
        raw = json.dumps(entry, default=str).encode()[:KEPT_BYTES_MAX]
        return Rejected(source, place, problem.reason, problem.detail, raw, FEED)


def _row(entry: Any, stated_us: int, received_us: int) -> Row:
    if not isinstance(entry, dict):
        raise Unusable(Refusal.WRONG_TYPE, f"the symbol is a JSON {type(entry).__name__}, expected an object")
    pair, quote = symbol(entry.get("symbol")), text(entry.get("quoteAsset"), "quoteAsset")
    if quote is None:
        raise Unusable(Refusal.MISSING_VALUE, "quoteAsset is missing")
    steps = _steps(entry)
    described = Described(
        exchange=EXCHANGE,
        asset_class=ASSET_CLASS,
        source_id=pair,
        symbol=pair,
        currency=quote,
        first=_date(stated_us),
        end=None,
        stated_us=stated_us,
        base_asset=text(entry.get("baseAsset"), "baseAsset"),
        status=text(entry.get("status"), "status"),
        price_increment=steps["price_increment"],
        quantity_increment=steps["quantity_increment"],
        vendor_data={name: _told(value) for name, value in entry.items() if name not in _COLUMNS},
    )
    return instrument_row(FEED, described, received_us)


def _date(stated_us: int) -> date:
    return from_us(stated_us).date()


def _steps(entry: Mapping[str, Any]) -> dict[str, Decimal | None]:
    """Smallest steps of price and quantity; a filter that is absent, or 0, sets none."""
    filters = entry.get("filters", [])
    if not isinstance(filters, list):
        raise Unusable(Refusal.WRONG_TYPE, f"filters is a JSON {type(filters).__name__}, expected a list")
    by_type = {str(told.get("filterType")): told for told in filters if isinstance(told, dict)}
    found = {name: by_type.get(kind, {}).get(field) for name, (kind, field) in _STEPS.items()}
    return {name: None if value is None else _step(value, name) for name, value in found.items()}


def _step(value: object, name: str) -> Decimal | None:
    found = number(value, name)
    if found < 0:
        raise Unusable(Refusal.NOT_POSITIVE, f"{name} is {found}, expected at least 0")
    return found or None


def _told(value: object) -> str:
    """A value of the source as text: nested ones as JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, default=str, ensure_ascii=False)
    except RecursionError:
        raise Unusable(Refusal.NOT_JSON, "its values are nested too deeply") from None


def _whole(source: str, problem: Unusable) -> Rejected:
    """A document that is refused as a whole."""
    return Rejected(source, 0, problem.reason, problem.detail, b"", FEED, damaged=True)
