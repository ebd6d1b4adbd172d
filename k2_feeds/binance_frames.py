"""One JSON frame of Binance spot, live or captured: a trade, a book ticker, or something to pass over.

A frame of the futures market is passed over by name: its ids are numbered apart and may have holes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from k2_core.identity import numbered_key
from k2_core.quality import Flag
from k2_feeds.outcomes import PassedOver, Refusal, Row, Unusable
from k2_feeds.values import identifier, positive, side, symbol, whole

EXCHANGE = "BINANCE"
ASSET_CLASS = "crypto"
TRADES_FEED = "binance-trades"
QUOTES_FEED = "binance-quotes"

# fmt: off
QUOTE_ASSETS = (
    "FDUSD", "RLUSD", "BFUSD", "USDT", "USDC", "TUSD", "BUSD", "USDP", "USDS", "USD1", "XUSD", "AEUR", "EURI", "BIDR",
    "BVND", "IDRT", "BKRW", "DOGE", "BTC", "ETH", "BNB", "TRX", "XRP", "SOL", "DOT", "DAI", "PAX", "UST", "VAI", "EUR",
    "GBP", "AUD", "TRY", "RUB", "BRL", "UAH", "JPY", "MXN", "ARS", "COP", "CZK", "IDR", "NGN", "PLN", "RON", "ZAR",
)
"""Assets that spot symbols end in, longest first; a frame does not say where base ends and quote begins."""
# fmt: on
UNKNOWN_CURRENCY = "UNKNOWN"

MICROSECONDS_FROM = 10**14
"""A time from here on is in microseconds (as milliseconds it would be the year 5138), below it in milliseconds."""
_TIME_END = 10**17
"""As microseconds the year 5138: beyond is nanoseconds or noise."""
_KIND_CHARACTERS_MAX = 40
"""A kind is counted by its name; a longer one is noise and is counted by its beginning."""
_BOOK_TICKER_KEYS = frozenset({"u", "s", "b", "B", "a", "A"})


def parse_frame(frame: bytes, received_us: int) -> Row | PassedOver:
    """Read one frame. received_us: when our feed received it, µs UTC. Raises Unusable, nothing else."""
    document = _json(frame)
    stream, event = _unwrap(document)
    kind = _kind(stream, event)
    reader = _READERS.get(kind)
    return reader(event, received_us) if reader else PassedOver(kind[:_KIND_CHARACTERS_MAX])


def currency_of(pair: str) -> str:
    """The quote asset at the end of a symbol, or UNKNOWN."""
    for asset in QUOTE_ASSETS:
        if pair.endswith(asset) and len(pair) > len(asset):
            return asset
    return UNKNOWN_CURRENCY


def _json(frame: bytes) -> Any:
    try:
        text = frame.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable(Refusal.NOT_UTF8, f"byte {error.start} of the frame is not UTF-8") from None
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise Unusable(Refusal.NOT_JSON, f"{type(error).__name__}: {error!s:.200}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _unwrap(document: Any) -> tuple[str, Mapping[str, Any]]:
    """Stream name (empty for a raw frame) and event. An array of events is taken as an event without keys."""
    if not isinstance(document, dict):
        raise Unusable(Refusal.WRONG_TYPE, f"the frame is a JSON {type(document).__name__}, expected an object")
    if "stream" not in document:
        return "", document
    stream, data = document["stream"], document.get("data")
    if not isinstance(stream, str) or not isinstance(data, dict | list):
        raise Unusable(Refusal.WRONG_TYPE, "expected a combined frame: stream a text, data an object")
    return stream, data if isinstance(data, dict) else {}


def _kind(stream: str, event: Mapping[str, Any]) -> str:
    name = event.get("e") or (stream[1:] if stream.startswith("!") else stream.partition("@")[2])
    if not isinstance(name, str):
        raise Unusable(Refusal.WRONG_TYPE, f"event type e is a JSON {type(name).__name__}, expected text")
    if name == "trade" and "X" in event:
        return "futures trade"
    if name == "bookTicker" and "T" in event:
        return "futures bookTicker"
    return name or _kind_by_keys(event)


def _kind_by_keys(event: Mapping[str, Any]) -> str:
    """Frames of a raw stream that do not name themselves."""
    if event.keys() >= {"u", "s"} and event.keys() & {"b", "B", "a", "A"} and event.keys() <= _BOOK_TICKER_KEYS:
        return "bookTicker"
    if "lastUpdateId" in event:
        return "depth snapshot"
    return "answer" if event.keys() & {"result", "error", "code"} else "unnamed"


def trade_row(
    pair: Any,
    trade_id: Any,
    price: Any,
    quantity: Any,
    time: Any,
    *,
    buyer_is_maker: Any,
    received_us: int,
    vendor_data: Mapping[str, str] | None,
) -> Row:
    """Build the row of one spot trade, the same whether a stream, REST or a dump told it.

    time: ms or µs UTC since 1970, told apart by magnitude. price, quantity: text or exact numbers, never floats.
    vendor_data: the rest of the record. Raises Unusable.
    """
    pair, number = symbol(pair), identifier(trade_id, "trade id")
    if type(buyer_is_maker) is not bool:
        raise Unusable(Refusal.WRONG_TYPE, f"buyer is maker is a {type(buyer_is_maker).__name__}, expected a boolean")
    record: dict[str, Any] = {
        "message_id": numbered_key(EXCHANGE, pair, "trade", number),
        "trade_id": f"{EXCHANGE}-{number}",
        **_instrument(pair),
        "timestamp": microseconds(time, "trade time"),
        "price": positive(price, "price"),
        "quantity": positive(quantity, "quantity"),
        "side": "SELL" if buyer_is_maker else "BUY",
        "trade_conditions": [],
        "source_sequence": number,
        "platform_sequence": None,
        "ingestion_timestamp": received_us,
        "vendor_data": vendor_data,
        "quality_flags": 0,
    }
    return Row(TRADES_FEED, pair, record)


def _trade(event: Mapping[str, Any], received_us: int) -> Row:
    return trade_row(
        _need(event, "s"),
        _need(event, "t"),
        _need(event, "p"),
        _need(event, "q"),
        _need(event, "T"),
        buyer_is_maker=_need(event, "m"),
        received_us=received_us,
        vendor_data=_event_time(event),
    )


def _book_ticker(event: Mapping[str, Any], received_us: int) -> Row:
    pair, update_id = symbol(_need(event, "s")), identifier(_need(event, "u"), "update id u")
    bid_price, bid_quantity = side(_need(event, "b"), _need(event, "B"), "bid")
    ask_price, ask_quantity = side(_need(event, "a"), _need(event, "A"), "ask")
    record = {
        "message_id": numbered_key(EXCHANGE, pair, "quote", update_id),
        "quote_id": f"{EXCHANGE}-{update_id}",
        **_instrument(pair),
        "timestamp": received_us,
        "bid_price": bid_price,
        "bid_quantity": bid_quantity,
        "ask_price": ask_price,
        "ask_quantity": ask_quantity,
        "source_sequence": update_id,
        "platform_sequence": None,
        "ingestion_timestamp": received_us,
        "vendor_data": None,
        "quality_flags": int(Flag.RECEIVE_TIME_AS_EVENT_TIME),
    }
    return Row(QUOTES_FEED, pair, record)


_READERS: dict[str, Callable[[Mapping[str, Any], int], Row]] = {"trade": _trade, "bookTicker": _book_ticker}


def _instrument(pair: str) -> dict[str, str]:
    return {"symbol": pair, "exchange": EXCHANGE, "asset_class": ASSET_CLASS, "currency": currency_of(pair)}


def _need(event: Mapping[str, Any], key: str) -> Any:
    try:
        return event[key]
    except KeyError:
        raise Unusable(Refusal.MISSING_VALUE, f"key {key} is missing") from None


def _event_time(event: Mapping[str, Any]) -> dict[str, str] | None:
    """When the exchange sent the frame, as it wrote it."""
    if "E" not in event:
        return None
    microseconds(event["E"], "event time E")
    return {"E": str(event["E"])}


def microseconds(value: object, name: str) -> int:
    """A time of Binance, ms or µs since 1970 told apart by magnitude, as µs. Raises Unusable."""
    found = whole(value, name)
    if not 0 < found < _TIME_END:
        raise Unusable(Refusal.IMPLAUSIBLE_TIME, f"{name} is neither milliseconds nor microseconds since 1970")
    return found if found >= MICROSECONDS_FROM else found * 1_000
