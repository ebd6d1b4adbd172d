"""What the API must answer, computed a second time in plain Python over the stored rows."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any
from zoneinfo import ZoneInfo

from k2_tests.api.homes import Row, dated
from k2_tests.ticks import NOON, trade

MINUTES = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "1h": 60}
ZONES = {"ASX": ZoneInfo("Australia/Sydney"), "BINANCE": UTC}
_LEAST = -(2**63)
_BIG = Decimal("9999999999.99999999")


def newest(rows: Iterable[Row]) -> list[Row]:
    best: dict[str, Row] = {}
    for row in rows:
        held = best.get(row["message_id"])
        if held is None or row["revision"] > held["revision"]:
            best[row["message_id"]] = row
    return sorted(best.values(), key=total_order)


def total_order(row: Row) -> tuple[Any, ...]:
    sequences = (_LEAST if row[n] is None else row[n] for n in ("source_sequence", "platform_sequence"))
    return (row["timestamp"], *sequences, row["message_id"])


def asked(rows: Iterable[Row], **question: Any) -> list[Row]:
    """Newest revisions that match, oldest first. question: symbol, exchange, start, end, eligible."""
    return [
        row
        for row in newest(rows)
        if question.get("symbol") in (None, row["symbol"])
        and question.get("exchange") in (None, row["exchange"])
        and (question.get("start") is None or row["timestamp"] >= question["start"])
        and (question.get("end") is None or row["timestamp"] < question["end"])
        and not (question.get("eligible") and row["quality_flags"] & 1)
    ]


def bars(rows: Iterable[Row], timeframe: str, **question: Any) -> list[dict[str, Any]]:
    """Bars, oldest first; start and end choose windows."""
    start, end = question.pop("start", None), question.pop("end", None)
    windows: dict[tuple[datetime, datetime, str], list[Row]] = {}
    for row in asked(rows, **question):
        low, high = window(row, timeframe)
        if (start is None or start <= low) and (end is None or low < end):
            windows.setdefault((low, high, row["exchange"]), []).append(row)
    return [_bar(*key, windows[key]) for key in sorted(windows, key=lambda k: (k[0], k[2]))]


def window(row: Row, timeframe: str) -> tuple[datetime, datetime]:
    if timeframe == "1d":
        zone = ZONES[row["exchange"]]
        day: date = row["exchange_date"]
        bounds = (datetime.combine(d, time(), zone).astimezone(UTC) for d in (day, day + timedelta(days=1)))
        return next(bounds), next(bounds)
    width = timedelta(minutes=MINUTES[timeframe])
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    low = epoch + (row["timestamp"] - epoch) // width * width
    return low, low + width


def _bar(low: datetime, high: datetime, exchange: str, rows: list[Row]) -> dict[str, Any]:
    with localcontext(prec=200):
        volume = sum((r["quantity"] for r in rows), Decimal(0))
        notional = sum((r["price"] * r["quantity"] for r in rows), Decimal(0))
        vwap = (notional / volume).quantize(Decimal("1e-8"), ROUND_HALF_EVEN)
    prices = [r["price"] for r in rows]
    return {
        "window_start": low,
        "window_end": high,
        "exchange": exchange,
        "open_price": prices[0],
        "high_price": max(prices),
        "low_price": min(prices),
        "close_price": prices[-1],
        "volume": volume,
        "trade_count": len(rows),
        "vwap": vwap,
    }


def read_bar(bar: dict[str, Any]) -> dict[str, Any]:
    """A bar of an answer, in the oracle's types."""
    instants = {n: datetime.fromisoformat(bar[n]) for n in ("window_start", "window_end")}
    names = ("open_price", "high_price", "low_price", "close_price", "volume", "vwap")
    return {
        **instants,
        "exchange": bar["exchange"],
        **{n: Decimal(bar[n]) for n in names},
        "trade_count": bar["trade_count"],
    }


def random_trades(seed: int, rows: int) -> list[Row]:
    """Trades of two symbols, one of them on two exchanges, with ties, nulls, extremes, exclusions and corrections."""
    chance = random.Random(seed)
    made = [_random_trade(chance, number) for number in range(rows)]
    corrections = []
    for row in chance.sample(made, rows // 8):
        for revision in range(1, chance.randint(1, 2) + 1):
            corrections.append(dated({**_moved(chance, row), "revision": revision}))
    return made + corrections


def _random_trade(chance: random.Random, number: int) -> Row:
    exchange = chance.choice(["BINANCE", "BINANCE", "ASX"])
    symbol = chance.choice(["DUAL", "BTCUSDT"]) if exchange == "BINANCE" else "DUAL"
    row = trade(number, symbol=symbol, exchange=exchange)
    return dated({**row, "message_id": f"{exchange}:{symbol}:trade:{number}", **_content(chance, exchange)})


def _content(chance: random.Random, exchange: str) -> Row:
    # coarse times on four days make ties; a day's first and last minutes make windows at its edges
    minute = chance.choice([0, 1, 2, 700, 701, 779, 780, 1438, 1439])
    instant = NOON.replace(hour=0) + timedelta(
        days=chance.randrange(4), minutes=minute, seconds=chance.choice([0, 0, 30]), microseconds=chance.choice([0, 1])
    )
    big = chance.random() < 0.2
    return {
        "timestamp": instant,
        "price": _BIG if big else Decimal(chance.randrange(1, 10**12)).scaleb(-8),
        "quantity": _BIG if big and chance.random() < 0.9 else Decimal(chance.randrange(1, 10**10)).scaleb(-8),
        "side": chance.choice(["BUY", "SELL", "UNKNOWN"]),
        "source_sequence": None if exchange == "ASX" else chance.choice([None, 1, 2, 3]),
        "platform_sequence": chance.choice([None, 0, 1]),
        "trade_conditions": chance.choice(
            [
                [],
                ["5"],
                ["5", 'q"\\'],
            ]
        ),
        "vendor_data": chance.choice([None, {}, {"k": 'quote " é 😀 \u0001'}]),
        "quality_flags": chance.choice([0, 0, 0, 1, 4, 5]),
    }


def _moved(chance: random.Random, row: Row) -> Row:
    """A correction: other content under the same key, often in another minute or on another day."""
    kept = {n: v for n, v in row.items() if n not in ("revision", "exchange_date")}
    return {**kept, **_content(chance, row["exchange"]), "source_sequence": row["source_sequence"]}
