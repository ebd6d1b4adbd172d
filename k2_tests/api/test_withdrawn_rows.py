"""A correction that moves a print to another minute, day or side: the withdrawn row is nowhere to be seen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from k2_core.contracts import QUOTES, TRADES
from k2_tests.api import oracle
from k2_tests.api.homes import Row, dated, lake_of, serving, settings_of, store
from k2_tests.api.test_trades import pages
from k2_tests.core.test_judge import QUOTES_FEED, TRADES_FEED
from k2_tests.core.test_judge import Lake as Judged
from k2_tests.ticks import NOON, quote, trade

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
STATED = [trade(n, timestamp=NOON + n * MINUTE) for n in range(10)]
MOVED: dict[str, Row] = {
    "another minute": {**STATED[2], "timestamp": NOON + 40 * MINUTE},
    "another day": {**STATED[8], "timestamp": NOON + 3 * DAY},
    "another side": {**STATED[6], "side": "SELL", "price": Decimal(5)},
    "a day back": {**STATED[4], "timestamp": NOON - DAY},
}
QUOTED = [quote(n, timestamp=NOON + n * MINUTE) for n in range(4)]
MOVED_QUOTE = {**QUOTED[2], "timestamp": NOON + DAY, "bid_price": Decimal(99)}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = settings_of(tmp_path_factory.mktemp("withdrawn"))
    fill(settings.home)
    with serving(settings) as client:
        yield client


def fill(home: Path) -> None:
    """Each correction is judged and committed after what it corrects, so it lies in a file of its own."""
    lake = lake_of(settings_of(home))
    trades, quotes = Judged(TRADES_FEED), Judged(QUOTES_FEED)
    for batch in (STATED, *([row] for row in MOVED.values())):
        store(lake, TRADES, trades.feed_in(*batch).rows.to_pylist())
    for batch in (QUOTED, [MOVED_QUOTE]):
        store(lake, QUOTES, quotes.feed_in(*batch).rows.to_pylist())


def newest() -> list[Row]:
    """What is left: the corrections, and what none of them withdrew."""
    corrected = {row["message_id"]: row for row in MOVED.values()}
    return [dated(corrected.get(row["message_id"], row)) for row in STATED]


def window(around: datetime) -> dict[str, Any]:
    """The minute that begins at an instant."""
    return {"start_time": around.isoformat(), "end_time": (around + MINUTE).isoformat(), "count": "true"}


def shown(client: httpx.Client, path: str, **asked: Any) -> tuple[list[tuple[str, int]], int]:
    answers = pages(client, path, {"limit": 3, **asked})
    rows = [(row["message_id"], row["revision"]) for answer in answers for row in answer["data"]]
    return rows, answers[0]["pagination"]["total"]


@pytest.mark.parametrize("scope", [{}, {"symbol": "BTCUSDT"}, {"exchange": "BINANCE"}, {"view": "eligible"}], ids=str)
@pytest.mark.parametrize("moved", MOVED.values(), ids=MOVED.keys())
def test_a_question_about_where_it_was_does_not_find_it(client, moved, scope):
    [withdrawn] = [row for row in STATED if row["message_id"] == moved["message_id"]]
    rows, total = shown(client, "/v1/trades", **window(withdrawn["timestamp"]), **scope)
    still_there = moved["timestamp"] == withdrawn["timestamp"]
    assert rows == ([(moved["message_id"], 1)] if still_there else [])
    assert total == len(rows)


@pytest.mark.parametrize("moved", MOVED.values(), ids=MOVED.keys())
def test_a_question_about_where_it_is_finds_the_correction(client, moved):
    assert shown(client, "/v1/trades", **window(moved["timestamp"])) == ([(moved["message_id"], 1)], 1)


def test_every_print_is_shown_once_as_last_stated(client):
    rows, total = shown(client, "/v1/trades", count="true", symbol="BTCUSDT")
    assert sorted(key for key, _ in rows) == sorted(row["message_id"] for row in STATED)
    assert {key for key, revision in rows if revision} == {row["message_id"] for row in MOVED.values()}
    assert total == len(STATED)
    sides = {r["message_id"]: r["side"] for a in pages(client, "/v1/trades", {}) for r in a["data"]}
    assert sides[STATED[6]["message_id"]] == "SELL"


@pytest.mark.parametrize("view", ["raw", "eligible"])
@pytest.mark.parametrize("timeframe", ["1m", "5m", "1h", "1d"])
def test_bars_hold_what_was_moved_in_and_not_what_was_moved_away(client, timeframe, view):
    answers = pages(client, f"/v1/ohlcv/{timeframe}", {"symbol": "BTCUSDT", "order": "asc", "view": view})
    expected = oracle.bars(newest(), timeframe, symbol="BTCUSDT", eligible=view == "eligible")
    assert [oracle.read_bar(bar) for answer in answers for bar in answer["data"]] == expected
    assert sum(bar["trade_count"] for answer in answers for bar in answer["data"]) == len(STATED)


def test_a_bar_of_the_minute_it_left_is_not_there(client):
    asked = {"symbol": "BTCUSDT", **window(STATED[2]["timestamp"])}
    answer = client.get("/v1/ohlcv/1m", params=asked)
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


def test_a_quote_that_moved_to_another_day_is_only_there(client):
    assert shown(client, "/v1/quotes", **window(QUOTED[2]["timestamp"])) == ([], 0)
    assert shown(client, "/v1/quotes", **window(MOVED_QUOTE["timestamp"])) == ([(MOVED_QUOTE["message_id"], 1)], 1)
