"""Bars of a real day of BHP, served from the prints and from what is stored; skipped where there is no data."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from k2_core.contracts import TRADES
from k2_tests.api.homes import serving
from k2_tests.api.markets import Market
from k2_tests.feeds.test_asx_rules import bhp_trades
from k2_tests.lakes import collect

__all__ = ["bhp_trades"]

DAY = {"symbol": "BHP", "start_time": "2014-03-10T13:00:00Z", "end_time": "2014-03-11T13:00:00Z"}
KNOWN: dict[str, Any] = {
    "open_price": "35.95",
    "high_price": "36.45",
    "low_price": "35.84",
    "close_price": "35.95",
    "volume": "6705250",
    "vwap": "36.13216705",
    "trade_count": 21_653,
}


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory, bhp_trades: pa.Table) -> Market:
    made = Market.at(tmp_path_factory.mktemp("bhp"))
    made.put(bhp_trades.filter(pc.equal(bhp_trades["exchange_date"], date(2014, 3, 11))).to_pylist())
    return made


@pytest.fixture(scope="module", params=["computed", "stored"])
def client(request: pytest.FixtureRequest, market: Market) -> Any:
    if request.param == "stored":
        collect(market.lake, TRADES)
        market.build()
    with serving(market.settings) as client:
        yield client


def known(bar: dict[str, Any]) -> dict[str, Any]:
    return {
        name: bar[name] if isinstance(value, int) else f"{Decimal(bar[name]).normalize():f}"
        for name, value in KNOWN.items()
    }


def test_the_day_has_the_figures_that_are_known_of_it(client: httpx.Client) -> None:
    summary = client.get("/v1/summary/bhp/2014-03-11").json()["data"]
    (daily,) = client.get("/v1/bars/1d", params=DAY).json()["data"]
    (old,) = client.get("/v1/ohlcv/1d", params=DAY).json()["data"]
    assert known(summary) == known(daily) == known(old) == KNOWN
    assert (summary["excluded_count"], summary["is_final"], daily["is_final"]) == (28, True, True)


def test_the_raw_day_peaks_at_an_option_that_was_exercised(client: httpx.Client) -> None:
    (raw,) = client.get("/v1/bars/1d", params={**DAY, "view": "raw"}).json()["data"]
    assert (raw["high_price"], raw["trade_count"]) == ("42.00000000", 21_681)


def test_hours_add_up_to_the_day(client: httpx.Client) -> None:
    hours = client.get("/v1/bars/1h", params=DAY).json()["data"]
    minutes = client.get("/v1/bars/1m", params=DAY).json()["data"]
    for bars in (hours, minutes):
        assert sum(Decimal(bar["volume"]) for bar in bars) == Decimal(KNOWN["volume"])
        assert sum(bar["trade_count"] for bar in bars) == KNOWN["trade_count"]
        assert max(Decimal(bar["high_price"]) for bar in bars) == Decimal(KNOWN["high_price"])
