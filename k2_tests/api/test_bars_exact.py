"""Bars on K2's own path equal their definition, at every state, stored or not."""

from __future__ import annotations

import random
from collections.abc import Container
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from k2_api.bar_shapes import BarsAnswer
from k2_core.bar_fills import Fill
from k2_core.contracts import TRADES
from k2_core.windows import INTERVALS, iso
from k2_resources.lake.compaction import stored_files
from k2_tests.api.homes import Row, serving, settings_of
from k2_tests.api.markets import Market, days, random_prints, revised, shown
from k2_tests.api.test_trades import pages, parameters
from k2_tests.lakes import Batch, new_lake, put, register

TOLD = (
    "symbol", "exchange", "exchange_date", "window_start", "window_end", "open_price", "high_price", "low_price",
    "close_price", "volume", "trade_count", "excluded_count", "vwap", "twap", "twap_coverage", "gap_count", "is_final",
    "conditions_version",
)  # fmt: skip
QUESTIONS = 30
STORED = ("1m", "5m", "4h", "1d")
"""Lengths that stored bars can tell."""


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Three batches, the bars built after the second: some dates are stored as they are, others have changed since."""
    made = Market.at(tmp_path_factory.mktemp("market"))
    made.put(random_prints(1, 250))
    made.put([*random_prints(2, 150, first=1_000), *revised(3, made.rows(), 40)])
    made.build()
    some = [row for row in random_prints(4, 60, first=2_000) if row["timestamp"].day != 9]
    made.put([*some, *revised(5, [row for row in made.rows() if row["exchange_date"].day == 8], 4)])
    return made


@pytest.fixture(scope="module")
def client(market: Market) -> Any:
    with serving(market.settings) as client:
        yield client


def told(answer: dict[str, Any]) -> list[Row]:
    return [{name: bar[name] for name in TOLD} for bar in answer["data"]]


def question(chance: random.Random) -> dict[str, Any]:
    """A question that somebody might ask."""
    asked: dict[str, Any] = {"symbol": chance.choice(["DUAL", "DUAL", "BTCUSDT"])}
    if chance.random() < 0.4:
        asked["exchange"] = chance.choice(["ASX", "BINANCE"])
    if chance.random() < 0.6:
        start = chance.choice(list(days())) + timedelta(minutes=chance.choice([-61, 0, 1, 701, 840]))
        asked |= {"start": start, "end": start + timedelta(minutes=chance.choice([2, 15, 1_000, 4_000]))}
    return asked | {
        "view": chance.choice(["eligible"] * 3 + ["raw"]),
        "session": chance.choice(["all", "all", "regular"]),
    }


@pytest.mark.parametrize("number", range(QUESTIONS))
def test_every_page_of_bars_equals_their_definition(client: httpx.Client, market: Market, number: int) -> None:
    chance = random.Random(number)
    asked, interval = question(chance), list(INTERVALS)[number % len(INTERVALS)]
    batches = chance.choice([None, None, 1, 2])
    pin = {} if batches is None else {"version": market.versions[batches - 1]}
    limit, order = chance.choice([(40, "asc"), (25, "desc"), (1_000, "asc")])
    answers = pages(client, f"/v1/bars/{interval}", parameters(asked, limit=limit, order=order, **pin))
    assert [BarsAnswer.model_validate(answer) for answer in answers]
    regular = {"session": "regular"} if interval == "session" else {}
    commit_time = answers[0]["meta"]["timestamp"]
    expected = market.bars(INTERVALS[interval], commit_time, batches, **{**asked, **regular})
    found = [bar for answer in answers for bar in told(answer)]
    assert found == [shown(bar, TOLD) for bar in (expected if order == "asc" else expected[::-1])]


def test_a_question_has_bars_of_open_and_of_closed_dates(client: httpx.Client) -> None:
    found = [bar["is_final"] for bar in client.get("/v1/bars/1m", params={"symbol": "DUAL"}).json()["data"]]
    assert len(found) > 50
    assert set(found) == {True, False}


def test_stored_bars_give_the_same_bytes_as_the_prints_they_were_built_of(tmp_path: Path) -> None:
    market = Market.at(tmp_path)
    market.put([row for row in random_prints(6, 200) if row["timestamp"].year == 2024])
    market.put(revised(7, market.rows(), 20))
    asked: list[dict[str, Any]] = [
        {"symbol": "DUAL", "limit": limit, "order": order} for limit, order in ((9, "asc"), (1_000, "desc"))
    ]
    with serving(market.settings) as client:
        computed = [client.get(f"/v1/bars/{interval}", params=sent) for interval in STORED for sent in asked]
        summary = client.get("/v1/summary/BTCUSDT/2024-08-08")
    market.build()
    for file in stored_files(market.lake.head(TRADES)):
        Path(file.path).unlink()
    with serving(market.settings) as client:
        stored = [client.get(f"/v1/bars/{interval}", params=sent) for interval in STORED for sent in asked]
        again = client.get("/v1/summary/BTCUSDT/2024-08-08")
        broken = client.get("/v1/bars/1s", params=asked[0])
    assert [body(r) for r in stored] == [body(r) for r in computed]
    assert all(r.json()["data"] for r in stored)
    assert body(again) == body(summary)
    assert broken.json()["code"] == "DAMAGED"


def test_a_hole_counts_in_every_length_of_bar_it_ends_in(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    register(lake)
    put(lake, Batch(trades=[1, 2]))
    put(lake, Batch(trades=[70_000, 70_001], gaps=[(3, 69_999)]))
    with serving(settings_of(tmp_path)) as client:
        shown_ = {n: client.get(f"/v1/bars/{n}", params={"symbol": "BTCUSDT"}) for n in ("1s", "1m", "1h", "1d")}
        second = {"start_time": "2024-08-08T12:01:10Z", "end_time": "2024-08-08T12:01:11Z"}
        (bar,) = client.get("/v1/bars/1s", params={"symbol": "BTCUSDT", **second}).json()["data"]
    assert {name: [bar["gap_count"] for bar in r.json()["data"]] for name, r in shown_.items()} == {
        "1s": [0, 1], "1m": [0, 1], "1h": [1], "1d": [1],
    }  # fmt: skip
    assert bar["gap_count"] == 1


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("fill", ["null", "prev"])
@pytest.mark.parametrize("interval", ["10s", "1h", "1d"])
def test_filled_pages_have_every_window_once_with_the_close_before_it(
    client: httpx.Client, market: Market, interval: str, fill: Fill, order: str
) -> None:
    midnight = next(days()) - timedelta(hours=10)  # the local midnight of the ASX
    lengths = {"10s": timedelta(minutes=1), "1m": timedelta(minutes=20), "1h": timedelta(hours=20)}
    span = {"start": midnight, "end": midnight + lengths.get(interval, timedelta(days=6))}
    asked: dict[str, Any] = {"symbol": "DUAL", "exchange": "ASX"}
    answers = pages(client, f"/v1/bars/{interval}", parameters({**asked, **span}, fill=fill, limit=8, order=order))
    found = [bar for answer in answers for bar in answer["data"]]
    found = found if order == "asc" else found[::-1]
    every = market.bars(INTERVALS[interval], answers[0]["meta"]["timestamp"], **asked)
    known = {shown(bar, ["window_start"])["window_start"]: shown(bar, TOLD) for bar in every}
    assert [bar["window_start"] for bar in found] == [iso(start) for start in windows(interval, known, **span)]
    close = next((b["close_price"] for b in reversed(every) if b["window_start"] < midnight and b["close_price"]), None)
    close = close and f"{close:f}"
    for bar in found:
        own = known.get(bar["window_start"])
        assert bar["is_filled"] == (own is None)
        if own is not None:
            assert {name: bar[name] for name in TOLD} == own
            close = own["close_price"] or close
            continue
        assert (bar["volume"], bar["trade_count"], bar["vwap"]) == ("0.00000000", 0, None)
        assert {bar[f"{name}_price"] for name in ("open", "high", "low", "close")} == {
            close if fill == "prev" else None
        }


def windows(interval: str, known: Container[str], start: datetime, end: datetime) -> list[datetime]:
    """Where the windows begin; the ASX trades from Monday to Friday, or when something is known of it."""
    width_us = INTERVALS[interval].width_us
    if width_us is not None:
        return [
            start + timedelta(microseconds=n * width_us)
            for n in range((end - start) // timedelta(microseconds=width_us))
        ]
    days_ = (start + timedelta(days=n) for n in range(6))
    return [at for at in days_ if (at + timedelta(hours=10)).weekday() < 5 or iso(at) in known]


def test_windows_are_filled_up_to_the_commit_and_no_further(client: httpx.Client) -> None:
    today = list(days())[-1]
    span = {"start_time": today.isoformat(), "end_time": (today + timedelta(days=2)).isoformat()}
    sent: dict[str, Any] = {
        "symbol": "DUAL",
        "exchange": "BINANCE",
        "fill": "null",
        "limit": 10_000,
        "count": "true",
        **span,
    }
    answer = client.get("/v1/bars/1m", params=sent).json()
    last = datetime.fromisoformat(answer["data"][-1]["window_start"])
    commit = datetime.fromisoformat(answer["meta"]["timestamp"])
    assert last < commit <= last + timedelta(minutes=1)
    assert answer["pagination"]["total"] == len(answer["data"])


@pytest.mark.parametrize("missing", ["exchange", "start_time", "end_time"])
def test_filling_needs_bounds(client: httpx.Client, missing: str) -> None:
    sent = {"exchange": "ASX", "start_time": "2024-08-08", "end_time": "2024-08-09", "fill": "prev", "symbol": "DUAL"}
    del sent[missing]
    assert client.get("/v1/bars/1m", params=sent).status_code == 422


def test_nothing_is_an_empty_list(client: httpx.Client) -> None:
    answer = client.get("/v1/bars/1m", params={"symbol": "NOSUCH"})
    assert (answer.status_code, answer.json()["data"]) == (200, [])
    assert client.get("/v1/bars/7m", params={"symbol": "DUAL"}).status_code == 422


@pytest.mark.parametrize("interval", ["1s", "1d"])
@pytest.mark.parametrize(
    "symbol", ["\x00", "😀", "'; DROP TABLE x; --", "DUAL\n", "%00", "\uff24\uff35\uff21\uff2c", "*" * 256]
)
def test_a_hostile_symbol_is_only_unknown(client: httpx.Client, interval: str, symbol: str) -> None:
    answer = client.get(f"/v1/bars/{interval}", params={"symbol": symbol})
    assert (answer.status_code, answer.json()["data"]) == (200, [])


@pytest.mark.parametrize("fill", ["none", "null", "prev"])
@pytest.mark.parametrize("interval", ["1s", "12h", "1d"])
@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("0001-01-01", "0001-01-02"),
        ("9999-12-30", "9999-12-31T23:59:59.999999Z"),
        ("0001-01-01", "9999-12-31T23:59:59Z"),
    ],
)
def test_the_ends_of_the_calendar_are_ranges_like_others(
    client: httpx.Client, interval: str, fill: Fill, start: str, end: str
) -> None:
    sent: dict[str, Any] = {
        "symbol": "DUAL",
        "exchange": "ASX",
        "fill": fill,
        "start_time": start,
        "end_time": end,
        "limit": 3,
    }
    for order in ("asc", "desc"):
        answer = client.get(f"/v1/bars/{interval}", params={**sent, "order": order})
        assert answer.status_code == 200, answer.text
        assert bool(answer.json()["data"]) == (start[0] == "0" and end[0] == "9")


def test_a_state_nobody_knows_is_not_found(client: httpx.Client) -> None:
    answer = client.get("/v1/bars/1m", params={"symbol": "DUAL", "version": "0" * 64})
    assert (answer.status_code, answer.json()["code"]) == (404, "SNAPSHOT_NOT_FOUND")
    both: dict[str, Any] = {"symbol": "DUAL", "version": "0" * 64, "snapshot_id": 1}
    assert client.get("/v1/bars/1m", params=both).status_code == 422


def test_an_answer_about_a_named_state_is_kept_for_ever(client: httpx.Client, market: Market) -> None:
    sent = {"symbol": "DUAL", "version": market.versions[0]}
    answer = client.get("/v1/bars/1h", params=sent)
    assert "immutable" in answer.headers["Cache-Control"]
    again = client.get("/v1/bars/1h", params=sent, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def body(response: httpx.Response) -> bytes:
    """All of an answer but the one member that names the request."""
    assert response.status_code == 200, response.text
    return response.content.replace(response.json()["meta"]["correlation_id"].encode(), b"")
