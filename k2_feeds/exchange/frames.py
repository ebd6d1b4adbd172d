"""What goes over a stream: events as Binance writes them, and the bytes of a WebSocket frame around them."""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import cycle

from websockets.frames import Frame, Opcode

from k2_feeds.exchange.ticks import Print, Quote, text

SHUTDOWN_STREAM = "!serverShutdown"
_DEEP = 400
"""Nesting that no event has and every parser bears."""
GARBAGE = (
    "not json at all",
    '{"e":"trade","s":',
    '{"e":"trade","E":NaN,"s":"X","t":1}',
    "[]",
    '{"e":"trade","s":7,"t":"many","p":[],"q":null,"T":{},"m":"yes"}',
    "[" * _DEEP + "]" * _DEEP,
    "\u0000\u0007",
)
"""Frames that are no event, sent in turn: none carries anything of a trade."""
_garbage = cycle(GARBAGE)


def stream_of(symbol: str, kind: str) -> str:
    """The name of a stream: of a symbol in small letters."""
    return f"{symbol.lower()}@{kind}"


def trade_event(tick: Print, sent_us: int, *, microseconds: bool) -> str:
    """A trade event. sent_us: when the exchange sends it (E)."""
    unit = 1 if microseconds else 1_000
    return (
        f'{{"e":"trade","E":{sent_us // unit},"s":{_quoted(tick.symbol)},"t":{tick.trade_id},'
        f'"p":"{text(tick.price)}","q":"{text(tick.quantity)}","T":{tick.time_us // unit},'
        f'"m":{"true" if tick.buyer_is_maker else "false"},"M":true}}'
    )


def book_ticker_event(tick: Quote) -> str:
    """A book ticker, which on spot has no time and does not name itself."""
    return (
        f'{{"u":{tick.update_id},"s":{_quoted(tick.symbol)},"b":"{text(tick.bid)}","B":"{text(tick.bid_quantity)}",'
        f'"a":"{text(tick.ask)}","A":"{text(tick.ask_quantity)}"}}'
    )


def shutdown_event(now_us: int, *, microseconds: bool) -> str:
    """The announcement of a cut."""
    return f'{{"e":"serverShutdown","E":{now_us // (1 if microseconds else 1_000)}}}'


def combined(stream: str, event: str) -> str:
    """Wrap an event as combined streams do."""
    return f'{{"stream":{_quoted(stream)},"data":{event}}}'


def half(event: str) -> str:
    """The first half of a frame's text."""
    return event[: len(event) // 2]


def garbage(_event: str) -> str:
    """The next piece of garbage instead of an event."""
    return next(_garbage)


def frame_bytes(content: str) -> bytes:
    """A text frame as it is on the wire: a server does not mask, and nothing is compressed."""
    return Frame(Opcode.TEXT, content.encode()).serialize(mask=False)


@lru_cache(maxsize=4_096)
def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
