"""Trading days of exchanges, from the exchange_calendars library, over a window that does not move with the clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from k2_core.errors import Misconfigured
from k2_core.exchange_dates import FIRST_DATE

LAST_DATE = date(2040, 12, 31)
"""The library's own window ends a year after the day it is asked. One pinned here gives every process the same days."""
_WEEKEND = 5
"""Saturday, counted from Monday."""


@dataclass(frozen=True)
class ExchangeDays:
    """The days of one calendar of the library, e.g. XASX. Outside the pinned window every weekday trades until late."""

    calendar: str

    def is_open(self, day: date) -> bool:
        """Whether the exchange trades on a date. Raises Misconfigured for a calendar the library has not."""
        if not FIRST_DATE <= day <= LAST_DATE:
            return day.weekday() < _WEEKEND
        return day in _days_of(self.calendar)[0]

    def closes_early(self, day: date) -> bool:
        """Whether trading ends before its usual hour. Raises Misconfigured."""
        return day in _days_of(self.calendar)[1]


@lru_cache
def _days_of(name: str) -> tuple[frozenset[date], frozenset[date]]:
    """Days with trading, and those of them that close early. The library is loaded by the first who asks."""
    from exchange_calendars import get_calendar  # type: ignore[import-untyped]  # ships no stubs
    from exchange_calendars.errors import InvalidCalendarName  # type: ignore[import-untyped]

    try:
        calendar = get_calendar(name, start=str(FIRST_DATE), end=str(LAST_DATE))
    except InvalidCalendarName as error:
        raise Misconfigured(f"calendar {name}: exchange_calendars has none of that name") from error
    return frozenset(calendar.sessions.date), frozenset(calendar.early_closes.date)
