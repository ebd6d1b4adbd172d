from __future__ import annotations

import time
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest

from k2_feeds.exchange import ExchangeSettings, Limits, exchange
from k2_feeds.exchange.settings import SYMBOLS
from k2_tests.feeds.exchange.clients import PATIENCE_SECONDS, get, until

S = "SIMBTCUSDT"
CLOSED = ExchangeSettings(speed=1_000, trades_max=2_500, trades_per_second=500)


@pytest.fixture(scope="module")
def running():
    """A market that has closed, so that every answer is final."""
    with exchange(replace(CLOSED, limits=Limits(weight_max=10**9))) as started:
        assert started.is_over.wait(PATIENCE_SECONDS)
        yield started


def ask(running, path, **options):
    return get(f"{running.rest_url}/api/v3/{path}", **options)


def test_pages_by_id_give_exactly_the_ledger(running):
    found, first = [], 0
    while page := ask(running, f"historicalTrades?symbol={S}&fromId={first}&limit=1000").json():
        found += page
        first = page[-1]["id"] + 1
    told = running.ledger.trades(S)
    assert len(told) > 1_000
    assert [(t["id"], Decimal(t["price"]), Decimal(t["qty"]), t["time"], t["isBuyerMaker"]) for t in found] == [
        (one.trade_id, one.price, one.quantity, one.time_us // 1_000, one.buyer_is_maker) for one in told
    ]
    eighth = Decimal("0.00000001")
    assert all(0 <= Decimal(t["price"]) * Decimal(t["qty"]) - Decimal(t["quoteQty"]) < eighth for t in found)


def test_times_are_in_microseconds_for_who_asks(running):
    plain, fine = (
        ask(running, f"trades?symbol={S}&limit=5", headers=h).json() for h in ({}, {"X-MBX-TIME-UNIT": "MICROSECOND"})
    )
    assert [t["time"] // 1_000 for t in fine] == [t["time"] for t in plain]
    assert [t["time"] for t in fine] == [one.time_us for one in running.ledger.trades(S)[-5:]]


def test_recent_trades_are_the_last_ones_oldest_first(running):
    ids = [one.trade_id for one in running.ledger.trades(S)]
    for path in ("trades", "historicalTrades"):
        assert [t["id"] for t in ask(running, f"{path}?symbol={S}").json()] == ids[-500:]
        assert [t["id"] for t in ask(running, f"{path}?symbol={S}&limit=5000").json()] == ids[-1_000:]


def test_aggregates_prove_that_no_trade_id_is_missing(running):
    page = ask(running, f"aggTrades?symbol={S}&fromId=1&limit=1000").json()
    trades = running.ledger.trades(S)
    assert page[0]["f"] == trades[0].trade_id
    assert all(b["f"] == a["l"] + 1 and b["a"] == a["a"] + 1 for a, b in pairwise(page))
    assert any(one["l"] > one["f"] for one in page)
    first = next(one for one in page if one["l"] > one["f"])
    inside = [t for t in trades if first["f"] <= t.trade_id <= first["l"]]
    assert Decimal(first["q"]) == sum(t.quantity for t in inside)
    start, end = page[10]["T"], page[20]["T"]
    found = ask(running, f"aggTrades?symbol={S}&startTime={start}&endTime={end}").json()
    assert found == [
        one for one in ask(running, f"aggTrades?symbol={S}&fromId=1&limit=1000").json() if start <= one["T"] <= end
    ]


def test_exchange_info_lists_the_symbols_with_their_assets_and_filters(running):
    info = ask(running, "exchangeInfo").json()
    assert [symbol["symbol"] for symbol in info["symbols"]] == list(SYMBOLS)
    one = ask(running, f"exchangeInfo?symbol={S}").json()["symbols"]
    assert [(s["baseAsset"], s["quoteAsset"], s["status"]) for s in one] == [("SIMBTC", "USDT", "TRADING")]
    two = ask(running, 'exchangeInfo?symbols=["SIMETHBTC","SIMBTCUSDT"]').json()["symbols"]
    assert [s["symbol"] for s in two] == ["SIMETHBTC", "SIMBTCUSDT"]
    assert info["rateLimits"][0]["limit"] == 10**9
    assert info["serverTime"] == ask(running, "time").json()["serverTime"] or info["serverTime"] > 10**12


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("trades", -1102),
        ("trades?symbol=", -1102),
        ("trades?symbol=simbtcusdt", -1100),
        ("trades?symbol=../../etc", -1100),
        ("trades?symbol=NOPE", -1121),
        ("trades?symbol=SIMBTCUSDT&limit=x", -1100),
        ("trades?symbol=SIMBTCUSDT&limit=-1", -1100),
        ("trades?symbol=SIMBTCUSDT&limit=0", -1130),
        ("trades?symbol=SIMBTCUSDT&fromId=3", -1104),
        ("historicalTrades?symbol=SIMBTCUSDT&fromId=99999999999999999999", -1108),
        ("aggTrades?symbol=SIMBTCUSDT&fromId=1&startTime=1", -1128),
        ("exchangeInfo?symbol=NOPE", -1121),
        ("exchangeInfo?symbols=[]", -1100),
        ("exchangeInfo?symbol=A&symbols=[]", -1128),
    ],
)
def test_what_cannot_be_answered_is_refused_in_binances_words(running, path, code):
    answer = ask(running, path)
    assert answer.status_code == 400
    assert answer.json()["code"] == code
    assert answer.json()["msg"]
    assert int(answer.headers["X-MBX-USED-WEIGHT-1M"]) > 0


def test_an_unknown_time_unit_is_refused(running):
    answer = ask(running, "time", headers={"X-MBX-TIME-UNIT": "HOUR"})
    assert (answer.status_code, answer.json()["code"]) == (400, -1194)


def limited(**limits):
    return exchange(replace(CLOSED, trades_max=10, limits=Limits(**limits)))


def test_every_answer_tells_the_weight_used():
    with limited(weight_window_seconds=3_600) as running:
        weights = [1, 1, 20, 25, 25, 4]
        paths = [
            "ping",
            "time",
            "exchangeInfo",
            f"trades?symbol={S}",
            f"historicalTrades?symbol={S}",
            f"aggTrades?symbol={S}",
        ]
        used = [int(ask(running, path).headers["X-MBX-USED-WEIGHT-1M"]) for path in paths]
        assert used == [sum(weights[: i + 1]) for i in range(6)]


def test_spent_weight_is_429_with_the_seconds_to_wait_and_then_answered_again():
    with limited(weight_max=60, weight_window_seconds=1) as running:
        answer = until(lambda: (a := ask(running, f"trades?symbol={S}")).status_code == 429 and a)
        assert answer.json()["code"] == -1003
        assert "60 request weight" in answer.json()["msg"]
        time.sleep(int(answer.headers["Retry-After"]))
        assert ask(running, "ping").status_code == 200


def test_who_goes_on_after_429_is_banned_with_418():
    with limited(weight_max=20, weight_window_seconds=3_600, refusals_max=3, ban_seconds=77) as running:
        answers = [ask(running, f"trades?symbol={S}") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [429, 429, 429, 429, 418]
        assert answers[-1].headers["Retry-After"] == "77"
        assert "banned until" in answers[-1].json()["msg"]
        assert ask(running, "ping").status_code == 418


def test_a_429_and_a_ban_can_be_had_on_demand():
    with limited() as running:
        running.faults.inject("rest_429", seconds=1)
        answer = ask(running, "ping")
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        time.sleep(1.0)
        assert ask(running, "ping").status_code == 200
        running.faults.inject("rest_418", seconds=60)
        assert [ask(running, "ping").status_code for _ in range(2)] == [418, 418]


def test_a_failing_server_answers_with_json_and_with_html():
    with limited() as running:
        running.faults.inject("rest_5xx", count=4)
        answers = [ask(running, "ping") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [500, 502, 503, 504, 200]
        assert [answer.headers["Content-Type"].partition(";")[0] for answer in answers[:2]] == [
            "application/json",
            "text/html",
        ]
        assert answers[0].json()["code"] == -1000
