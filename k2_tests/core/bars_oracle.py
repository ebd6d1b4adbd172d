"""Bars by their definition, in plain Python: one window at a time from its own prints, fractions and decimals only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from k2_core.bars import Basis, Hole
from k2_core.conditions import Update
from k2_core.quality import Flag
from k2_core.windows import Timeframe

CARRY = timedelta(minutes=5)
LATENESS = timedelta(minutes=1)
GRACE = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EXACT = Context(prec=80)
Print = Mapping[str, Any]


def bars(
    prints: Iterable[Print], timeframe: Timeframe, basis: Basis, holes: Iterable[Hole] = ()
) -> list[dict[str, Any]]:
    """All bars of some prints, by symbol, exchange and window."""
    told = [{**p, "may": allowed(p, basis)} for p in prints]
    scopes = defaultdict(list)
    for p in sorted(told, key=total_order):
        scopes[p["symbol"], p["exchange"]].append(p)
    heard = defaultdict(lambda: EPOCH)
    for p in told:
        key = p["exchange"], p["exchange_date"]
        heard[key] = max(heard[key], p["timestamp"])
    found = []
    for (symbol, exchange), some in sorted(scopes.items()):
        zone = ZoneInfo(basis.zones.get(exchange, "UTC"))
        windows = defaultdict(list)
        for p in some:
            windows[window(p, timeframe, zone)].append(p)
        of_scope = [h for h in holes if (h.symbol, h.exchange) == (symbol, exchange)]
        ends = [end for h in of_scope if (end := printed_after(h, some)) is not None]
        for bounds, own in sorted(windows.items(), key=lambda item: item[0]):
            found.append(bar(bounds, own, some, zone, basis, heard, ends))
    return found


def allowed(p: Print, basis: Basis) -> Update:
    may = Update(127)
    for code in p["trade_conditions"]:
        may &= basis.rules(p["exchange"]).of(code, p["exchange_date"])
    return Update(0) if p["quality_flags"] & Flag.VENDOR_EXCLUDED else may


def total_order(p: Print) -> tuple[Any, ...]:
    numbers = (p["source_sequence"], p["platform_sequence"])
    return p["timestamp"], *((n is not None, n or 0) for n in numbers), p["message_id"]


def window(p: Print, timeframe: Timeframe, zone: ZoneInfo) -> tuple[datetime, datetime]:
    if timeframe.width_us is None:
        return midnight(p["exchange_date"], zone), midnight(p["exchange_date"] + timedelta(days=1), zone)
    width = timedelta(microseconds=timeframe.width_us)
    start = EPOCH + (p["timestamp"] - EPOCH) // width * width
    return start, start + width


def midnight(day: Any, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def printed_after(hole: Hole, some: list[Print]) -> Any:
    """The print a hole is counted at: that of the next id there is on its date, else the newest below it."""
    ids = [p for p in some if p["exchange_date"] == hole.exchange_date]
    ordered = sorted(ids, key=lambda p: (p["source_sequence"] is not None, p["source_sequence"] or 0))
    above = [p for p in ordered if p["source_sequence"] is not None and p["source_sequence"] > hole.last_id]
    return (above[0] if above else ordered[-1])["message_id"] if ordered else None


def bar(
    bounds: tuple[datetime, datetime],
    own: list[Print],
    scope: list[Print],
    zone: ZoneInfo,
    basis: Basis,
    heard: Mapping[Any, datetime],
    ends: list[str],
) -> dict[str, Any]:
    start, end = bounds
    last_day, exchange = own[-1]["exchange_date"], own[-1]["exchange"]
    may = {u: [p for p in own if u in p["may"]] for u in Update}
    opened, closed = (may[Update.OPEN] or [None])[0], (may[Update.LAST] or [None])[-1]
    integral, covered = held(scope, start, end, zone)
    notional = sum((Fraction(p["price"]) * Fraction(p["quantity"]) for p in may[Update.VWAP]), Fraction())
    volume = sum((Fraction(p["quantity"]) for p in may[Update.VWAP]), Fraction())
    fits = notional < 10**22
    is_heard = heard[exchange, last_day] >= end + LATENESS
    over = max(end, midnight(last_day + timedelta(days=1), zone)) + GRACE
    return {
        "symbol": own[0]["symbol"],
        "exchange": exchange,
        "exchange_date": own[0]["exchange_date"],
        "window_start": start,
        "window_end": end,
        "open_price": opened and opened["price"],
        "high_price": max((p["price"] for p in may[Update.HIGH]), default=None),
        "low_price": min((p["price"] for p in may[Update.LOW]), default=None),
        "close_price": closed and closed["price"],
        "open_timestamp": opened and opened["timestamp"],
        "open_message_id": opened and opened["message_id"],
        "close_timestamp": closed and closed["timestamp"],
        "close_message_id": closed and closed["message_id"],
        "volume": decimal(sum((Fraction(p["quantity"]) for p in may[Update.VOLUME]), Fraction()), 8),
        "trade_count": len(may[Update.COUNT]),
        "excluded_count": len(own) - len(may[Update.COUNT]),
        "notional": decimal(notional, 16) if fits else None,
        "priced_volume": decimal(volume, 8),
        "vwap": decimal(notional / volume, 8) if volume and fits else None,
        "price_time": decimal(integral, 14),
        "covered_us": covered // timedelta(microseconds=1),
        "twap": decimal(integral / seconds(covered), 8) if covered else None,
        "twap_coverage": decimal(seconds(covered) / seconds(end - start), 8),
        "gap_count": sum(1 for key in ends if any(p["message_id"] == key for p in own)),
        "is_final": is_heard or basis.commit_time >= over,
        "heard_until": heard[exchange, last_day],
        "version": basis.version,
        "sequence_number": basis.sequence_number,
        "commit_time": basis.commit_time,
        "conditions_version": basis.rules(exchange).version,
    }


def held(scope: list[Print], start: datetime, end: datetime, zone: ZoneInfo) -> tuple[Fraction, timedelta]:
    """The integral of the last price over [start, end) in price x seconds, and how long there was one."""
    total, covered = Fraction(), timedelta()
    path = [p for p in scope if Update.LAST in p["may"]]
    for p, following in pairwise([*path, None]):
        limit = min(p["timestamp"] + CARRY, midnight(p["exchange_date"] + timedelta(days=1), zone))
        until = limit if following is None else min(limit, following["timestamp"])
        part = min(until, end) - max(p["timestamp"], start)
        if part > timedelta():
            total += Fraction(p["price"]) * seconds(part)
            covered += part
    return total, covered


def seconds(span: timedelta) -> Fraction:
    return Fraction(span // timedelta(microseconds=1), 1_000_000)


def decimal(value: Fraction, places: int) -> Decimal:
    """Rounded half to even, as Python's own integers divide."""
    return Decimal(round(value * 10**places)).scaleb(-places, EXACT)
