"""Reads of bars: as of one C of the trades, from what is stored where that is of the same trades, else from the prints.

Both ways give the same bars: a stored bar is used only where no commit between its C and the one asked for names its
date, and how it stands (final or not) is told anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from k2_api.bar_hearing import Hearing
from k2_api.bar_questions import BarsAsked
from k2_api.bar_stored import Shelves, StoredBars
from k2_api.bar_walks import ROWS_AT_ONCE, Slice, Stretch, rows_by_date, slices, stretch_dates, stretches
from k2_api.pinning import Pinned
from k2_api.plans import Span, within
from k2_api.questions import Ticks
from k2_api.reads import Reads
from k2_api.sources import reading, source_of, values_of
from k2_core.bar_views import as_of, by_every_print, by_regular_prints, exact_vwap, gap_ends, with_gaps
from k2_core.bars import MAX_CARRY_US, Basis, Hole, bars_of
from k2_core.contracts import TRADES
from k2_core.derived_tables import BARS_1M
from k2_core.exchange_dates import day_bounds
from k2_core.prints import COLUMNS
from k2_core.rollups import rolled_up
from k2_core.tables import PRICE
from k2_core.windows import MINUTE_US, from_us, to_us
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived_reads import Rules
from k2_resources.lake.files import DataFileEntry

_BARS = BARS_1M.arrow_schema()
_PRINTS = pa.schema([TRADES.arrow_schema().field(name) for name in COLUMNS])


@dataclass(frozen=True)
class _Desk:
    """What the bars of one question are computed by.

    shelves: None where nothing is stored. clip: event times [start, end) outside which nothing counts, if any.
    """

    pinned: Pinned
    asked: BarsAsked
    basis: Basis
    files: Sequence[DataFileEntry]
    shelves: Shelves | None
    clip: tuple[int, int] | None = None


class BarReads:
    """All reads of bars. Safe to share between requests."""

    def __init__(self, reads: Reads, lake: Lake, rules: Rules) -> None:
        self.reads = reads
        self.rules = rules
        self._stored = StoredBars(reads, lake, rules)
        self.hearing = Hearing(reads)

    def digest(self, pinned: Pinned) -> str:
        """What the bars of a table go by, beside its rows: part of the name of every answer."""
        return self.rules.digest(pinned.state.table_uuid if pinned.state else "")

    async def walk(
        self,
        pinned: Pinned,
        asked: BarsAsked,
        *,
        descending: bool,
        resume_us: int | None = None,
        wanted: int | None = None,
    ) -> AsyncIterator[pa.Table]:
        """Bars as rows of bars_1m, stretch by stretch in reading order; within one, by exchange and window.

        A window in which something printed has a bar, whether anything in it counts or not. resume_us: the window to
        go on from, itself included; one of dates by its date. wanted: how many bars the reader stops at, about.
        """
        desk = await self._desk(pinned, asked)
        if desk is None:
            return
        cut = stretches(
            desk.files,
            asked.timeframe,
            asked.start_us,
            asked.end_us,
            descending=descending,
            resume_us=resume_us,
            wanted=wanted,
        )
        for stretch in cut:
            bars = await self._bars(desk, stretch)
            if len(bars):
                yield bars

    async def whole(self, pinned: Pinned, asked: BarsAsked) -> pa.Table:
        """All bars of a question at once, oldest first per exchange."""
        found = [bars async for bars in self.walk(pinned, asked, descending=False)]
        return pa.concat_tables([_BARS.empty_table(), *found])

    async def clipped(self, pinned: Pinned, asked: BarsAsked, bar: dict[str, Any], clip: tuple[int, int]) -> pa.Table:
        """The same window of the prints in [start, end) alone; no row without one. bar: one that `whole` gives."""
        own = replace(asked, exchange=bar["exchange"])
        desk = await self._desk(pinned, own)
        if desk is None:
            return _BARS.empty_table()
        desk = replace(desk, clip=clip, shelves=None)
        dates = stretch_dates(desk.files, clip)
        stretch = Stretch(*clip, tuple(day for day in dates if not asked.is_daily or day == bar["exchange_date"]))
        parts = await self._parts(desk, stretch, stretch.dates)
        units = [_BARS.empty_table(), *[await self._computed(desk, part) for part in parts]]
        rolled = await asyncio.to_thread(rolled_up, pa.concat_tables(units), asked.timeframe, desk.basis.zones)
        return await self._averaged(desk, rolled)

    async def pieces(self, pinned: Pinned, asked: BarsAsked) -> AsyncIterator[pa.Table]:
        """The prints of [start, end), each once, part by part, as the view of the question sees them."""
        desk = await self._desk(pinned, asked)
        if desk is None:
            return
        span = (asked.start_us, asked.end_us)
        stretch = Stretch(*span, stretch_dates(desk.files, span))
        for part in await self._parts(desk, stretch, stretch.dates):
            low_us, high_us = max(part.start_us, asked.start_us), min(part.end_us, asked.end_us)
            yield _seen_as(await self.prints(pinned, asked.between(low_us, high_us), part.dates), asked)

    def basis(self, pinned: Pinned) -> Basis | None:
        """What bars of a state are computed by; None while nothing was ever committed."""
        state = pinned.state
        if state is None or state.snapshot_id is None or state.commit_time is None:
            return None
        conditions, zones = self.rules.conditions, self.rules.zones
        return Basis(pinned.version, state.sequence_number, state.commit_time, conditions, zones)

    async def prints(self, pinned: Pinned, asked: BarsAsked, dates: Sequence[date] = ()) -> pa.Table:
        """What bars depend on of the newest revisions of the trades of a symbol with event times in [start, end).

        dates: neighbouring ones, if only theirs are wanted. In no order.
        """
        span = Span(asked.start_us, asked.end_us)
        if dates:
            span = span.dates(min(dates).toordinal(), max(dates).toordinal() + 1)
        ticks = _ticks(asked)
        source = source_of(pinned, ticks.symbols)
        files = within(source.files, span)
        if not files:
            return _PRINTS.empty_table()
        values = {**values_of(ticks), **source.values(), **reading(files, span)}
        rows = await self.reads.duck.query(source.over("bar_prints", selected="selected"), values)
        return rows.select(COLUMNS).cast(_PRINTS)

    async def _desk(self, pinned: Pinned, asked: BarsAsked) -> _Desk | None:
        basis = self.basis(pinned)
        if basis is None or pinned.state is None:
            return None
        shelves = await self._stored.shelves(pinned.state.table_uuid, basis.sequence_number)
        return _Desk(pinned, asked, basis, pinned.plan.holding((asked.symbol,)), shelves)

    async def _bars(self, desk: _Desk, stretch: Stretch) -> pa.Table:
        asked = desk.asked
        kept = [day for day in stretch.dates if self._is_stored(desk, day)]
        own = [day for day in stretch.dates if day not in kept]
        computed = [await self._computed(desk, part) for part in await self._parts(desk, stretch, own)]
        fresh = pa.concat_tables([_BARS.empty_table(), *computed])
        if asked.is_daily:
            days = await self._from_shelf(desk, kept, stretch)
            rolled = await asyncio.to_thread(rolled_up, fresh, asked.timeframe, desk.basis.zones)
            bars = pa.concat_tables([days, rolled])
        else:
            bars = pa.concat_tables([await self._from_shelf(desk, kept, stretch), fresh])
            if asked.timeframe.width_us != asked.unit_us:
                bars = await asyncio.to_thread(rolled_up, bars, asked.timeframe, desk.basis.zones)
        return await self._averaged(desk, _inside(bars, stretch))

    async def _parts(self, desk: _Desk, stretch: Stretch, dates: Sequence[date]) -> list[Slice]:
        """Cut the prints of some dates of a stretch. Where the plan cannot say that they are few, they are counted."""
        rows = rows_by_date(desk.files, stretch.prints_us)
        for day in dates:
            if rows[day] > ROWS_AT_ONCE:
                start_us, end_us = self._read_span(desk, Slice(*stretch.prints_us, (day,)))
                ticks = replace(_ticks(desk.asked), start_us=start_us, end_us=end_us)
                rows[day] = await self.reads.count(desk.pinned, ticks)
        return list(slices(desk.files, stretch, dates, rows, MINUTE_US))

    def _is_stored(self, desk: _Desk, day: date) -> bool:
        shelves, asked = desk.shelves, desk.asked
        return shelves is not None and asked.may_be_stored and self._stored.holds(shelves, day, daily=asked.is_daily)

    async def _from_shelf(self, desk: _Desk, days: Sequence[date], stretch: Stretch) -> pa.Table:
        """Stored bars of dates of which they are those of the question, as they stand at its C."""
        if desk.shelves is None or not days:
            return _BARS.empty_table()
        shelf = desk.shelves.days if desk.asked.is_daily else desk.shelves.minutes
        return as_of(await self._stored.rows(shelf, days, desk.asked, stretch.prints_us), desk.basis, {})

    async def _computed(self, desk: _Desk, part: Slice) -> pa.Table:
        """Bars of a unit's length of the prints of one part."""
        asked = desk.asked
        low_us, high_us = self._read_span(desk, part)
        trades = await self.prints(desk.pinned, asked.between(low_us, high_us), part.dates)
        if not len(trades):
            return _BARS.empty_table()
        bars = await asyncio.to_thread(_unit_bars, trades, desk, part.start_us)
        exchanges = pc.unique(trades["exchange"]).to_pylist()
        bars = as_of(bars, desk.basis, await self.hearing.of(desk.pinned, desk.basis, exchanges, part.dates))
        holes = self._holes(desk, part.dates) if len(bars) else []
        if holes:
            bars = with_gaps(bars, gap_ends(await self._whole_dates(desk, part.dates), holes))
        return bars

    def _read_span(self, desk: _Desk, part: Slice) -> tuple[int, int]:
        """Event times to read for a part: what bears on its windows, and no more than its dates have."""
        first_us, last_us = self._date_span(desk, part.dates)
        low_us, high_us = max(part.start_us - MAX_CARRY_US, first_us), min(part.end_us, last_us)
        if desk.clip is not None:
            low_us, high_us = max(low_us, desk.clip[0]), min(high_us, desk.clip[1])
        return low_us, max(low_us, high_us)

    def _date_span(self, desk: _Desk, dates: Sequence[date]) -> tuple[int, int]:
        """Where dates begin and end, in whichever zones their exchange may have."""
        zones, exchange = self.rules.zones, desk.asked.exchange
        near = {"UTC", *zones.values()} if exchange is None else {zones.get(exchange, "UTC")}
        starts = [day_bounds(min(dates), zone)[0] for zone in near]
        return to_us(min(starts)), to_us(max(day_bounds(max(dates), zone)[1] for zone in near))

    def _holes(self, desk: _Desk, dates: Iterable[date]) -> list[Hole]:
        if desk.shelves is None:
            return []
        number, symbol = desk.shelves.sequence_number, desk.asked.symbol
        return [hole for day in dates for hole in self._stored.holes(day, symbol, number)]

    async def _whole_dates(self, desk: _Desk, dates: Sequence[date]) -> pa.Table:
        return await self.prints(desk.pinned, desk.asked.between(*self._date_span(desk, dates)), dates)

    async def _averaged(self, desk: _Desk, bars: pa.Table) -> pa.Table:
        """Bars with an average price also where their sums are beyond what a stored bar can hold."""
        beyond = pc.and_(pc.is_null(bars["vwap"]), pc.greater(bars["priced_volume"], Decimal(0)))
        places = pc.indices_nonzero(beyond).to_pylist()
        if not places:
            return bars
        averages = bars["vwap"].to_pylist()
        for place in places:
            bar = bars.slice(place, 1).to_pylist()[0]
            averages[place] = await self._vwap_of(desk, bar)
        return bars.set_column(bars.schema.get_field_index("vwap"), "vwap", pa.array(averages, PRICE))

    async def _vwap_of(self, desk: _Desk, bar: dict[str, Any]) -> Decimal | None:
        low_us, high_us = to_us(bar["window_start"]), to_us(bar["window_end"])
        if desk.clip is not None:
            low_us, high_us = max(low_us, desk.clip[0]), min(high_us, desk.clip[1])
        trades = await self.prints(desk.pinned, desk.asked.between(low_us, high_us))
        trades = trades.filter(pc.equal(trades["exchange"], bar["exchange"]))
        found = await asyncio.to_thread(exact_vwap, _seen_as(trades, desk.asked), desk.basis)
        return None if found is None else Decimal(found).scaleb(-8)


def _ticks(asked: BarsAsked) -> Ticks:
    """The trades of a question, of all times."""
    return Ticks(symbols=(asked.symbol,), exchanges=() if asked.exchange is None else (asked.exchange,))


def _unit_bars(trades: pa.Table, desk: _Desk, start_us: int) -> pa.Table:
    bars = bars_of(_seen_as(trades, desk.asked), desk.basis, width_us=desk.asked.unit_us)
    return bars.filter(pc.greater_equal(bars["window_start"], pa.scalar(from_us(start_us), bars["window_start"].type)))


def _seen_as(trades: pa.Table, asked: BarsAsked) -> pa.Table:
    seen = by_every_print(trades) if asked.view == "raw" else trades
    return by_regular_prints(seen) if asked.is_regular or asked.timeframe.is_regular else seen


def _inside(bars: pa.Table, stretch: Stretch) -> pa.Table:
    """The bars whose windows begin in a stretch."""
    begins = bars["window_start"]
    low, high = (pa.scalar(from_us(us), begins.type) for us in (stretch.start_us, stretch.end_us))
    return bars.filter(pc.and_(pc.greater_equal(begins, low), pc.less(begins, high)))
