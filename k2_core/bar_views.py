"""What a reader makes of bars and of the prints they come from: as of another C, by other prints, with holes counted.

The engine's own bars are of all symbols of whole dates; a reader has one symbol and often a part of a date. What such a
part cannot say (how far its exchange was heard, where a hole ends) is told here from outside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.bars import MAX_CARRY_US, Basis, Hole, day_bounds_us, final
from k2_core.conditions import Update
from k2_core.prints import COLUMNS, prints_of
from k2_core.quality import Flag
from k2_core.scopes import Scopes
from k2_core.screen import int64s
from k2_core.wide import LIMB_BITS, Limbs, limbs_of, products, ratios, summed
from k2_core.windows import to_us

Heard = Mapping[tuple[str, date], int]
"""Newest event time, in µs, by exchange and exchange date."""

_FLAG = Flag.VENDOR_EXCLUDED
"""The bit by which the update rules leave a print out of everything."""


@dataclass(frozen=True)
class GapEnd:
    """Where a hole ends: the event time of the print that follows it."""

    symbol: str
    exchange: str
    exchange_date: date
    at_us: int


def as_of(bars: pa.Table, basis: Basis, heard: Heard) -> pa.Table:
    """Bars as they stand at a basis whose trades of their dates are the same. heard: beside what the bars say."""
    if not len(bars):
        return bars
    exchanges = Scopes.of(bars["exchange"])
    names = [exchanges.names[code] for code in exchanges.codes]
    days = bars["exchange_date"].cast(pa.int32()).to_numpy().astype(np.int64)
    told = [heard.get(key, 0) for key in zip(names, bars["exchange_date"].to_pylist(), strict=True)] if heard else [0]
    heard_us = np.maximum(int64s(bars["heard_until"]), np.array(told, np.int64))
    _, day_end_us = day_bounds_us(names, days, basis.zones)
    commit_us = to_us(basis.commit_time)
    stamps = {
        "is_final": pa.array(final(int64s(bars["window_end"]), heard_us, day_end_us, commit_us)),
        "heard_until": pa.array(heard_us),
        "version": pa.repeat(basis.version, len(bars)),
        "sequence_number": pa.repeat(basis.sequence_number, len(bars)),
        "commit_time": pa.repeat(commit_us, len(bars)),
    }
    columns = [stamps[f.name].cast(f.type) if f.name in stamps else bars[f.name] for f in bars.schema]
    return pa.table(columns, schema=bars.schema)


def by_every_print(trades: pa.Table) -> pa.Table:
    """Trades that all move everything, whatever their codes and their vendor say."""
    codes = trades.schema.field("trade_conditions")
    none = pa.ListArray.from_arrays(pa.array(np.zeros(len(trades) + 1, np.int32)), pa.array([], pa.string()))
    flags = int64s(trades["quality_flags"]) & ~int(_FLAG)
    return _with(_with(trades, "trade_conditions", none.cast(codes.type)), "quality_flags", pa.array(flags))


def by_regular_prints(trades: pa.Table) -> pa.Table:
    """Trades of which those outside of trading hours move nothing."""
    flags = int64s(trades["quality_flags"])
    outside = flags & int(Flag.OUT_OF_SESSION) != 0
    return _with(trades, "quality_flags", pa.array(np.where(outside, flags | int(_FLAG), flags)))


def gap_ends(prints: pa.Table, holes: Iterable[Hole]) -> list[GapEnd]:
    """Where holes end: at the print with the next id of their date, or the newest below it; nowhere without a print.

    prints: symbol, exchange, exchange_date, timestamp and source_sequence of all prints of the dates of the holes.
    """
    missing: dict[tuple[str, str, date], list[int]] = defaultdict(list)
    for hole in holes:
        missing[hole.symbol, hole.exchange, hole.exchange_date].append(hole.last_id)
    found = []
    for (symbol, exchange, day), last_ids in missing.items():
        here = (pc.field("symbol") == symbol) & (pc.field("exchange") == exchange) & (pc.field("exchange_date") == day)
        own = prints.filter(here)
        if len(own):
            ids, at_us = int64s(own["source_sequence"], -(2**63)), int64s(own["timestamp"])
            order = np.lexsort((at_us, ids))
            after = np.minimum(np.searchsorted(ids[order], last_ids, "right"), len(ids) - 1)
            found += [GapEnd(symbol, exchange, day, int(at)) for at in at_us[order[after]]]
    return found


def with_gaps(bars: pa.Table, ends: Sequence[GapEnd]) -> pa.Table:
    """Bars with the holes counted that end in them. bars: of minutes or less, or of whole dates."""
    counts = int64s(bars["gap_count"]).copy()
    starts, stops = int64s(bars["window_start"]), int64s(bars["window_end"])
    for end in ends:
        here = (pc.field("symbol") == end.symbol) & (pc.field("exchange") == end.exchange)
        mine = np.zeros(len(bars), bool)
        mine[_places(bars, here & (pc.field("exchange_date") == end.exchange_date))] = True
        counts += mine & (starts <= end.at_us) & (end.at_us < stops)
    return _with(bars, "gap_count", pa.array(counts))


def exact_vwap(trades: pa.Table, basis: Basis) -> int | None:
    """The average price of some prints in units of 1e-8, however large their sums; None where none counts for it."""
    if not len(trades):
        return None
    prints = prints_of(trades.select(COLUMNS), basis.rules)
    quantity = np.where(prints.may(Update.VWAP), prints.quantity, 0)
    notional, volume = (_total(limbs) for limbs in (products(prints.price, quantity), limbs_of(quantity)))
    average, absent = ratios([notional], [volume])
    return None if absent[0] else int(average[0])


def overhang(trades: pa.Table, basis: Basis, cut_us: int, end_us: int) -> tuple[int, int]:
    """How much of the last price a bar holds beyond a cut of its window: price x time, in 1e-14, and the time in µs.

    trades: of one symbol and exchange, those of MAX_CARRY_US before the cut. end_us: of the window.
    """
    if not len(trades):
        return 0, 0
    prints = prints_of(trades.select(COLUMNS), basis.rules)
    held = np.flatnonzero(prints.may(Update.LAST))
    if not len(held):
        return 0, 0
    last = int(held[-1])
    _, day_end_us = day_bounds_us([prints.exchanges[0]], prints.days[last : last + 1], basis.zones)
    until_us = min(int(prints.at_us[last]) + MAX_CARRY_US, end_us, int(day_end_us[0]))
    beyond_us = max(until_us - cut_us, 0)
    return int(prints.price[last]) * beyond_us, beyond_us


def _total(limbs: Limbs) -> int:
    """The sum of some numbers, of whatever size."""
    sums = summed(limbs, np.array([0], np.intp))[:, 0].tolist()
    return sum(int(limb) << place * LIMB_BITS for place, limb in enumerate(sums))


def _places(bars: pa.Table, here: pc.Expression) -> list[int]:
    numbered = bars.select(["symbol", "exchange", "exchange_date"]).append_column("place", pa.array(range(len(bars))))
    places: list[int] = numbered.filter(here)["place"].to_pylist()
    return places


def _with(rows: pa.Table, name: str, column: pa.Array) -> pa.Table:
    field = rows.schema.field(name)
    return rows.set_column(rows.schema.get_field_index(name), field, column.cast(field.type))
