from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from k2_api.bar_shapes import BatchEntry, OhlcvAnswer, OhlcvHealth
from k2_core.contracts import TRADES
from k2_resources import clock
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


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_bars_equal_plain_decimal_arithmetic_over_the_prints(
    client: httpx.Client, rows: list[Row], question: dict[str, Any], timeframe: str
) -> None:
    number = QUESTIONS.index(question) + TIMEFRAMES.index(timeframe)
    limit, order = [(40, "asc"), (40, "desc"), (1000, "desc")][number % 3]
    view = ["eligible", "raw"][number % 2]
    expected = oracle.bars(rows, timeframe, **question, eligible=view == "eligible")
    sent = parameters(question, view=view, limit=limit, order=order)
    answers = pages(client, f"/v1/ohlcv/{timeframe}", sent)
    assert [OhlcvAnswer.model_validate(answer) for answer in answers]
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
    answers = pages(client, "/v1/ohlcv/1m", {"symbol": "DUAL", "count": "true", "limit": 60, "order": "asc"})
    assert {a["pagination"]["total"] for a in answers} == {len(expected)}
    assert [oracle.read_bar(b) for a in answers for b in a["data"]] == expected


def test_no_bars_is_not_found(client: httpx.Client) -> None:
    response = client.get("/v1/ohlcv/1m", params={"symbol": "NOSUCH"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND")


def test_prices_follow_the_conditions_of_prints_and_volume_more_of_them(tmp_path: Path) -> None:
    prints = [
        asx_trade("36000.1", price="40.00", trade_conditions=["1"]),
        asx_trade("36000.2", price="36.10", trade_conditions=["0"]),
        asx_trade("36000.3", price="39.00", trade_conditions=["S1"]),
        asx_trade("36000.4", price="36.20", trade_conditions=["25"], quality_flags=1),
        asx_trade("36060.0", price="39.50", trade_conditions=["LT"]),
        asx_trade("36120.0", price="39.50", trade_conditions=["3"]),
    ]
    settings = settings_of(tmp_path)
    store(lake_of(settings), TRADES, [dated(row) for row in prints])
    with serving(settings) as client:
        shown = client.get("/v1/ohlcv/1m", params={"symbol": "BHP", "order": "asc"}).json()["data"]
        raw = client.get("/v1/ohlcv/1m", params={"symbol": "BHP", "order": "asc", "view": "raw"}).json()["data"]
    prices = [[bar[f"{name}_price"] for name in ("open", "high", "low", "close")] for bar in shown]
    assert prices == [["36.10000000"] * 4, [None] * 4]
    assert [(bar["volume"], bar["trade_count"], bar["vwap"]) for bar in shown] == [
        ("800.00000000", 2, "36.10000000"),
        ("400.00000000", 1, None),
    ]
    assert [(bar["high_price"], bar["trade_count"]) for bar in raw] == [
        ("40.00000000", 4),
        ("39.50000000", 1),
        ("39.50000000", 1),
    ]


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


def test_a_batch_answers_each_question_by_itself(client: httpx.Client) -> None:
    items: list[dict[str, Any]] = [
        {"symbol": "dual", "timeframe": "1h", "limit": 3},
        {"symbol": "DUAL", "timeframe": "1d", "exchange": "ASX", "limit": 500},
        {"symbol": "NOSUCH", "timeframe": "1m"},
        {"symbol": "DUAL", "timeframe": "1h", "exchange": "ASX", "start_time": "2024-08-09", "end_time": "2024-08-10"},
    ]
    answer = client.post("/v1/ohlcv/batch", json=items).json()
    assert [BatchEntry.model_validate(entry) for entry in answer.values()]
    assert list(answer) == ["1h_DUAL", "1d_DUAL", "1m_NOSUCH", "1h_DUAL#2"]
    for name, item in zip(answer, items, strict=True):
        alone = client.get(f"/v1/ohlcv/{item['timeframe']}", params={k: v for k, v in item.items() if k != "timeframe"})
        assert answer[name]["data"] == alone.json().get("data", [])
        assert (answer[name]["success"], answer[name]["symbol"]) == (alone.is_success, item["symbol"].upper())
        assert set(answer[name]) == {"success", "data", "pagination", "timeframe", "symbol", "error"}
    assert answer["1h_DUAL"]["pagination"]["has_more"]
    assert (answer["1h_DUAL"]["error"], "NOSUCH" in answer["1m_NOSUCH"]["error"]) == (None, True)


@pytest.mark.parametrize(
    ("items", "status", "code"),
    [
        ([], 400, "INVALID_REQUEST"),
        ([{"symbol": "A", "timeframe": "1m"}] * 6, 400, "TOO_MANY_REQUESTS"),
        ([{"symbol": "A", "timeframe": "1m", "limit": 10_000}] * 3, 400, "RESOURCE_LIMIT_EXCEEDED"),
        ([{"symbol": "A", "timeframe": "7m"}], 422, "VALIDATION_ERROR"),
        ([{"timeframe": "1m"}], 422, "VALIDATION_ERROR"),
        (
            [{"symbol": "A", "timeframe": "1m", "start_time": "2024-01-02", "end_time": "2024-01-01"}],
            422,
            "VALIDATION_ERROR",
        ),
        ({"symbol": "A", "timeframe": "1m"}, 422, "VALIDATION_ERROR"),
    ],
)
def test_a_batch_beyond_its_bounds_is_refused(client: httpx.Client, items: Any, status: int, code: str) -> None:
    answer = client.post("/v1/ohlcv/batch", json=items)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_the_health_of_bars_tells_how_old_the_newest_window_is(tmp_path: Path) -> None:
    settings, at = settings_of(tmp_path), clock.now()
    lake = lake_of(settings)
    with serving(settings) as client:
        nothing = client.get("/v1/ohlcv/health").json()
        store(lake, TRADES, [dated(trade(1, timestamp=at - timedelta(minutes=50)))])
        health = client.get("/v1/ohlcv/health").json()
    assert [OhlcvHealth.model_validate(told) for told in (nothing, health)]
    assert (nothing["overall_status"], nothing["tables"]["1m"]["status"]) == ("unhealthy", "no_data")
    assert (health["overall_status"], health["checks_performed"]) == ("degraded", 5)
    assert {name: table["status"] for name, table in health["tables"].items()} == {
        "1m": "stale", "5m": "stale", "30m": health["tables"]["30m"]["status"], "1h": "healthy", "1d": "healthy",
    }  # fmt: skip
    minute = health["tables"]["1m"]
    assert 50 <= minute["age_minutes"] < 53
    assert (minute["threshold_minutes"], minute["symbol"]) == (10, "BTCUSDT")
