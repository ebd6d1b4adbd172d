"""ASX trade and quote files in the layout of Tick Data: no header, Sydney local time, one company per file.

trades: date, time, price, volume, sales_condition, exclude_record_flag, filtered_price
quotes: date, time, bid, ask, bid_size, ask_size

A day's load is whole: all its parts in one command, because occurrence numbers count over the day. Local times that
happen twice when summer time ends are taken as the first; those that never happen, as if the clock had not moved yet.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal
from zoneinfo import ZoneInfo

from k2_core.identity import Occurrences, counted_key, part_problem, quote_fields, source_id, trade_fields
from k2_core.quality import Flag
from k2_feeds.companies import Companies
from k2_feeds.lines import Line
from k2_feeds.outcomes import Outcome, Outcomes, PassedOver, Refusal, Rejected, Row, Unusable
from k2_feeds.values import number, positive, side

EXCHANGE = "ASX"
ASSET_CLASS = "equities"
CURRENCY = "AUD"
TRADES_FEED = "asx-trades"
QUOTES_FEED = "asx-quotes"
ZONE = ZoneInfo("Australia/Sydney")
EXCLUDED = "X"
BLANK = "blank line"

Kind = Literal["trade", "quote"]
COLUMNS: dict[Kind, int] = {"trade": 7, "quote": 6}
FEEDS: dict[Kind, str] = {"trade": TRADES_FEED, "quote": QUOTES_FEED}

_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)
_TIME = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})(?:\.(\d{1,6})0*)?", re.ASCII)
_CONDITION_CHARACTERS_MAX = 32
"""Codes have one or two characters; a longer text is another column."""
_EPOCH = date(1970, 1, 1)
_SECOND_US = 1_000_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Part:
    """One file of a load. company: the stem of its name; symbols: every symbol its rows may get."""

    name: str
    kind: Kind
    company: str
    symbols: frozenset[str]
    lines: Callable[[], Iterator[Line | Rejected]]


@dataclass
class _Counts:
    """What is counted over a (symbol, exchange date) while a load runs."""

    occurrences: Occurrences = field(default_factory=Occurrences)
    ordinals: Counter[tuple[str, Kind, date]] = field(default_factory=Counter)

    def forget_all_but(self, symbols: frozenset[str]) -> None:
        self.occurrences.forget_all_but(symbols)
        self.ordinals = Counter({at: n for at, n in self.ordinals.items() if at[0] in symbols})


def read_parts(parts: tuple[Part, ...], companies: Companies | None, now_us: Callable[[], int]) -> Outcomes:
    """What each line of a load became, part by part in the given order. now_us: the clock of receipt, µs UTC."""
    counts = _Counts()
    for i, part in enumerate(parts):
        for line in part.lines():
            yield _outcome(part, line, companies, counts, now_us)
        counts.forget_all_but(frozenset[str]().union(*(later.symbols for later in parts[i + 1 :])))


def moment_of(content: bytes) -> datetime | None:
    """Local wall time a line states, None when it states none."""
    try:
        fields = _fields(content.removeprefix(_BYTE_ORDER_MARK))
        return datetime.combine(_day(fields[0]), _time(fields[1]))
    except (Unusable, IndexError):
        return None


def _outcome(
    part: Part, line: Line | Rejected, companies: Companies | None, counts: _Counts, now_us: Callable[[], int]
) -> Outcome:
    known = next(iter(part.symbols)) if len(part.symbols) == 1 else None
    if isinstance(line, Rejected):
        return Rejected(
            line.file, line.line, line.reason, line.detail, line.raw, FEEDS[part.kind], known, damaged=line.damaged
        )
    content = line.content.removeprefix(_BYTE_ORDER_MARK) if line.number == 1 else line.content
    if not content.strip():
        return PassedOver(BLANK)
    try:
        return _row(part, _fields(content), companies, counts, now_us())
    except Unusable as problem:
        reason, detail = problem.reason, problem.detail
        return Rejected(part.name, line.number, reason, detail, line.content, FEEDS[part.kind], known)


def _fields(content: bytes) -> list[str]:
    try:
        return [text.strip() for text in content.decode("utf-8").split(",")]
    except UnicodeDecodeError as error:
        raise Unusable(Refusal.NOT_UTF8, f"byte {error.start} of the line is not UTF-8") from None


def _row(part: Part, fields: list[str], companies: Companies | None, counts: _Counts, received_us: int) -> Row:
    if fields[0].lower() in ("date", '"date"'):
        raise Unusable(Refusal.HEADER, "a header line; the layout has none, its columns are taken by position")
    if len(fields) != COLUMNS[part.kind]:
        raise Unusable(Refusal.WRONG_COLUMNS, f"{len(fields)} columns, a {part.kind} has {COLUMNS[part.kind]}")
    day, clock = _day(fields[0]), _time(fields[1])
    symbol = _symbol(part, day, companies)
    values, key_fields = _READERS[part.kind](fields, _microsecond_of_day(clock))
    occurrence = counts.occurrences.next(symbol, part.kind, day, key_fields)
    key = counted_key(EXCHANGE, symbol, part.kind, day, fields=key_fields, occurrence=occurrence)
    at = (symbol, part.kind, day)
    record = {
        "message_id": key,
        f"{part.kind}_id": source_id(key),
        "symbol": symbol,
        "exchange": EXCHANGE,
        "asset_class": ASSET_CLASS,
        "currency": CURRENCY,
        "timestamp": _utc_us(day, clock),
        "source_sequence": None,
        "platform_sequence": counts.ordinals[at],
        "ingestion_timestamp": received_us,
        **values,
    }
    counts.ordinals[at] += 1
    return Row(FEEDS[part.kind], symbol, record)


def _trade(fields: list[str], microsecond_of_day: int) -> tuple[dict[str, Any], str]:
    price, quantity = positive(fields[2], "price"), positive(fields[3], "volume")
    condition, flag, filtered = fields[4:]
    problem = part_problem(condition)
    if len(condition) > _CONDITION_CHARACTERS_MAX:
        problem = f"sales condition has {len(condition)} characters, at most {_CONDITION_CHARACTERS_MAX} are one"
    if problem:
        raise Unusable(Refusal.BAD_CONDITION, problem)
    if flag not in ("", EXCLUDED):
        raise Unusable(Refusal.UNKNOWN_FLAG, f"exclude flag is {flag[:40]!r}, expected X or nothing")
    if filtered:
        number(filtered, "filtered_price")
    values = {
        "price": price,
        "quantity": quantity,
        "side": "UNKNOWN",
        "trade_conditions": [condition] if condition else [],
        "vendor_data": {"filtered_price": filtered} if filtered else None,
        "quality_flags": int(Flag.VENDOR_EXCLUDED) if flag else 0,
    }
    return values, trade_fields(microsecond_of_day, price, quantity, condition)


def _quote(fields: list[str], microsecond_of_day: int) -> tuple[dict[str, Any], str]:
    bid: tuple[Decimal | None, Decimal | None] = side(fields[2], fields[4], "bid")
    ask: tuple[Decimal | None, Decimal | None] = side(fields[3], fields[5], "ask")
    values = {
        "bid_price": bid[0],
        "bid_quantity": bid[1],
        "ask_price": ask[0],
        "ask_quantity": ask[1],
        "vendor_data": None,
        "quality_flags": 0,
    }
    return values, quote_fields(microsecond_of_day, (bid[0], ask[0], bid[1], ask[1]))


_READERS: dict[Kind, Callable[[list[str], int], tuple[dict[str, Any], str]]] = {"trade": _trade, "quote": _quote}


def _symbol(part: Part, day: date, companies: Companies | None) -> str:
    found = companies.symbol_on(part.company, day) if companies else next(iter(part.symbols))
    if found is None:
        raise Unusable(Refusal.UNKNOWN_SYMBOL, f"company {part.company} has no symbol on {day} in the company file")
    return found


@lru_cache(maxsize=64)
def _day(text: str) -> date:
    match = _DATE.fullmatch(text)
    try:
        if match:
            return date(int(match[3]), int(match[1]), int(match[2]))
    except ValueError:
        pass  # no such day: falls through to the same refusal
    raise Unusable(Refusal.IMPLAUSIBLE_TIME, f"date is {text[:40]!r}, expected MM/DD/YYYY")


def _time(text: str) -> time:
    match = _TIME.fullmatch(text)
    try:
        if match:
            return time(int(match[1]), int(match[2]), int(match[3]), int((match[4] or "0").ljust(6, "0")))
    except ValueError:
        pass  # no such time: falls through to the same refusal
    raise Unusable(Refusal.IMPLAUSIBLE_TIME, f"time is {text[:40]!r}, expected HH:MM:SS with up to six decimals")


def _microsecond_of_day(clock: time) -> int:
    return ((clock.hour * 60 + clock.minute) * 60 + clock.second) * _SECOND_US + clock.microsecond


def _utc_us(day: date, clock: time) -> int:
    offset = datetime.combine(day, clock, ZONE).utcoffset()
    assert offset is not None, "a zone always has an offset"
    midnight_us = (day - _EPOCH).days * 86_400 * _SECOND_US
    return midnight_us + _microsecond_of_day(clock) - int(offset.total_seconds()) * _SECOND_US
