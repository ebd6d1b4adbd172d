"""In which stretches a range of bars is computed: in reading order, and never more than the reader goes on to ask for.

Pure: file entries in, stretches out. A stretch of a width is cut where its windows are; one of days, between dates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from k2_api.plans import Span, first_instants, last_instants, within
from k2_core.rollups import LOOKBACK_US
from k2_core.windows import FIRST_US, LAST_US, Timeframe, ceil_us, floor_us, from_us, strides, to_us
from k2_resources.lake.files import DataFileEntry

ROWS_AT_ONCE = 500_000
"""Trades turned into bars at a time: some 150 MB. Of a file of many symbols most are not of the one asked for."""

_WINDOWS_MIN = 64
"""Windows worth a look of their own: fewer cost about as much."""
_EDGES_MAX = 4_096
"""Places to pause in a walk over years; beyond the first few of them it makes long strides anyway."""


@dataclass(frozen=True)
class Stretch:
    """Windows that begin in [start, end), and the exchange dates their prints may be of, ascending.

    is_daily: the windows are those dates.
    """

    start_us: int
    end_us: int
    dates: tuple[date, ...]
    is_daily: bool = False

    @property
    def prints_us(self) -> tuple[int, int]:
        """Where the prints lie that bear on it: a price holds on into the next window; a date is there as a whole."""
        return (FIRST_US, LAST_US) if self.is_daily else (max(self.start_us - LOOKBACK_US, FIRST_US), self.end_us)


@dataclass(frozen=True)
class Slice:
    """Prints of some neighbouring dates with event times in [start, end)."""

    start_us: int
    end_us: int
    dates: tuple[date, ...]


def stretches(
    files: Sequence[DataFileEntry],
    timeframe: Timeframe,
    start_us: int,
    end_us: int,
    *,
    descending: bool,
    resume_us: int | None = None,
    wanted: int | None = None,
) -> Iterator[Stretch]:
    """All windows that begin in [start, end), in reading order. resume_us: a window to go on from, itself included.

    A window of dates is told by its date, in µs since the epoch. wanted: how many windows the reader stops at.
    """
    if timeframe.width_us is None:
        yield from _of_dates(files, start_us, end_us, descending, resume_us)
        return
    low, high = ceil_us(start_us, timeframe.width_us), min(ceil_us(end_us, timeframe.width_us), LAST_US)
    if resume_us is not None and descending:
        high = min(high, resume_us + timeframe.width_us)
    elif resume_us is not None:
        low = max(low, resume_us)
    if low < high:
        step_us = None if wanted is None else max(wanted, _WINDOWS_MIN) * timeframe.width_us
        near = within(files, Span(max(low - LOOKBACK_US, FIRST_US), high))
        edges = _edges(near, timeframe.width_us, step_us, descending=descending)
        for first, last in strides(edges, low, high, descending=descending):
            inside = within(near, Span(max(first - LOOKBACK_US, FIRST_US), last))
            yield Stretch(first, last, _dates(inside))


def rows_by_date(files: Iterable[DataFileEntry], span: tuple[int, int]) -> Counter[date]:
    """Rows with event times in [start, end) by exchange date, of all symbols, as if files had them evenly."""
    rows: Counter[date] = Counter()
    for file in files:
        if file.exchange_date is not None:
            rows[file.exchange_date] += round(file.rows * _share(file, span))
    return rows


def slices(
    files: Iterable[DataFileEntry], stretch: Stretch, dates: Sequence[date], rows: Mapping[date, int], unit_us: int
) -> Iterator[Slice]:
    """Cut the prints of some dates of a stretch into parts of ROWS_AT_ONCE at most, about.

    dates: of the stretch, ascending; only neighbours among them share a part. rows: of each. A part of a date is cut at
    whole units.
    """
    places = {day: place for place, day in enumerate(stretch.dates)}
    for run in _runs(dates, places, rows):
        count = -(-sum(rows[day] for day in run) // ROWS_AT_ONCE)
        if count <= 1:
            yield Slice(*stretch.prints_us, run)
        else:
            yield from _cut(files, stretch, run, count, unit_us)


def stretch_dates(files: Iterable[DataFileEntry], span: tuple[int, int]) -> tuple[date, ...]:
    """The exchange dates that prints in [start, end) may be of, ascending."""
    return _dates(within(files, Span(*span)))


def _edges(files: Sequence[DataFileEntry], width_us: int, step_us: int | None, *, descending: bool) -> list[int]:
    """Where a walk may pause: between dates, and every step within what the files hold."""
    firsts, lasts = first_instants(files), last_instants(files)
    edges = [floor_us(edge, width_us) for edge in firsts] if descending else [ceil_us(edge, width_us) for edge in lasts]
    if step_us is None or not files or min(firsts) == FIRST_US or max(lasts) == LAST_US:
        return edges
    low, high = floor_us(min(firsts), width_us), ceil_us(max(lasts), width_us)
    step_us = max(step_us, ceil_us((high - low) // _EDGES_MAX, width_us))
    inner = range(low, high, step_us)
    return [*edges, *(high - (edge - low) for edge in inner)] if descending else [*edges, *inner]


def _of_dates(
    files: Sequence[DataFileEntry], start_us: int, end_us: int, descending: bool, resume_us: int | None
) -> Iterator[Stretch]:
    """Parts by exchange date. A local day begins at most a day from the UTC day of its date, whatever the zone."""
    low = max(from_us(start_us).toordinal() - 1, date.min.toordinal())
    high = min(from_us(end_us).toordinal() + 2, date.max.toordinal())
    if resume_us is not None:
        day = from_us(resume_us).toordinal()
        low, high = (low, min(high, day + 1)) if descending else (max(low, day), high)
    ordinals = sorted({f.exchange_date.toordinal() for f in files if f.exchange_date is not None})
    edges = ordinals if descending else [ordinal + 1 for ordinal in ordinals]
    for first, end in strides(edges, low, high, descending=descending):
        yield Stretch(start_us, end_us, tuple(date.fromordinal(o) for o in ordinals if first <= o < end), is_daily=True)


def _dates(files: Iterable[DataFileEntry]) -> tuple[date, ...]:
    return tuple(sorted({f.exchange_date for f in files if f.exchange_date is not None}))


def _runs(dates: Sequence[date], places: Mapping[date, int], rows: Mapping[date, int]) -> Iterator[tuple[date, ...]]:
    """Neighbouring dates together as long as their rows are few."""
    run: list[date] = []
    for day in dates:
        if run and (places[day] != places[run[-1]] + 1 or sum(rows[d] for d in [*run, day]) > ROWS_AT_ONCE):
            yield tuple(run)
            run = []
        run.append(day)
    if run:
        yield tuple(run)


def _cut(
    files: Iterable[DataFileEntry], stretch: Stretch, run: tuple[date, ...], count: int, unit_us: int
) -> Iterator[Slice]:
    own = [f for f in files if f.exchange_date in run]
    first_us, end_us = stretch.prints_us
    low = max(first_us, min(FIRST_US if f.timestamp_min is None else to_us(f.timestamp_min) for f in own))
    high = min(end_us, max(LAST_US if f.timestamp_max is None else to_us(f.timestamp_max) + 1 for f in own))
    step = max(ceil_us(-(-(high - low) // count), unit_us), unit_us)
    start = floor_us(low, unit_us)
    while start < high:
        yield Slice(start, min(start + step, high), run)
        start += step


def _share(file: DataFileEntry, span: tuple[int, int]) -> float:
    """Which share of the time of a file lies in [start, end); all of it where that is not known."""
    if file.timestamp_min is None or file.timestamp_max is None:
        return 1.0
    start_us, end_us = to_us(file.timestamp_min), to_us(file.timestamp_max) + 1
    return max(min(end_us, span[1]) - max(start_us, span[0]), 0) / (end_us - start_us)
