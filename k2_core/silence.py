"""Silence of a feed: since when it should have said something and did not."""

from __future__ import annotations

from datetime import date, timedelta
from zoneinfo import ZoneInfo

from k2_core.feeds import Feed
from k2_core.windows import from_us

_FIRST_TO_OPEN = "A"
"""Only the first letter of a symbol matters to its phases, and groups open in the order of letters."""
_LATE_DAYS_MAX = 1
"""Around midnight a record is of the day before."""


def silent_since_us(feed: Feed, heard_us: int, now_us: int) -> int | None:
    """When the silence of a feed began that was heard of last at heard_us; None while its exchange does not trade.

    The silence of a night begins with the session after it.
    """
    if feed.sessions is None:
        return heard_us
    local = from_us(now_us).astimezone(ZoneInfo(feed.timezone))
    clock = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    clock_us = clock // timedelta(microseconds=1)
    for phase in feed.sessions.trading(_FIRST_TO_OPEN, local.date()):
        if phase.start_us <= clock_us < phase.end_us:
            return max(heard_us, now_us - (clock_us - phase.start_us))
    return None


def is_live(feed: Feed, day: date, committed_us: int) -> bool:
    """Whether rows of an exchange date came as they happened: history that is loaded says nothing about a feed."""
    today = from_us(committed_us).astimezone(ZoneInfo(feed.timezone)).date()
    return day >= today - timedelta(days=_LATE_DAYS_MAX)
