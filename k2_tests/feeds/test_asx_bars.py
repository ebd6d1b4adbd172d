"""Bars of a real day of BHP, against its known figures and the definition in plain Python."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow.compute as pc
import pytest

from k2_core.bars import Basis, bars_of
from k2_core.rollups import rolled_up, timeframe_named
from k2_resources.rule_sets import all_conditions
from k2_resources.settings import Settings
from k2_tests.core import bars_oracle
from k2_tests.feeds.test_asx_rules import bhp_trades

__all__ = ["bhp_trades"]

ZONES = {"ASX": "Australia/Sydney"}
BASIS = Basis("c" * 64, 1, datetime(2014, 3, 20, tzinfo=UTC), all_conditions(Settings().config, ZONES), ZONES)


@pytest.fixture(scope="module")
def day(bhp_trades):
    return bhp_trades.filter(pc.equal(bhp_trades["exchange_date"], date(2014, 3, 11)))


def rolled(rows, timeframe, basis=BASIS):
    return rolled_up(bars_of(rows, basis), timeframe_named(timeframe), ZONES).to_pylist()


def test_the_day_has_the_prices_volume_and_average_that_are_known_of_it(day):
    (bar,) = rolled(day, "1d")
    names = ("open_price", "high_price", "low_price", "close_price", "volume", "vwap")
    expected = ["35.95", "36.45", "35.84", "35.95", "6705250", "36.13216705"]
    assert [bar[name] for name in names] == [Decimal(text) for text in expected]
    assert (bar["trade_count"], bar["excluded_count"], bar["is_final"]) == (21_653, 28, True)


def test_bars_of_the_day_and_of_its_parts_are_those_of_the_definition(day):
    prints = day.to_pylist()
    for timeframe in ("4h", "1d"):
        assert rolled(day, timeframe) == bars_oracle.bars(prints, timeframe_named(timeframe), BASIS)


def test_the_time_weighted_price_of_the_session_is_the_one_known(day):
    hours = [bar for bar in rolled(day, "1h") if bar["window_start"].hour >= 23 or bar["window_start"].hour < 5]
    seconds = Decimal(sum(bar["covered_us"] for bar in hours)).scaleb(-6)
    assert round(sum(bar["price_time"] for bar in hours) / seconds, 4) == Decimal("36.1712")
    assert seconds == 6 * 3600


def test_raw_prints_would_have_peaked_elsewhere(day):
    raw = day.set_column(day.column_names.index("quality_flags"), "quality_flags", pc.multiply(day["quality_flags"], 0))
    (bar,) = rolled(raw, "1d", Basis("c" * 64, 1, BASIS.commit_time, {}, ZONES))
    assert (bar["high_price"], bar["trade_count"]) == (Decimal(42), 21_681)
