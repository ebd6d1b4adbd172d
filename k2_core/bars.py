"""Bars of trades, exact: each of a minute carries what makes every larger bar exact (see `rollups`).

A print moves what the update rules of its exchange let it (see `conditions`). First and last follow the total order.
The time-weighted price is that of the last print that may update `last`: it holds until the next one, for at most
MAX_CARRY_US, within its exchange date. So a date is computed from its own prints alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2_core.conditions import ALL, Conditions, Update
from k2_core.derived_tables import BARS_1M, NOTIONAL, PRICE_TIME, SHARE, TOTAL
from k2_core.exchange_dates import day_bounds
from k2_core.prints import COLUMNS, Prints, changes, prints_of
from k2_core.tables import PRICE
from k2_core.wide import (
    Int64s,
    Limbs,
    added,
    decimals_from,
    decimals_of,
    integers,
    limbs_of,
    narrow_ratios,
    products,
    ratios,
    summed,
)
from k2_core.windows import MINUTE_US, to_us

MAX_CARRY_US = 5 * MINUTE_US
"""A price nobody has confirmed for five minutes says nothing about now; the coverage tells how often that was so."""
LATENESS_US = MINUTE_US
"""Behind the newest print of an exchange: its Kafka partitions are read together, and reconnects replay seconds."""
GRACE_US = 60 * MINUTE_US
"""After the end of a date: reports of late prints have come, and the backlog of a restarted stack is read."""
DEFINITION = "1"
"""Raised when a bar of the same trades and rules would be another one: stored bars are then built anew."""

_LOWEST = np.iinfo(np.int64).max
"""Above every price: the minimum of none."""
_EPOCH_DAY = date(1970, 1, 1)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Basis:
    """What bars are computed from, beside the trades. conditions: by exchange; without, every print counts.

    version, sequence_number, commit_time: C of the trades, the commit it was read at, and when that was.
    zones: time zone by exchange; UTC where it says nothing.
    """

    version: str
    sequence_number: int
    commit_time: datetime
    conditions: Mapping[str, Conditions]
    zones: Mapping[str, str]

    def rules(self, exchange: str) -> Conditions:
        """The update rules of an exchange."""
        return self.conditions.get(exchange) or Conditions(exchange, (), ALL)


@dataclass(frozen=True)
class Hole:
    """Ids of one symbol that are missing, by the last of them: it counts where the next id there is printed."""

    exchange: str
    symbol: str
    exchange_date: date
    last_id: int


@dataclass(frozen=True)
class Sums:
    """Sums per bar of which prices are averages. notional: price x quantity, 1e-16. volume: 1e-8.

    price_time: price x seconds, 1e-14. covered_us, lengths_us: time with a price, and of the whole window.
    """

    notional: Limbs
    volume: Limbs
    price_time: Limbs
    covered_us: Int64s
    lengths_us: Int64s

    def columns(self) -> dict[str, Any]:
        """The sums and their averages as columns of a bar. A notional beyond its type leaves no vwap."""
        notional = decimals_of(self.notional, NOTIONAL)
        beyond = notional.is_null().to_numpy(zero_copy_only=False)
        weighted, unpriced = ratios(integers(self.notional), integers(self.volume))
        timed, uncovered = ratios(integers(self.price_time), self.covered_us.tolist())
        share = narrow_ratios(self.covered_us * 10**SHARE.scale, self.lengths_us)  # 25 hours are 9.0e18 of them
        return {
            "notional": notional,
            "priced_volume": decimals_of(self.volume, TOTAL),
            "vwap": decimals_from(weighted, PRICE, unpriced | beyond),
            "price_time": decimals_of(self.price_time, PRICE_TIME),
            "covered_us": pa.array(self.covered_us),
            "twap": decimals_from(timed, PRICE, uncovered),
            "twap_coverage": decimals_from(share, SHARE),
        }


def bars_of(trades: pa.Table, basis: Basis, holes: Iterable[Hole] = (), *, width_us: int = MINUTE_US) -> pa.Table:
    """Minute bars, by symbol, exchange and window. trades: newest revisions, at least COLUMNS, any order, any dates.

    Every window in which something printed has a bar, with null prices where nothing was eligible. width_us: another
    length, which divides MAX_CARRY_US.
    """
    if not len(trades):
        return BARS_1M.arrow_schema().empty_table()
    prints = prints_of(trades.select(COLUMNS), basis.rules)
    windows = prints.at_us // width_us
    starts = changes(prints.scopes, windows)
    start_us = windows[starts] * width_us
    end_us = start_us + width_us
    columns = {
        **_windows(prints, starts, start_us, end_us),
        **_prices(trades, prints, starts),
        **_counts(prints, starts),
        **_sums(prints, starts, start_us, end_us).columns(),
        "gap_count": pa.array(_gap_counts(prints, starts, holes)),
        **_standing(prints, starts, end_us, basis),
    }
    schema = BARS_1M.arrow_schema()
    return pa.table([columns[f.name].cast(f.type) for f in schema], schema=schema)


def day_bounds_us(exchanges: Sequence[str], days: Int64s, zones: Mapping[str, str]) -> tuple[Int64s, Int64s]:
    """Where exchange dates start and end. exchanges: names, one a date. days: since 1970-01-01."""
    pairs = list(zip(exchanges, days.tolist(), strict=True))
    found = {(e, d): day_bounds(_EPOCH_DAY + timedelta(days=d), zones.get(e, "UTC")) for e, d in set(pairs)}
    starts, ends = zip(*((to_us(found[p][0]), to_us(found[p][1])) for p in pairs), strict=True)
    return np.array(starts, np.int64), np.array(ends, np.int64)


def final(window_end_us: Int64s, heard_us: Int64s, day_end_us: Int64s, commit_us: Int64s | int) -> Mask:
    """Whether a window will not change any more, but for corrections and days that are loaded again."""
    is_over = np.maximum(window_end_us, day_end_us) + GRACE_US <= commit_us
    out: Mask = is_over | (window_end_us + LATENESS_US <= heard_us)
    return out


def first_places(allowed: Mask, starts: Int64s) -> tuple[Int64s, Mask]:
    """The first allowed place of each group, and which groups have none; there the place is just some place."""
    places = np.minimum.reduceat(np.where(allowed, np.arange(len(allowed)), len(allowed)), starts)
    absent = places == len(allowed)
    return np.where(absent, 0, places), absent


def last_places(allowed: Mask, starts: Int64s) -> tuple[Int64s, Mask]:
    """The last allowed place of each group, and which groups have none; there the place is just some place."""
    places = np.maximum.reduceat(np.where(allowed, np.arange(len(allowed)), -1), starts)
    return np.maximum(places, 0), places < 0


def held_before(last: Int64s, absent: Mask, runs: Int64s) -> tuple[Int64s, Mask]:
    """Before each group, the last place of its run so far, and which groups have none.

    last, absent: as of `last_places`. runs: the run of each group, ascending.
    """
    newest = np.maximum.accumulate(np.where(absent, -1, last))
    before = np.concatenate([[-1], newest[:-1]])
    first = np.concatenate([[0], np.flatnonzero(np.diff(runs)) + 1])
    floor = np.concatenate([[-1], newest[first[1:] - 1]])[np.searchsorted(first, np.arange(len(last)), "right") - 1]
    return np.maximum(before, 0), (before < 0) | (before <= floor)


def _windows(prints: Prints, starts: Int64s, start_us: Int64s, end_us: Int64s) -> dict[str, Any]:
    symbol, exchange = np.divmod(prints.scopes[starts], len(prints.exchanges))
    return {
        "symbol": pa.array(prints.symbols).take(pa.array(symbol)),
        "exchange": pa.array(prints.exchanges).take(pa.array(exchange)),
        "exchange_date": pa.array(prints.days[starts].astype(np.int32)),
        "window_start": pa.array(start_us),
        "window_end": pa.array(end_us),
    }


def _prices(trades: pa.Table, prints: Prints, starts: Int64s) -> dict[str, Any]:
    low = np.minimum.reduceat(np.where(prints.may(Update.LOW), prints.price, _LOWEST), starts)
    high = np.maximum.reduceat(np.where(prints.may(Update.HIGH), prints.price, 0), starts)
    columns = {
        "high_price": decimals_from(high, PRICE, high == 0),
        "low_price": decimals_from(low, PRICE, low == _LOWEST),
    }
    opened, closed = first_places(prints.may(Update.OPEN), starts), last_places(prints.may(Update.LAST), starts)
    for name, (places, absent) in (("open", opened), ("close", closed)):
        columns[f"{name}_price"] = decimals_from(prints.price[places], PRICE, absent)
        columns[f"{name}_timestamp"] = pa.array(prints.at_us[places], mask=absent)
        keys = trades["message_id"].take(pa.array(prints.places[places], mask=absent))
        columns[f"{name}_message_id"] = keys.combine_chunks()
    return columns


def _counts(prints: Prints, starts: Int64s) -> dict[str, Any]:
    counted = np.add.reduceat(prints.may(Update.COUNT).astype(np.int64), starts)
    there = np.diff(np.append(starts, len(prints)))
    volume = summed(limbs_of(np.where(prints.may(Update.VOLUME), prints.quantity, 0)), starts)
    return {
        "volume": decimals_of(volume, TOTAL),
        "trade_count": pa.array(counted),
        "excluded_count": pa.array(there - counted),
    }


def _sums(prints: Prints, starts: Int64s, start_us: Int64s, end_us: Int64s) -> Sums:
    quantity = np.where(prints.may(Update.VWAP), prints.quantity, 0)
    price_time, covered_us = _price_time(prints, starts, start_us, end_us)
    return Sums(
        notional=summed(products(prints.price, quantity), starts),
        volume=summed(limbs_of(quantity), starts),
        price_time=price_time,
        covered_us=covered_us,
        lengths_us=end_us - start_us,
    )


def _price_time(prints: Prints, starts: Int64s, start_us: Int64s, end_us: Int64s) -> tuple[Limbs, Int64s]:
    """The integral of the price that holds over each window, in 1e-14, and how long one held."""
    held = prints.may(Update.LAST)
    groups = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(prints))))
    # the price of a print holds until the next in its window, that of the last to the end of it
    until, at = end_us[groups], np.flatnonzero(held)
    follows = groups[at[1:]] == groups[at[:-1]]
    until[at[:-1]] = np.where(follows, prints.at_us[at[1:]], until[at[:-1]])
    own_us = np.where(held, until - prints.at_us, 0)
    own = summed(products(prints.price, own_us), starts)
    # before the first, the price of an earlier window does
    first, none = first_places(held, starts)
    runs = np.searchsorted(changes(prints.scopes, prints.days), starts, "right")
    before, unknown = held_before(*last_places(held, starts), runs)
    carried_until = np.minimum(np.where(none, end_us, prints.at_us[first]), prints.at_us[before] + MAX_CARRY_US)
    carried_us = np.where(unknown, 0, np.maximum(carried_until - start_us, 0))
    covered_us = np.add.reduceat(own_us, starts) + carried_us
    return added(own, products(prints.price[before], carried_us)), covered_us


def _gap_counts(prints: Prints, starts: Int64s, holes: Iterable[Hole]) -> Int64s:
    """Per bar, the holes that end in it. One of a symbol without a print on the date has nowhere to count."""
    counts = np.zeros(len(starts), np.int64)
    missing: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for hole in holes:
        missing[hole.symbol, hole.exchange, (hole.exchange_date - _EPOCH_DAY).days].append(hole.last_id)
    if not missing:
        return counts
    run_starts = changes(prints.scopes, prints.days)
    bounds = np.append(run_starts, len(prints))
    for run, first in enumerate(run_starts):
        symbol, exchange = divmod(int(prints.scopes[first]), len(prints.exchanges))
        last_ids = missing.get((prints.symbols[symbol], prints.exchanges[exchange], int(prints.days[first])))
        if last_ids:
            ids = prints.ids[first : bounds[run + 1]]
            by_id = np.argsort(ids, kind="stable")
            after = np.minimum(np.searchsorted(ids[by_id], last_ids, "right"), len(ids) - 1)
            np.add.at(counts, np.searchsorted(starts, first + by_id[after], "right") - 1, 1)
    return counts


def _standing(prints: Prints, starts: Int64s, end_us: Int64s, basis: Basis) -> dict[str, Any]:
    exchange_of = prints.scopes % len(prints.exchanges)
    days = np.unique(prints.days)
    cells = exchange_of * len(days) + np.searchsorted(days, prints.days)
    heard = np.full(len(prints.exchanges) * len(days), np.iinfo(np.int64).min)
    np.maximum.at(heard, cells, prints.at_us)
    names = [exchange for exchange in prints.exchanges for _ in days]
    _, ends = day_bounds_us(names, np.tile(days, len(prints.exchanges)), basis.zones)
    cell, exchange = cells[starts], exchange_of[starts]
    is_final = final(end_us, heard[cell], ends[cell], to_us(basis.commit_time))
    versions = [basis.rules(name).version for name in prints.exchanges]
    return {
        "is_final": pa.array(is_final),
        "heard_until": pa.array(heard[cell]),
        "version": pa.repeat(basis.version, len(starts)),
        "sequence_number": pa.repeat(basis.sequence_number, len(starts)),
        "commit_time": pa.repeat(to_us(basis.commit_time), len(starts)),
        "conditions_version": pa.array(versions).take(pa.array(exchange)),
    }
