"""Pages of bars without holes: every window of a range on one exchange up to the commit, in reading order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_api.bar_pages import Asked, BarPage, last_key
from k2_api.bar_questions import BarsAsked
from k2_api.bar_reads import BarReads
from k2_api.pinning import Pinned
from k2_core.bar_fills import Fill, Frame, filled
from k2_core.bars import final
from k2_core.derived_tables import BARS_1M
from k2_core.exchange_dates import FIRST_DATE, day_bounds, exchange_days
from k2_core.wide import Int64s
from k2_core.windows import DAY_US, EPOCH, FIRST_US, ceil_us, from_us, to_us

Trades = Callable[[str, date], bool]
"""Whether an exchange trades on a date."""

_FIRST_US = (FIRST_DATE - EPOCH.date()).days * DAY_US - DAY_US
"""No row is older, in whatever zone: windows before that are left out, or a slip of the keyboard fills a century."""
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class _Windows:
    """The windows of one page, ascending, of so many in all."""

    start_us: Int64s
    end_us: Int64s
    dates: list[date]
    total: int
    has_more: bool


async def filled_page(reads: BarReads, pinned: Pinned, asked: Asked, fill: Fill, trades: Trades) -> BarPage:
    """One page of all windows, whether something printed in them or not. asked: names an exchange.

    Windows of dates are those on which the exchange trades, or did.
    """
    state, exchange = pinned.state, asked.bars.exchange
    commit_us = FIRST_US if state is None or state.commit_time is None else to_us(state.commit_time)
    assert exchange is not None, "a route that fills refuses a question without one"
    zone = reads.rules.zones.get(exchange, "UTC")
    if asked.bars.is_daily:
        rows = await reads.whole(pinned, asked.bars)
        windows = await asyncio.to_thread(_of_dates, asked, commit_us, zone, trades, rows)
    else:
        windows = _of_width(asked, commit_us, zone)
        rows = BARS_1M.arrow_schema().empty_table()
        if len(windows.start_us):
            page = asked.bars.between(int(windows.start_us[0]), int(windows.end_us[-1]))
            rows = await reads.whole(pinned, page)
    is_final = await _final_if_empty(reads, pinned, exchange, windows, commit_us)
    frame = Frame(asked.bars.symbol, exchange, windows.start_us, windows.end_us, windows.dates, is_final)
    before = await _close_before(reads, pinned, asked.bars, windows) if fill == "prev" else None
    made = await asyncio.to_thread(filled, rows, frame, fill, before)
    page_rows = made.take(pa.array(np.arange(len(made))[::-1])) if asked.descending else made
    key = last_key(page_rows, asked.bars) if windows.has_more else None
    return BarPage(page_rows, key, windows.total if asked.count else None)


def _of_width(asked: Asked, commit_us: int, zone: str) -> _Windows:
    width_us = asked.bars.timeframe.width_us
    assert width_us is not None, "windows of dates are told by their calendar"
    first = ceil_us(max(asked.bars.start_us, _FIRST_US), width_us)
    total = max(ceil_us(min(asked.bars.end_us, commit_us), width_us) - first, 0) // width_us
    place = None if asked.after is None else (asked.after[1] - first) // width_us
    low, high = _page(total, place, asked)
    starts = first + np.arange(low, high, dtype=np.int64) * width_us
    days = exchange_days(starts, zone).tolist()
    dates = [EPOCH.date() + timedelta(days=day) for day in days]
    return _Windows(starts, starts + width_us, dates, total, low > 0 if asked.descending else high < total)


def _of_dates(asked: Asked, commit_us: int, zone: str, trades: Trades, rows: pa.Table) -> _Windows:
    start_us, end_us = max(asked.bars.start_us, _FIRST_US), min(asked.bars.end_us, commit_us)
    # a local date begins within a day of its UTC midnight; what begins after the commit is none of ours
    day, last = (from_us(min(us, commit_us)).date() + side for us, side in ((start_us, -_DAY), (end_us, _DAY)))
    printed, exchange = set(rows["exchange_date"].to_pylist()), asked.bars.exchange or ""
    found = []
    while day <= last:
        if day in printed or trades(exchange, day):
            low_us, high_us = map(to_us, day_bounds(day, zone))
            if start_us <= low_us < end_us:
                found.append((low_us, high_us, day))
        day += _DAY
    places = [n for n, (low_us, _, _) in enumerate(found) if asked.after is not None and low_us == asked.after[1]]
    low, high = _page(len(found), places[0] if places else None, asked)
    starts, ends = (np.array([window[side] for window in found[low:high]], np.int64) for side in (0, 1))
    dates = [window[2] for window in found[low:high]]
    return _Windows(starts, ends, dates, len(found), low > 0 if asked.descending else high < len(found))


def _page(total: int, place: int | None, asked: Asked) -> tuple[int, int]:
    """Which windows a page has, as [low, high). place: of the last one of the page before."""
    if asked.descending:
        high = total if place is None else min(max(place, 0), total)
        return max(high - asked.limit, 0), high
    low = 0 if place is None else min(place + 1, total)
    return low, min(low + asked.limit, total)


async def _final_if_empty(
    reads: BarReads, pinned: Pinned, exchange: str, windows: _Windows, commit_us: int
) -> npt.NDArray[np.bool_]:
    """Of each window, whether it will not change any more, were it empty."""
    basis, days = reads.basis(pinned), sorted(set(windows.dates))
    if basis is None:
        return np.zeros(len(days), bool)
    heard = await reads.hearing.of(pinned, basis, [exchange], days)
    ends = {day: to_us(day_bounds(day, basis.zones.get(exchange, "UTC"))[1]) for day in days}
    heard_us = np.array([heard.get((exchange, day), 0) for day in windows.dates], np.int64)
    day_end_us = np.array([ends[day] for day in windows.dates], np.int64)
    return final(windows.end_us, heard_us, day_end_us, commit_us)


async def _close_before(reads: BarReads, pinned: Pinned, asked: BarsAsked, windows: _Windows) -> Decimal | None:
    """The last close before the first window of a page, however long ago."""
    if not len(windows.start_us):
        return None
    earlier = asked.between(FIRST_US, int(windows.start_us[0]))
    async for bars in reads.walk(pinned, earlier, descending=True, wanted=1):
        closed = bars.filter(pc.is_valid(bars["close_price"])).sort_by("window_start")
        if len(closed):
            found: Decimal = closed["close_price"][-1].as_py()
            return found
    return None
