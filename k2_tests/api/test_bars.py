from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from k2_core.contracts import TRADES
from k2_tests.api import oracle
from k2_tests.api.homes import Row, dated, lake_of, serving, settings_of, store
from k2_tests.api.test_trades import pages, parameters
from k2_tests.ticks import NOON, asx_trade, trade

TIMEFRAMES = ["1m", "5m", "15m", "30m", "1h", "1d"]
QUESTIONS: list[dict[str, Any]] = [
    {"symbol": "DUAL"},
    {"symbol": "DUAL", "exchange": "ASX"},
    {
        "symbol": "BTCUSDT",
        "start": NOON - timedelta(hours=12, microseconds=-1),
        "end": NOON + timedelta(days=2, hours=1),
    },
    {"symbol": "DUAL", "start": NOON - timedelta(hours=20), "end": NOON + timedelta(days=1, seconds=1)},
]


@pytest.mark.parametrize(("limit", "order"), [(11, "asc"), (11, "desc"), (1000, "desc")])
@pytest.mark.parametrize("view", ["eligible", "raw"])
@pytest.mark.parametrize("timeframe", TIMEFRAMES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_bars_equal_plain_decimal_arithmetic_over_the_prints(
    client: httpx.Client, rows: list[Row], question: dict[str, Any], timeframe: str, view: str, limit: int, order: str
) -> None:
    expected = oracle.bars(rows, timeframe, **question, eligible=view == "eligible")
    sent = parameters(question, view=view, limit=limit, order=order)
    answers = pages(client, f"/v1/ohlcv/{timeframe}", sent)
    shown = [oracle.read_bar(bar) for answer in answers for bar in answer["data"]]
    assert expected, "the question must have bars"
    assert shown == (expected if order == "asc" else expected[::-1])


def test_bars_follow_eligible_prints_unless_asked_otherwise(client: httpx.Client, rows: list[Row]) -> None:
    [answer] = pages(client, "/v1/ohlcv/1h", {"symbol": " dual ", "order": "asc"})
    assert [oracle.read_bar(b) for b in answer["data"]] == oracle.bars(rows, "1h", symbol="DUAL", eligible=True)
    assert (answer["symbol"], answer["timeframe"], answer["success"]) == ("DUAL", "1h", True)
    assert answer["timestamp"] == answer["meta"]["timestamp"]


def test_a_bar_has_the_fields_of_the_original_platform(client: httpx.Client) -> None:
    [bar] = client.get("/v1/ohlcv/1d", params={"symbol": "BTCUSDT", "limit": 1}).json()["data"]
    assert list(bar) == [
        "symbol", "exchange", "timeframe", "window_start", "window_end", "open_price", "high_price", "low_price",
        "close_price", "volume", "trade_count", "vwap",
    ]  # fmt: skip
    assert (bar["symbol"], bar["exchange"], bar["timeframe"]) == ("BTCUSDT", "BINANCE", "1d")
    assert bar["window_start"] == "2024-08-11T00:00:00.000000Z"


def test_the_total_of_bars_counts_all_of_them_on_every_page(client: httpx.Client, rows: list[Row]) -> None:
    expected = oracle.bars(rows, "1m", symbol="DUAL", eligible=True)
    answers = pages(client, "/v1/ohlcv/1m", {"symbol": "DUAL", "count": "true", "limit": 10, "order": "asc"})
    assert {a["pagination"]["total"] for a in answers} == {len(expected)}
    assert [oracle.read_bar(b) for a in answers for b in a["data"]] == expected


def test_no_bars_is_not_found(client: httpx.Client) -> None:
    response = client.get("/v1/ohlcv/1m", params={"symbol": "NOSUCH"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND")


def test_a_sum_beyond_every_decimal_type_is_still_exact(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    extreme = Decimal("9999999999.99999999")
    rows = [dated(trade(n, timestamp=NOON, price=extreme, quantity=extreme)) for n in range(2_000)]
    store(lake_of(settings), TRADES, rows)
    with serving(settings) as client:
        [bar] = client.get("/v1/ohlcv/1m", params={"symbol": "BTCUSDT"}).json()["data"]
    assert [oracle.read_bar(bar)] == oracle.bars(rows, "1m")
    assert bar["vwap"] == "9999999999.99999999"


def test_the_average_price_is_rounded_half_to_even(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    prices = {"EVEN": ("0.00000002", "0.00000003"), "ODD": ("0.00000003", "0.00000004")}
    rows = [
        dated(trade(i, symbol=s, message_id=f"{s}{i}", price=Decimal(p), quantity=Decimal(1), timestamp=NOON))
        for s, pair in prices.items()
        for i, p in enumerate(pair)
    ]
    store(lake_of(settings), TRADES, rows)
    with serving(settings) as client:
        shown = {s: client.get("/v1/ohlcv/1m", params={"symbol": s}).json()["data"][0]["vwap"] for s in prices}
    assert shown == {"EVEN": "0.00000002", "ODD": "0.00000004"}


def test_a_local_day_has_twenty_five_hours_when_the_clocks_go_back(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    instants = [datetime(2014, 4, 5, 13, 30, tzinfo=UTC), datetime(2014, 4, 6, 13, 59, tzinfo=UTC)]
    store(lake_of(settings), TRADES, [dated(asx_trade(f"{i}", timestamp=at)) for i, at in enumerate(instants)])
    with serving(settings) as client:
        [bar] = client.get("/v1/ohlcv/1d", params={"symbol": "BHP"}).json()["data"]
    assert (bar["window_start"], bar["window_end"]) == ("2014-04-05T13:00:00.000000Z", "2014-04-06T14:00:00.000000Z")
    assert bar["trade_count"] == 2


def test_bars_with_decimals_as_numbers_keep_every_digit(client: httpx.Client, rows: list[Row]) -> None:
    response = client.get("/v1/ohlcv/1h", params={"symbol": "DUAL", "decimals": "number", "order": "asc"})
    shown = json.loads(response.text, parse_float=Decimal)["data"]
    assert all(isinstance(bar["vwap"], Decimal) for bar in shown)
    assert [oracle.read_bar(bar) for bar in shown] == oracle.bars(rows, "1h", symbol="DUAL", eligible=True)
