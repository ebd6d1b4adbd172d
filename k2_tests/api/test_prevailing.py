"""Quotes as of instants and trades beside their quotes, against a search through all rows in plain Python."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from k2_api.prevailing_models import AsOfAnswer, WithQuotesAnswer
from k2_core.contracts import QUOTES, TRADES
from k2_resources.lake.catalog import Lake
from k2_resources.settings import Settings
from k2_tests.api import oracle
from k2_tests.api.homes import Row, dated, lake_of, serving, settings_of, store
from k2_tests.api.ledger_homes import plain
from k2_tests.ticks import NOON, quote, trade

VENUES = ("ASX", "BINANCE")


def some_quotes() -> list[Row]:
    """Quotes of two exchanges with ties, silences of hours and days, and corrections that moved them."""
    chance, made = random.Random(3), []
    for n in range(300):
        at = NOON + timedelta(
            days=chance.choice([0, 0, 0, 1, 6]), minutes=chance.choice([0, 1, 90, 300]), seconds=chance.randrange(40)
        )
        venue = chance.choice(VENUES)
        row = quote(
            n, timestamp=at, exchange=venue, bid_price=Decimal(n + 1), platform_sequence=chance.choice([None, n])
        )
        made.append(dated({**row, "message_id": f"{venue}:BTCUSDT:quote:{n}"}))
    moved = [
        dated({**_bare(row), "timestamp": row["timestamp"] + timedelta(hours=3), "revision": 1}) for row in made[::17]
    ]
    return [*made, *moved, dated(quote(999, symbol="OTHER", timestamp=NOON))]


def some_trades() -> list[Row]:
    chance = random.Random(4)
    times = [NOON + timedelta(days=chance.choice([0, 1, 6, 30]), seconds=chance.randrange(20_000)) for _ in range(60)]
    made = [trade(n, timestamp=at, exchange=chance.choice(VENUES)) for n, at in enumerate(times)]
    # some at the very instant of a quote
    made += [
        trade(100 + n, timestamp=row["timestamp"], exchange=row["exchange"]) for n, row in enumerate(some_quotes()[:20])
    ]
    return [dated({**row, "message_id": f"{row['exchange']}:BTCUSDT:trade:{row['source_sequence']}"}) for row in made]


def _bare(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ("revision", "exchange_date")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_of(tmp_path_factory.mktemp("prevailing"))


@pytest.fixture(scope="module")
def lake(home: Settings) -> Lake:
    lake, quotes = lake_of(home), some_quotes()
    for part in range(3):
        store(lake, QUOTES, quotes[part::3])
    store(lake, TRADES, some_trades())
    return lake


@pytest.fixture(scope="module")
def asking(home: Settings, lake: Lake) -> Iterator[httpx.Client]:
    with serving(home) as client:
        yield client


@cache
def quotes_of(venue: str) -> list[Row]:
    return oracle.asked(some_quotes(), symbol="BTCUSDT", exchange=venue)


def stood(at: datetime, venue: str, *, seconds: int = 86_400, before: bool = False) -> Row | None:
    """The last quote at or before an instant, in the total order; None when it is too old."""
    kept = [q for q in quotes_of(venue) if q["timestamp"] < at or (q["timestamp"] == at and not before)]
    young = kept and (at - kept[-1]["timestamp"]) <= timedelta(seconds=seconds)
    return kept[-1] if young else None


def names(found: list[Any]) -> list[str | None]:
    return [q and q["message_id"] for q in found]


@pytest.mark.parametrize("seconds", [1, 3_600, 86_400])
def test_a_quote_stands_until_the_next_or_until_it_is_too_old(asking: httpx.Client, seconds: int) -> None:
    chance = random.Random(seconds)
    instants = [NOON + timedelta(seconds=chance.randrange(-60, 8 * 86_400)) for _ in range(40)]
    instants += [row["timestamp"] for row in some_quotes()[:20]]
    params = {"symbol": "BTCUSDT", "max_age_seconds": seconds, "at": [at.isoformat() for at in instants]}
    response = asking.get("/v1/quotes/as-of", params=params)
    found = response.json()["data"]
    asked = [(at, venue) for at in instants for venue in VENUES]
    assert [(f["at"], f["exchange"]) for f in found] == [(plain(at), venue) for at, venue in asked]
    expected = [stood(at, venue, seconds=seconds) for at, venue in asked]
    assert names([f["quote"] for f in found]) == names(expected)
    assert [f["age_us"] for f in found] == [
        e and (at - e["timestamp"]) // timedelta(microseconds=1) for (at, _), e in zip(asked, expected, strict=True)
    ]
    assert any(expected) and not all(expected)
    AsOfAnswer.model_validate_json(response.content, strict=True)


def test_one_exchange_is_asked_for_and_an_unknown_symbol_has_none(asking: httpx.Client) -> None:
    params = {"symbol": "BTCUSDT", "at": NOON.isoformat(), "exchange": "ASX"}
    assert [f["exchange"] for f in asking.get("/v1/quotes/as-of", params=params).json()["data"]] == ["ASX"]
    assert asking.get("/v1/quotes/as-of", params={**params, "symbol": "NOSUCH"}).json()["data"] == []
    row = asking.get(
        "/v1/quotes/as-of", params={**params, "decimals": "number", "at": (NOON + timedelta(hours=1)).isoformat()}
    )
    assert isinstance(row.json()["data"][0]["quote"]["bid_price"], float)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("quote_at", ["at", "before"])
def test_each_trade_stands_beside_its_quote(asking: httpx.Client, order: str, quote_at: str) -> None:
    params: dict[str, Any] = {"symbol": "BTCUSDT", "limit": 1000, "order": order, "quote_at": quote_at}
    response = asking.get("/v1/trades/with-quotes", params=params)
    found = response.json()["data"]
    trades = oracle.asked(some_trades(), symbol="BTCUSDT")
    trades = trades if order == "asc" else trades[::-1]
    plainly = asking.get("/v1/trades", params={"symbol": "BTCUSDT", "limit": 1000, "order": order}).json()["data"]
    assert [{n: v for n, v in row.items() if n not in ("quote", "quote_age_us")} for row in found] == plainly
    expected = [stood(t["timestamp"], t["exchange"], before=quote_at == "before") for t in trades]
    assert names([row["quote"] for row in found]) == names(expected)
    assert [row["quote_age_us"] for row in found] == [
        e and (t["timestamp"] - e["timestamp"]) // timedelta(microseconds=1)
        for t, e in zip(trades, expected, strict=True)
    ]
    WithQuotesAnswer.model_validate_json(response.content, strict=True)


def test_pages_keep_the_versions_of_both_tables(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    lake = lake_of(settings)
    store(lake, TRADES, some_trades())
    store(lake, QUOTES, some_quotes())
    with serving(settings) as client:
        asked: dict[str, Any] = {"symbol": "BTCUSDT", "limit": 1000}
        whole = client.get("/v1/trades/with-quotes", params=asked).json()["data"]
        walked, cursor = [], None
        while True:
            more = {"cursor": cursor} if cursor else {}
            body = client.get("/v1/trades/with-quotes", params={**asked, "limit": 30, **more}).json()
            walked += body["data"]
            cursor = body["pagination"]["next_cursor"]
            if cursor is None:
                break
            late = [dated(quote(5000 + len(walked), timestamp=NOON + timedelta(days=6, seconds=n))) for n in range(3)]
            store(lake, QUOTES, late)
            store(lake, TRADES, [dated(trade(9000 + len(walked), timestamp=NOON + timedelta(days=6)))])
    assert walked == whole


@pytest.mark.parametrize(
    "path",
    [
        "/v1/quotes/as-of?symbol=A",
        "/v1/quotes/as-of?at=2024-01-01",
        "/v1/quotes/as-of?symbol=A&at=noon",
        "/v1/quotes/as-of?symbol=A&at=2024-01-01&max_age_seconds=0",
        "/v1/quotes/as-of?symbol=A&" + "&".join(["at=2024-01-01"] * 101),
        "/v1/trades/with-quotes",
        "/v1/trades/with-quotes?symbol=A&limit=1001",
        "/v1/trades/with-quotes?symbol=A&start_time=2024-01-02&end_time=2024-01-01",
        "/v1/trades/with-quotes?symbol=A&quote_at=after",
    ],
)
def test_a_wrong_question_is_refused(asking: httpx.Client, path: str) -> None:
    assert asking.get(path).status_code == 422


def test_the_ends_of_the_calendar_break_nothing(asking: httpx.Client) -> None:
    at = ["0001-01-01", "9999-12-31T23:59:59.999999Z"]
    found = asking.get("/v1/quotes/as-of", params={"symbol": "BTCUSDT", "at": at, "max_age_seconds": 604_800})
    assert found.status_code == 200
    assert {f["quote"] for f in found.json()["data"]} == {None}
    assert asking.get("/v1/trades/with-quotes?symbol=BTCUSDT&cursor=x").json()["code"] == "INVALID_CURSOR"
