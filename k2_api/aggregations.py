"""What POST /v1/aggregations computes: bars of the prints of a range and no others, and what traded at which price.

A window inside the range is the bar of that window. One that the range cuts is computed of the prints inside alone; a
price holds in it from its first print on, and until the range ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from k2_api.bar_questions import BarsAsked
from k2_api.bar_reads import BarReads
from k2_api.bar_texts import decimal_texts, json_rows
from k2_api.pinning import Pinned
from k2_api.problems import Problem
from k2_core.bar_fills import counted
from k2_core.bar_views import overhang
from k2_core.bars import MAX_CARRY_US
from k2_core.derived_tables import BARS_1M, SHARE
from k2_core.profiles import merged, profile_of
from k2_core.tables import PRICE
from k2_core.windows import DAY_US, FIRST_US, LAST_US, from_us, to_us

BUCKETS_MAX = 100_000
"""Buckets of one answer: some 40 MB of JSON."""
LEVELS_MAX = 200_000
"""Prices in the profiles of one answer: as much."""
_SHORTER = "ask for a shorter range or a longer interval"
_SHOWN: dict[str, set[str]] = {
    **{f"{name}_price": {"ohlcv"} for name in ("open", "high", "low", "close")},
    "volume": {"ohlcv"},
    "trade_count": {"trade_count", "volume_profile"},
    "vwap": {"vwap"},
    "twap": {"twap"},
}
"""Which metrics a column is shown for; a profile counts, too, as on the original platform."""


@dataclass(frozen=True)
class Buckets:
    """Bars by symbol, exchange and window, and of each its profile as JSON where it was asked for."""

    bars: pa.Table
    profiles: Sequence[str | None]

    def table(self, metrics: Sequence[str]) -> pa.Table:
        """Columns in the order of an answer; null those that were not asked for."""
        bars, wanted = self.bars, set(metrics)
        columns = {
            "symbol": bars["symbol"],
            "exchange": bars["exchange"],
            "interval_start": bars["window_start"],
            "interval_end": bars["window_end"],
        }
        shown = {n: bars[n] if of & wanted else pa.nulls(len(bars), bars[n].type) for n, of in _SHOWN.items()}
        return pa.table({**columns, **shown, "volume_profile": pa.array(self.profiles, pa.string())})

    def texts(self, metrics: Sequence[str], *, numbers: bool) -> list[str]:
        """Rows as JSON."""
        table = self.table(metrics)
        rows = json_rows([(name, table[name]) for name in table.column_names[:-1]], numbers=numbers)
        return [
            f'{row[:-1]},"volume_profile":{profile or "null"}}}'
            for row, profile in zip(rows, self.profiles, strict=True)
        ]


async def buckets_of(
    reads: BarReads, pinned: Pinned, questions: Sequence[BarsAsked], *, profiled: bool, numbers: bool
) -> Buckets:
    """The buckets of some symbols. numbers: decimals of profiles without quotes.

    Raises Problem 413 for more than an answer may have.
    """
    found: list[pa.Table] = [BARS_1M.arrow_schema().empty_table()]
    texts: list[str | None] = []
    levels = 0
    for asked in questions:
        bars = await _bars(reads, pinned, asked, BUCKETS_MAX - sum(map(len, found)))
        found.append(bars)
        if profiled:
            profiles = await _profiles(reads, pinned, asked, LEVELS_MAX - levels)
            levels += sum(map(len, profiles.values()))
            texts += [_profile_text(profiles.get(key, []), numbers) for key in _keys(bars, asked)]
        else:
            texts += [None] * len(bars)
    return Buckets(pa.concat_tables(found), texts)


async def _bars(reads: BarReads, pinned: Pinned, asked: BarsAsked, buckets_max: int) -> pa.Table:
    """Bars of one symbol by exchange and window, the cut ones of the prints in the range alone."""
    found, cut = [BARS_1M.arrow_schema().empty_table()], []
    async for bars in reads.walk(pinned, asked.between(_first_us(asked), asked.end_us), descending=False):
        overlapping = bars.filter(pc.greater(bars["window_end"], _instant(bars, asked.start_us)))
        is_cut = pc.or_(
            pc.less(overlapping["window_start"], _instant(bars, asked.start_us)),
            pc.greater(overlapping["window_end"], _instant(bars, asked.end_us)),
        )
        found.append(counted(overlapping.filter(pc.invert(is_cut))))
        cut += overlapping.filter(is_cut).to_pylist()
        if sum(map(len, found)) > buckets_max:
            raise Problem(413, "RESOURCE_LIMIT_EXCEEDED", f"more than {BUCKETS_MAX} buckets; {_SHORTER}")
    edges = [await _edge(reads, pinned, asked, bar) for bar in cut]
    return pa.concat_tables([*found, *edges]).sort_by([("exchange", "ascending"), ("window_start", "ascending")])


def _first_us(asked: BarsAsked) -> int:
    """Where the first window may begin that the range overlaps; a local day has 25 hours at times."""
    width_us = asked.timeframe.width_us
    start_us = asked.start_us - DAY_US * 2 if width_us is None else asked.start_us - asked.start_us % width_us
    return max(start_us, FIRST_US)


async def _edge(reads: BarReads, pinned: Pinned, asked: BarsAsked, bar: dict[str, Any]) -> pa.Table:
    low_us, high_us = max(to_us(bar["window_start"]), asked.start_us), min(to_us(bar["window_end"]), asked.end_us)
    found = counted(await reads.clipped(pinned, asked, bar, (low_us, high_us)))
    basis = reads.basis(pinned)
    if not len(found) or basis is None:
        return found
    near = asked.between(max(high_us - MAX_CARRY_US, low_us), high_us)
    prints = [piece async for piece in reads.pieces(pinned, near)]
    prints = [piece.filter(pc.equal(piece["exchange"], bar["exchange"])) for piece in prints]
    beyond, beyond_us = (
        overhang(pa.concat_tables(prints), basis, high_us, to_us(bar["window_end"])) if prints else (0, 0)
    )
    (own,) = found.to_pylist()
    integral, covered_us = int(own["price_time"].scaleb(14)) - beyond, own["covered_us"] - beyond_us
    columns = {
        "twap": pa.array([_ratio(integral, covered_us)], PRICE),
        "twap_coverage": pa.array([_ratio(covered_us * 10**8, high_us - low_us)], SHARE),
    }
    for name, column in columns.items():
        found = found.set_column(found.schema.get_field_index(name), found.schema.field(name), column)
    return found


async def _profiles(
    reads: BarReads, pinned: Pinned, asked: BarsAsked, levels_max: int
) -> Mapping[tuple[str, int], list[Any]]:
    """Levels by exchange and window, ascending by price."""
    basis = reads.basis(pinned)
    profile = merged([])
    if basis is not None:
        async for piece in reads.pieces(pinned, asked):
            profile = merged([profile, profile_of(piece, basis, asked.timeframe)])
            if len(profile) > levels_max:
                raise Problem(413, "RESOURCE_LIMIT_EXCEEDED", f"more than {LEVELS_MAX} prices; {_SHORTER}")
    prices, volumes = (decimal_texts(profile[name].combine_chunks()).to_pylist() for name in ("price", "volume"))
    levels = defaultdict(list)
    keys = zip(profile["exchange"].to_pylist(), profile["window_us"].to_pylist(), strict=True)
    for key, price, volume, count in zip(keys, prices, volumes, profile["trade_count"].to_pylist(), strict=True):
        levels[key].append((price, volume, count))
    return levels


def _keys(bars: pa.Table, asked: BarsAsked) -> list[tuple[str, int]]:
    """Exchange and window of each bar, as profiles name them."""
    if asked.is_daily:
        windows = [day * DAY_US for day in bars["exchange_date"].cast(pa.int32()).to_pylist()]
    else:
        windows = bars["window_start"].cast(pa.int64()).to_pylist()
    return list(zip(bars["exchange"].to_pylist(), windows, strict=True))


def _profile_text(levels: Sequence[tuple[str, str, int]], numbers: bool) -> str:
    mark = "" if numbers else '"'
    told = (
        f'{{"price":{mark}{price}{mark},"volume":{mark}{volume}{mark},"trade_count":{count}}}'
        for price, volume, count in levels
    )
    return f"[{','.join(told)}]"


def _ratio(numerator: int, denominator: int) -> Decimal | None:
    """In units of 1e-8, rounded half to even."""
    return Decimal(round(Fraction(numerator, denominator))).scaleb(-8) if denominator else None


def _instant(bars: pa.Table, at_us: int) -> pa.Scalar:
    return pa.scalar(from_us(min(at_us, LAST_US)), bars.schema.field("window_start").type)
