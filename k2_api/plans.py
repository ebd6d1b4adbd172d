"""Which data files a question needs, and in which order they are worth reading.

Pure: file entries in, file entries out. An entry whose bounds are unknown is never left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import date

from k2_core.windows import FIRST_US, LAST_US, to_us
from k2_resources.lake.files import DataFileEntry

FIRST_DATE = date.min
LAST_DATE = date.max
_CHOICES_MAX = 1_000
"""Choices of symbols whose files a plan remembers: those asked for between two commits."""


@dataclass(frozen=True)
class Span:
    """[start, end) in event time (µs since the epoch) and in exchange dates; both must hold."""

    start_us: int = FIRST_US
    end_us: int = LAST_US
    date_start: date = FIRST_DATE
    date_end: date = LAST_DATE

    def between(self, start_us: int, end_us: int) -> Span:
        """The same dates over another stretch of event time."""
        return replace(self, start_us=start_us, end_us=end_us)

    def dates(self, start: int, end: int) -> Span:
        """The same event time over other exchange dates, as ordinals."""
        return replace(self, date_start=date.fromordinal(start), date_end=date.fromordinal(end))


class Plan:
    """The files of one state. Questions about the same symbols share one look at all of them."""

    def __init__(self, files: tuple[DataFileEntry, ...]) -> None:
        self.files = files
        self._holding: dict[tuple[str, ...], tuple[DataFileEntry, ...]] = {}

    def holding(self, symbols: tuple[str, ...]) -> tuple[DataFileEntry, ...]:
        """The files that may hold any of some symbols; all of them for none."""
        if not symbols:
            return self.files
        found = self._holding.get(symbols)
        if found is None:
            found = holding_any(self.files, symbols)
            if len(self._holding) < _CHOICES_MAX:
                self._holding[symbols] = found
        return found


def holding(files: Iterable[DataFileEntry], symbol: str | None) -> tuple[DataFileEntry, ...]:
    """The files that may hold a symbol; all of them for None."""
    return tuple(f for f in files if symbol is None or _may_hold(f, symbol))


def holding_any(files: Iterable[DataFileEntry], symbols: Collection[str]) -> tuple[DataFileEntry, ...]:
    """The files that may hold any of some symbols; all of them for none."""
    return tuple(f for f in files if not symbols or any(_may_hold(f, symbol) for symbol in symbols))


def within(files: Iterable[DataFileEntry], span: Span) -> tuple[DataFileEntry, ...]:
    """The files that may hold rows of a span."""
    return tuple(f for f in files if _overlaps(f, span))


def first_instants(files: Iterable[DataFileEntry]) -> list[int]:
    """Per exchange date the earliest event time of its files: where a walk from the newest row may pause."""
    return _per_date(files, lambda f: FIRST_US if f.timestamp_min is None else to_us(f.timestamp_min), min)


def last_instants(files: Iterable[DataFileEntry]) -> list[int]:
    """Per exchange date the end of its files' event times: where a walk from the oldest row may pause."""
    return _per_date(files, lambda f: LAST_US if f.timestamp_max is None else to_us(f.timestamp_max) + 1, max)


def _per_date(
    files: Iterable[DataFileEntry], instant: Callable[[DataFileEntry], int], choose: Callable[[list[int]], int]
) -> list[int]:
    found: defaultdict[date | None, list[int]] = defaultdict(list)
    for file in files:
        found[file.exchange_date].append(instant(file))
    return [choose(instants) for instants in found.values()]


def _may_hold(file: DataFileEntry, symbol: str) -> bool:
    return (file.symbol_min is None or file.symbol_min <= symbol) and (
        file.symbol_max is None or symbol <= file.symbol_max
    )


def _overlaps(file: DataFileEntry, span: Span) -> bool:
    if file.exchange_date is not None and not span.date_start <= file.exchange_date < span.date_end:
        return False
    if file.timestamp_min is not None and to_us(file.timestamp_min) >= span.end_us:
        return False
    return file.timestamp_max is None or to_us(file.timestamp_max) >= span.start_us
