"""The summary of a date: of the exchange, not of UTC; of its eligible prints."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import httpx2 as httpx
import pytest

from k2_api.bar_shapes import SummaryAnswer
from k2_core.contracts import TRADES
from k2_tests.api import oracle
from k2_tests.api.homes import Row, dated, lake_of, serving, settings_of, store
from k2_tests.ticks import asx_trade


@pytest.mark.parametrize("exchange", ["ASX", "BINANCE"])
@pytest.mark.parametrize("view", ["eligible", "raw"])
def test_a_summary_is_the_daily_bar_of_the_exchange_date(
    client: httpx.Client, rows: list[Row], exchange: str, view: str
) -> None:
    bars = oracle.bars(rows, "1d", symbol="DUAL", exchange=exchange, eligible=view == "eligible")
    zone = oracle.ZONES[exchange]
    for bar in bars:
        day = bar["window_start"].astimezone(zone).date()
        answer = client.get(f"/v1/summary/dual/{day}", params={"exchange": exchange, "view": view}).json()
        assert oracle.read_bar(answer["data"]) == bar
        assert (answer["data"]["symbol"], answer["data"]["date"]) == ("DUAL", day.isoformat())
    assert len(bars) >= 4


def test_a_summary_has_the_fields_of_the_original_platform_and_says_how_complete_it_is(client: httpx.Client) -> None:
    answer = client.get("/v1/summary/BTCUSDT/2024-08-09")
    assert SummaryAnswer.model_validate(answer.json())
    data = answer.json()["data"]
    kept = {"symbol", "date", "open_price", "high_price", "low_price", "close_price", "volume", "trade_count", "vwap"}
    assert kept < set(data)
    assert {"twap", "twap_coverage", "gap_count", "excluded_count", "is_final", "exchange"} < set(data)
    assert answer.json()["success"]
    again = client.get("/v1/summary/BTCUSDT/2024-08-09", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def test_decimals_of_a_summary_may_be_numbers(client: httpx.Client) -> None:
    text = client.get("/v1/summary/BTCUSDT/2024-08-09").json()["data"]["vwap"]
    assert f'"vwap":{text},' in client.get("/v1/summary/BTCUSDT/2024-08-09", params={"decimals": "number"}).text


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/summary/NOSUCH/2024-08-09", 404, "NOT_FOUND"),
        ("/v1/summary/BTCUSDT/2001-01-01", 404, "NOT_FOUND"),
        ("/v1/summary/BTCUSDT/0001-01-01", 404, "NOT_FOUND"),
        ("/v1/summary/BTCUSDT/9999-12-31", 404, "NOT_FOUND"),
        ("/v1/summary/BTCUSDT/2024-13-01", 422, "VALIDATION_ERROR"),
        ("/v1/summary/BTCUSDT/yesterday", 422, "VALIDATION_ERROR"),
        ("/v1/summary/DUAL/2024-08-09", 422, "VALIDATION_ERROR"),
    ],
)
def test_a_summary_nobody_can_give_is_a_problem(client: httpx.Client, path: str, status: int, code: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_the_prints_of_one_utc_day_are_of_two_dates_in_sydney(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    days = [date(2014, 3, 10), date(2014, 3, 11)]
    rows = [dated(asx_trade("36000", day=day, price=f"3{n}.00")) for n, day in enumerate(days)]
    rows += [dated(asx_trade("57000", day=day, price=f"4{n}.00")) for n, day in enumerate(days)]
    store(lake_of(settings), TRADES, rows)
    with serving(settings) as client:
        found = [client.get(f"/v1/summary/BHP/{day}").json()["data"] for day in days]
    assert [(bar["open_price"], bar["close_price"]) for bar in found] == [
        ("30.00000000", "40.00000000"),
        ("31.00000000", "41.00000000"),
    ]
