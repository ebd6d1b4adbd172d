"""Larger bars out of minute bars, exact: the same bar as that of the window's own prints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.bars import MAX_CARRY_US, Sums, day_bounds_us, final, first_places, held_before, last_places
from k2_core.derived_tables import BARS_1M, TOTAL
from k2_core.prints import changes
from k2_core.scopes import Scopes
from k2_core.screen import int64s
from k2_core.wide import (
    Int64s,
    Limbs,
    added,
    decimals_of,
    limbs_of_decimals,
    products,
    summed,
    units_of,
)
from k2_core.windows import DAY_US, MINUTE_US, TIMEFRAMES, Timeframe

LOOKBACK_US = MAX_CARRY_US + MINUTE_US
"""Before the first window asked for: a price holds for so long at most, and its print is in a minute before that."""
_TIMEFRAME = re.compile(r"([1-9]\d{0,3})(m|h)", re.ASCII)
_UNITS_US = {"m": MINUTE_US, "h": 60 * MINUTE_US}

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Minutes:
    """Minute bars in order, as numbers. scopes: symbol and exchange of each; runs: those of one scope and date,
    numbered; run_end_us: of the date of each bar. windows: where each begins among the bars; of: the window of each."""

    bars: pa.Table
    start_us: Int64s
    end_us: Int64s
    scopes: Int64s
    runs: Int64s
    run_end_us: Int64s
    windows: Int64s
    of: Int64s
    window_start_us: Int64s
    window_end_us: Int64s

    def sum_of(self, column: str) -> Limbs:
        return summed(limbs_of_decimals(self.bars[column]), self.windows)

    def total_of(self, column: str) -> Int64s:
        out: Int64s = np.add.reduceat(int64s(self.bars[column]), self.windows)
        return out

    def there(self, column: str) -> Mask:
        out: Mask = self.bars[column].is_valid().to_numpy()
        return out


def timeframe_named(text: str) -> Timeframe:
    """Read 1m, 15m, 4h, 1d: whole minutes of which a whole number is a day, or the exchange-local date.

    Raises ValueError.
    """
    if text in TIMEFRAMES:
        return TIMEFRAMES[text]
    match = _TIMEFRAME.fullmatch(text)
    width_us = int(match[1]) * _UNITS_US[match[2]] if match else 0
    if not width_us or DAY_US % width_us:
        raise ValueError(f"{text!r:.20} is no length of bars: expected 1d, or minutes or hours that divide a day")
    return Timeframe(text, width_us)


def rolled_up(minutes: pa.Table, timeframe: Timeframe, zones: Mapping[str, str]) -> pa.Table:
    """Bars of another length, by symbol, exchange and window. minutes: rows of bars_1m, any order.

    The bars must be all there are of their windows, and reach LOOKBACK_US back before the first: a window that is not
    whole has to be dropped by who asks. zones: time zone by exchange; UTC where it says nothing.
    """
    if not len(minutes):
        return minutes
    some = _minutes(minutes, timeframe, zones)
    columns = {**_ends(some), **_extremes(some), **_sums(some), **_standing(some)}
    schema = BARS_1M.arrow_schema()
    return pa.table([columns[f.name].cast(f.type) for f in schema], schema=schema)


def _minutes(bars: pa.Table, timeframe: Timeframe, zones: Mapping[str, str]) -> _Minutes:
    bars = bars.take(pc.sort_indices(bars, [(n, "ascending") for n in BARS_1M.sort])).combine_chunks()
    start_us = int64s(bars["window_start"])
    symbols, exchanges = Scopes.of(bars["symbol"]), Scopes.of(bars["exchange"])
    scopes = symbols.codes.astype(np.int64) * len(exchanges.names) + exchanges.codes
    days = bars["exchange_date"].cast(pa.int32()).to_numpy().astype(np.int64)
    run_starts = changes(scopes, days)
    runs = np.searchsorted(run_starts, np.arange(len(bars)), "right") - 1
    names = [exchanges.names[code] for code in exchanges.codes[run_starts]]
    run_end_us = day_bounds_us(names, days[run_starts], zones)[1][runs]
    if timeframe.width_us is None:
        windows, first_us, last_us = run_starts, *day_bounds_us(names, days[run_starts], zones)
    else:
        width_us = timeframe.width_us
        windows = changes(scopes, start_us // width_us)
        first_us = start_us[windows] // width_us * width_us
        last_us = first_us + width_us
    of = np.searchsorted(windows, np.arange(len(bars)), "right") - 1
    return _Minutes(bars, start_us, start_us + MINUTE_US, scopes, runs, run_end_us, windows, of, first_us, last_us)


def _ends(some: _Minutes) -> dict[str, Any]:
    """What the first and the last bar of a window say of it."""
    head = some.bars.take(pa.array(some.windows))
    columns: dict[str, Any] = {name: head[name] for name in ("symbol", "exchange", "exchange_date")}
    columns["window_start"] = pa.array(some.window_start_us)
    columns["window_end"] = pa.array(some.window_end_us)
    found = {
        "open": first_places(some.there("open_price"), some.windows),
        "close": last_places(some.there("close_price"), some.windows),
    }
    for end, (places, absent) in found.items():
        indices = pa.array(places, mask=absent)
        for name in (f"{end}_price", f"{end}_timestamp", f"{end}_message_id"):
            columns[name] = some.bars[name].take(indices)
    return columns


def _extremes(some: _Minutes) -> dict[str, Any]:
    rows = pa.table({"window": some.of, "high": some.bars["high_price"], "low": some.bars["low_price"]})
    found = rows.group_by("window", use_threads=False).aggregate([("high", "max"), ("low", "min")])
    return {"high_price": found["high_max"], "low_price": found["low_min"]}


def _sums(some: _Minutes) -> dict[str, Any]:
    carried, carried_us = _carried(some)
    sums = Sums(
        notional=some.sum_of("notional"),
        volume=some.sum_of("priced_volume"),
        price_time=added(some.sum_of("price_time"), carried),
        covered_us=some.total_of("covered_us") + carried_us,
        lengths_us=some.window_end_us - some.window_start_us,
    )
    counts = {name: pa.array(some.total_of(name)) for name in ("trade_count", "excluded_count", "gap_count")}
    columns = sums.columns()
    if some.bars["notional"].null_count:  # a minute whose own sum 38 digits do not hold
        beyond = np.add.reduceat(some.bars["notional"].is_null().to_numpy().astype(np.int64), some.windows) > 0
        for name in ("notional", "vwap"):
            columns[name] = pc.if_else(pa.array(beyond), None, columns[name])
    return {**counts, **columns, "volume": decimals_of(some.sum_of("volume"), TOTAL)}


def _carried(some: _Minutes) -> tuple[Limbs, Int64s]:
    """What the last price goes on holding for in the minutes without a bar: its integral and the time, per window."""
    count = len(some.bars)
    there = some.there("close_price")
    closes, at_us = units_of(some.bars["close_price"]), int64s(some.bars["close_timestamp"], 0)
    place, none = held_before(np.arange(count), ~there, some.runs)
    place, none = np.where(there, np.arange(count), place), none & ~there
    follows = np.append(some.runs[1:] == some.runs[:-1], False)
    until = np.where(follows, np.append(some.start_us[1:], 0), some.run_end_us)
    until = np.where(none, some.end_us, np.minimum(until, at_us[place] + MAX_CARRY_US))
    own = np.maximum(np.minimum(until, some.window_end_us[some.of]) - some.end_us, 0)
    # a hole may reach over into the window of the next bar, which may be of the next date
    beside = np.append(some.scopes[1:] == some.scopes[:-1], False)
    into = np.minimum(np.arange(1, count + 1), count - 1)
    over = np.maximum(until - np.maximum(some.end_us, some.window_start_us[some.of[into]]), 0)
    over = np.where(beside & (some.of[into] != some.of), over, 0)
    price = np.where(none, 0, closes[place])
    arriving, arriving_us = np.zeros((4, count), np.int64), np.zeros(count, np.int64)
    arriving[:, into[beside]], arriving_us[into[beside]] = products(price, over)[:, beside], over[beside]
    total = summed(added(products(price, own), arriving), some.windows)
    return total, np.add.reduceat(own + arriving_us, some.windows)


def _standing(some: _Minutes) -> dict[str, Any]:
    """A window stands where its last bar does."""
    last = np.append(some.windows[1:], len(some.bars)) - 1
    tail = some.bars.take(pa.array(last))
    names = ("heard_until", "version", "sequence_number", "commit_time", "conditions_version")
    heard, commit = int64s(tail["heard_until"]), int64s(tail["commit_time"])
    is_final = final(some.window_end_us, heard, some.run_end_us[last], commit)
    return {"is_final": pa.array(is_final), **{name: tail[name] for name in names}}
