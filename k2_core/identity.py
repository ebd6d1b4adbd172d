"""Natural keys: the message_id a feed gives to a row, the same every time the same source row is read.

Time is never part of the key of a source that has ids: one trade may arrive in milliseconds and again in microseconds.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from functools import lru_cache

SEPARATOR = ":"
"""Between the parts of a key; no part may hold it."""
SYMBOL_CHARACTERS_MAX = 128
"""Longer is not a symbol; the longest an exchange lists has fewer than 32."""
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, halves of surrogate pairs, line and paragraph separators; joiners and blanks are welcome."""

_MICROSECONDS_EXPONENT = -6


@lru_cache(maxsize=1 << 16)
def canonical(value: Decimal) -> str:
    """Write a finite decimal one way only: plain notation, no trailing zeros, no negative zero. Raises ValueError."""
    if not value.is_finite():
        raise ValueError(f"{value} has no canonical form")
    if not value:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def part_problem(text: str) -> str | None:
    """Say why a text cannot be part of a key; None when it can."""
    if SEPARATOR in text:
        return f"{text!r} holds {SEPARATOR!r}, which separates the parts of a message_id"
    if not text.isprintable() and any(unicodedata.category(c) in _REFUSED_CATEGORIES for c in text):
        return f"{text!r} holds a control character"
    return None


def symbol_problem(symbol: str) -> str | None:
    """Say why a text cannot be a symbol; None when it can. Any script is welcome."""
    if not symbol or symbol.isspace():
        return "the symbol is empty"
    if symbol == "*":
        return "the symbol is *, which stands for all symbols of a feed"
    if len(symbol) > SYMBOL_CHARACTERS_MAX:
        return f"the symbol has {len(symbol)} characters, at most {SYMBOL_CHARACTERS_MAX} are one"
    return part_problem(symbol)


def key_prefix(exchange: str, symbol: str, kind: str) -> str:
    """What every key of one symbol begins with, e.g. BINANCE:BTCUSDT:trade: with the separator."""
    return f"{exchange}:{symbol}:{kind}:"


def dated_prefix(exchange: str, symbol: str, kind: str, day: date) -> str:
    """What every key of one symbol and exchange-local date begins with, e.g. ASX:BHP:trade:2014-03-11: ."""
    return f"{key_prefix(exchange, symbol, kind)}{day.isoformat()}:"


def numbered_key(exchange: str, symbol: str, kind: str, source_id: int) -> str:
    """Key of a source with ids, e.g. BINANCE:BTCUSDT:trade:3735683259, as a feed states it."""
    return f"{key_prefix(exchange, symbol, kind)}{source_id}"


def session_suffix(session: int) -> str:
    """What the judge appends to the key of a source that began its ids anew: `~1`, `~2`; the first has none."""
    return f"~{session}" if session else ""


def trade_fields(microsecond_of_day: int, price: Decimal, quantity: Decimal, condition: str) -> str:
    """What tells the trades of one file day apart, e.g. 34512.881:36.55:400:5."""
    return f"{_seconds(microsecond_of_day)}:{canonical(price)}:{canonical(quantity)}:{condition}"


def quote_fields(microsecond_of_day: int, prices_and_sizes: Iterable[Decimal | None]) -> str:
    """What tells the quotes of one file day apart, e.g. 20623.676:37.7:0:300:0.

    prices_and_sizes: bid, ask, bid size, ask size; an absent one is written 0, as the file does.
    """
    parts = ("0" if value is None else canonical(value) for value in prices_and_sizes)
    return SEPARATOR.join((_seconds(microsecond_of_day), *parts))


def counted_key(exchange: str, symbol: str, kind: str, day: date, *, fields: str, occurrence: int) -> str:
    """Key of a source without ids, e.g. ASX:BHP:trade:2014-03-11:34512.881:36.55:400:5:0. day: exchange-local."""
    return f"{dated_prefix(exchange, symbol, kind, day)}{fields}:{occurrence}"


def source_id(key: str) -> str:
    """`{EXCHANGE}-{source id}` of a counted key: what follows the symbol stands in for the id."""
    exchange, _symbol, tail = key.split(SEPARATOR, 2)
    return f"{exchange}-{tail}"


def _seconds(microsecond_of_day: int) -> str:
    return canonical(Decimal(microsecond_of_day).scaleb(_MICROSECONDS_EXPONENT))


class Occurrences:
    """Numbers rows that are equal in their key fields, from 0, over the whole (symbol, kind, exchange date)."""

    def __init__(self) -> None:
        self._seen: dict[str, Counter[tuple[str, date, str]]] = {}

    def next(self, symbol: str, kind: str, day: date, fields: str) -> int:
        """Number of this occurrence."""
        counts = self._seen.setdefault(symbol, Counter())
        key = (kind, day, fields)
        number = counts[key]
        counts[key] = number + 1
        return number

    def forget_all_but(self, symbols: Iterable[str]) -> None:
        """Free what was counted for symbols that cannot come again."""
        kept = set(symbols)
        self._seen = {symbol: counts for symbol, counts in self._seen.items() if symbol in kept}
