"""Pages of bars: which of them a page shows, in which order, and where the next one begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2_api.bar_questions import BarsAsked
from k2_api.bar_reads import BarReads
from k2_api.pinning import Pinned
from k2_core.bar_fills import counted
from k2_core.derived_tables import BARS_1M
from k2_core.screen import int64s
from k2_core.wide import Int64s
from k2_core.windows import DAY_US

Key = tuple[int, int, str]
"""(window, its start, exchange), in µs: the order of bars. A window of a date is told by that date."""


@dataclass(frozen=True)
class Asked:
    """A page of a question. after: the last bar of the page before."""

    bars: BarsAsked
    descending: bool
    limit: int
    after: Key | None = None
    count: bool = False


@dataclass(frozen=True)
class BarPage:
    """Bars in reading order, as rows of bars_1m, with `is_filled` where windows were filled."""

    bars: pa.Table
    next_key: Key | None
    total: int | None = None


async def page_of(reads: BarReads, pinned: Pinned, asked: Asked) -> BarPage:
    """The bars of one page in which a print counts; each is of all prints of its window, wherever the page is cut."""
    found, after, total = [], asked.after, 0
    resume_us = None if after is None or asked.count else after[0]
    wanted = None if asked.count else asked.limit + 1
    walk = reads.walk(pinned, asked.bars, descending=asked.descending, resume_us=resume_us, wanted=wanted)
    async for bars in walk:
        shown = counted(bars)
        total += len(shown)
        found.append(_following(_ordered(shown, asked), asked))
        if sum(map(len, found)) > asked.limit and not asked.count:
            break
    rows = pa.concat_tables([BARS_1M.arrow_schema().empty_table(), *found])
    page = rows.slice(0, asked.limit)
    return BarPage(page, last_key(page, asked.bars) if len(rows) > len(page) else None, total if asked.count else None)


def _ordered(bars: pa.Table, asked: Asked) -> pa.Table:
    """Bars in reading order."""
    window = "exchange_date" if asked.bars.is_daily else "window_start"
    direction = "descending" if asked.descending else "ascending"
    return bars.sort_by([(name, direction) for name in dict.fromkeys((window, "window_start", "exchange"))])


def _following(bars: pa.Table, asked: Asked) -> pa.Table:
    """Those of some bars that come after the last of the page before."""
    if asked.after is None:
        return bars
    keys: list[Key] = list(zip(*(column.tolist() for column in key_columns(bars, asked.bars)), strict=True))
    beyond = [key < asked.after if asked.descending else key > asked.after for key in keys]
    return bars.filter(pa.array(beyond, pa.bool_()))


def key_columns(bars: pa.Table, asked: BarsAsked) -> tuple[Int64s, Int64s, npt.NDArray[np.object_]]:
    """The keys of bars, column by column."""
    starts = int64s(bars["window_start"])
    windows = int64s(bars["exchange_date"].cast(pa.int32())) * DAY_US if asked.is_daily else starts
    return windows, starts, np.array(bars["exchange"].to_pylist(), object)


def last_key(bars: pa.Table, asked: BarsAsked) -> Key:
    """The key of the last of some bars."""
    window, start, exchange = (column[0] for column in key_columns(bars.slice(len(bars) - 1), asked))
    return int(window), int(start), str(exchange)
