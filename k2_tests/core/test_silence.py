"""When a feed should have said something."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from k2_core.silence import is_live, silent_since_us
from k2_core.windows import to_us
from k2_tests.ticks import FEEDS

ASX, BINANCE = FEEDS["asx-trades"], FEEDS["binance-trades"]
SYDNEY = ZoneInfo("Australia/Sydney")
TUESDAY = date(2014, 3, 11)


def us(day: date, clock: str) -> int:
    return to_us(datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=SYDNEY))


def test_an_exchange_that_never_closes_is_silent_since_it_was_heard() -> None:
    assert silent_since_us(BINANCE, 5, us(TUESDAY, "03:00")) == 5


@pytest.mark.parametrize("clock", ["03:00", "09:30", "16:30", "23:59"])
def test_outside_the_session_nobody_is_silent(clock: str) -> None:
    assert silent_since_us(ASX, us(TUESDAY, "02:00"), us(TUESDAY, clock)) is None


def test_on_a_holiday_and_a_weekend_nobody_is_silent() -> None:
    for day in (date(2014, 4, 25), date(2014, 3, 15)):
        assert silent_since_us(ASX, us(TUESDAY, "12:00"), us(day, "12:00")) is None


def test_the_silence_of_a_night_begins_with_the_session() -> None:
    yesterday = us(TUESDAY - timedelta(days=1), "16:00")
    since = silent_since_us(ASX, yesterday, us(TUESDAY, "10:30"))
    assert since is not None
    assert us(TUESDAY, "09:59") <= since <= us(TUESDAY, "10:00")
    heard = us(TUESDAY, "10:20")
    assert silent_since_us(ASX, heard, us(TUESDAY, "10:30")) == heard


def test_history_that_is_loaded_now_is_no_sign_of_life() -> None:
    noon = us(TUESDAY, "12:00")
    assert is_live(ASX, TUESDAY, noon)
    assert is_live(ASX, TUESDAY - timedelta(days=1), noon)
    assert not is_live(ASX, TUESDAY - timedelta(days=2), noon)
