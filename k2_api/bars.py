"""Bars out of aggregated rows: window bounds, exact average prices, order and text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from k2_core.exchange_dates import day_bounds
from k2_core.windows import DAY_US, EPOCH, Timeframe, from_us, iso, to_us, vwap

Key = tuple[int, int, str]
"""(window, start of it in µs, exchange): the order of bars. A daily window is its date."""


@dataclass(frozen=True)
class Bar:
    """One bar; decimals as exact text."""

    key: Key
    start: datetime
    end: datetime
    exchange: str
    prices: tuple[str, str, str, str]
    volume: str
    trade_count: int
    vwap: str | None

    def json(self, symbol: str, timeframe: str, *, numbers: bool) -> str:
        """Render it, decimals quoted unless numbers are asked for."""
        open_price, high_price, low_price, close_price = (_decimal(p, numbers) for p in self.prices)
        average = "null" if self.vwap is None else _decimal(self.vwap, numbers)
        return (
            f'{{"symbol":{json.dumps(symbol)},"exchange":{json.dumps(self.exchange)},"timeframe":"{timeframe}",'
            f'"window_start":"{iso(self.start)}","window_end":"{iso(self.end)}",'
            f'"open_price":{open_price},"high_price":{high_price},"low_price":{low_price},"close_price":{close_price},'
            f'"volume":{_decimal(self.volume, numbers)},"trade_count":{self.trade_count},"vwap":{average}}}'
        )


def bars_of(rows: pa.Table, timeframe: Timeframe, zones: Mapping[str, str]) -> list[Bar]:
    """Bars of the rows of bars.sql, in no order. zones: time zone per exchange, UTC where it says nothing."""
    return [_bar(row, timeframe, zones.get(row["exchange"], "UTC")) for row in rows.to_pylist()]


def ordered(bars: Iterable[Bar], *, descending: bool, after: Key | None) -> list[Bar]:
    """Bars in reading order, those at or before `after` left out."""
    kept = (b for b in bars if after is None or (b.key < after if descending else b.key > after))
    return sorted(kept, key=lambda bar: bar.key, reverse=descending)


def _bar(row: Mapping[str, Any], timeframe: Timeframe, zone: str) -> Bar:
    window_us = row["window_us"]
    start, end = _bounds(window_us, timeframe, zone)
    notional_e16 = int(row["notional_units"]) * 10**16 + _units(row["notional_fraction"])
    return Bar(
        (window_us, to_us(start), row["exchange"]),
        start,
        end,
        row["exchange"],
        (row["open_price"], row["high_price"], row["low_price"], row["close_price"]),
        row["volume"],
        row["trade_count"],
        vwap(notional_e16, _units(row["volume"])),
    )


def _bounds(window_us: int, timeframe: Timeframe, zone: str) -> tuple[datetime, datetime]:
    if timeframe.width_us is None:
        return day_bounds(date.fromordinal(EPOCH.toordinal() + window_us // DAY_US), zone)
    return from_us(window_us), from_us(window_us + timeframe.width_us)


def _units(decimal: str) -> int:
    """A decimal's text in units of its last digit: exact, whatever its size."""
    return int(decimal.replace(".", ""))


def _decimal(text: str, numbers: bool) -> str:
    return text if numbers else f'"{text}"'
