from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from k2_core.contracts import QUOTES, TRADES
from k2_core.protocol import collect as collecting
from k2_core.protocol import retain
from k2_resources.lake.ledger import IcebergLedger
from k2_tests.api import oracle
from k2_tests.api.homes import Row, dated, lake_of, serving, settings_of, store
from k2_tests.lakes import collect
from k2_tests.ticks import NOON, trade

QUESTIONS: list[dict[str, Any]] = [
    {},
    {"symbol": "DUAL"},
    {"symbol": "DUAL", "exchange": "ASX"},
    {"symbol": "BTCUSDT", "start": NOON - timedelta(hours=12), "end": NOON + timedelta(hours=12)},
    {"symbol": "DUAL", "start": NOON + timedelta(days=1, minutes=-19), "end": NOON + timedelta(days=3)},
    {"symbol": "DUAL", "eligible": True},
    {"exchange": "BINANCE", "eligible": True, "start": NOON},
]


def parameters(question: dict[str, Any], **more: Any) -> dict[str, Any]:
    names = {"start": "start_time", "end": "end_time"}
    sent = {
        names.get(k, k): v.isoformat() if isinstance(v, datetime) else v for k, v in question.items() if k != "eligible"
    }
    return {**sent, **({"view": "eligible"} if question.get("eligible") else {}), **more}


def pages(client: httpx.Client, path: str, sent: dict[str, Any]) -> list[dict[str, Any]]:
    answers = []
    cursor: dict[str, str] = {}
    while True:
        response = client.get(path, params={**sent, **cursor})
        assert response.status_code == 200, response.text
        answers.append(response.json())
        following = answers[-1]["pagination"]["next_cursor"]
        if following is None:
            return answers
        cursor = {"cursor": following}


def ids(answers: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(row["message_id"], row["revision"]) for answer in answers for row in answer["data"]]


@pytest.mark.parametrize(("limit", "order"), [(23, "asc"), (23, "desc"), (10_000, "asc"), (10_000, "desc")])
@pytest.mark.parametrize("question", QUESTIONS)
def test_the_pages_of_a_question_are_its_rows_in_total_order(
    client: httpx.Client, rows: list[Row], question: dict[str, Any], limit: int, order: str
) -> None:
    expected = [(r["message_id"], r["revision"]) for r in oracle.asked(rows, **question)]
    answers = pages(client, "/v1/trades", parameters(question, limit=limit, order=order))
    assert expected, "the question must have rows"
    assert ids(answers) == (expected if order == "asc" else expected[::-1])
    assert all(len(a["data"]) <= limit and a["pagination"]["has_more"] for a in answers[:-1])
    assert [a["pagination"]["offset"] for a in answers] == list(
        itertools.accumulate((len(a["data"]) for a in answers[:-1]), initial=0)
    )


def test_a_row_says_what_the_feed_said_in_contract_order(client: httpx.Client, rows: list[Row]) -> None:
    answers = pages(client, "/v1/trades", {"limit": 10_000, "order": "asc"})
    names = [c.name for c in TRADES.columns if c.origin != "lineage"]
    for stored, shown in zip(oracle.newest(rows), answers[0]["data"], strict=True):
        assert list(shown) == names
        assert shown == {
            **{n: stored[n] for n in names},
            "timestamp": stored["timestamp"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "ingestion_timestamp": stored["ingestion_timestamp"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "exchange_date": stored["exchange_date"].isoformat(),
            "price": f"{stored['price']:.8f}",
            "quantity": f"{stored['quantity']:.8f}",
        }


def test_decimals_as_numbers_keep_every_digit(client: httpx.Client, rows: list[Row]) -> None:
    response = client.get("/v1/trades", params={"decimals": "number", "limit": 10_000, "order": "asc"})
    shown = [row["price"] for row in json.loads(response.text, parse_float=Decimal)["data"]]
    assert shown == [row["price"] for row in oracle.newest(rows)]


def test_the_total_is_null_unless_asked_for(client: httpx.Client, rows: list[Row]) -> None:
    assert client.get("/v1/trades", params={"symbol": "DUAL"}).json()["pagination"]["total"] is None
    counted = client.get("/v1/trades", params={"symbol": "DUAL", "count": "true", "limit": 1}).json()["pagination"]
    assert counted["total"] == len(oracle.asked(rows, symbol="DUAL"))


def test_an_unknown_symbol_is_an_empty_list(client: httpx.Client) -> None:
    response = client.get("/v1/trades", params={"symbol": "NOSUCH"})
    assert response.status_code == 200
    assert response.json()["data"] == []
    assert response.json()["pagination"] == {
        "limit": 100,
        "offset": 0,
        "total": None,
        "has_more": False,
        "next_cursor": None,
    }


def test_a_page_holds_a_hundred_rows_unless_asked_otherwise(client: httpx.Client) -> None:
    assert len(client.get("/v1/trades").json()["data"]) == 100


def test_the_end_of_a_range_is_exclusive_and_finer_than_a_microsecond(client: httpx.Client, rows: list[Row]) -> None:
    at = oracle.newest(rows)[50]["timestamp"]
    text = at.strftime("%Y-%m-%dT%H:%M:%S.%f")
    upto = client.get("/v1/trades", params={"end_time": text + "Z", "limit": 10_000}).json()["data"]
    including = client.get("/v1/trades", params={"end_time": text + "001Z", "limit": 10_000}).json()["data"]
    assert len(upto) == len(oracle.asked(rows, end=at))
    assert len(including) == len(oracle.asked(rows, end=at + timedelta(microseconds=1)))
    assert len(including) > len(upto)


@pytest.mark.parametrize(
    "text", ["2024-08-08T12:00", "2024-08-08 12:00:00", "2024-08-08T22:00:00+10:00", "2024-08-08T22:00:00 10:00"]
)
def test_a_time_may_be_naive_utc_or_carry_an_offset(client: httpx.Client, rows: list[Row], text: str) -> None:
    shown = client.get("/v1/trades", params={"start_time": text, "limit": 10_000}).json()["data"]
    assert len(shown) == len(oracle.asked(rows, start=datetime(2024, 8, 8, 12, tzinfo=UTC)))


def test_quotes_show_null_for_a_side_nobody_quotes(client: httpx.Client, quote_rows: list[Row]) -> None:
    answers = pages(client, "/v1/quotes", {"symbol": "BTCUSDT", "limit": 25})
    expected = oracle.asked(quote_rows, symbol="BTCUSDT")[::-1]
    assert ids(answers) == [(q["message_id"], q["revision"]) for q in expected]
    shown = [row for answer in answers for row in answer["data"]]
    assert [row["ask_price"] for row in shown] == [
        None if q["ask_price"] is None else f"{q['ask_price']:.8f}" for q in expected
    ]
    assert list(shown[0]) == [c.name for c in QUOTES.columns if c.origin != "lineage"]


def test_a_cursor_stays_on_its_snapshot_while_batches_are_committed(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    lake = lake_of(settings)
    before = [dated(trade(n, timestamp=NOON + timedelta(seconds=n // 2))) for n in range(40)]
    store(lake, TRADES, before)
    with serving(settings) as client:
        first = client.get("/v1/trades", params={"limit": 9})
        seen, cursor, number = ids([first.json()]), first.json()["pagination"]["next_cursor"], 1000
        while cursor:
            store(lake, TRADES, [dated(trade(number, timestamp=NOON)), dated({**before[3], "revision": number})])
            answer = client.get("/v1/trades", params={"limit": 9, "cursor": cursor})
            assert answer.headers["K2-Snapshot-Id"] == first.headers["K2-Snapshot-Id"]
            assert answer.headers["K2-Version"] == first.headers["K2-Version"]
            seen += ids([answer.json()])
            cursor, number = answer.json()["pagination"]["next_cursor"], number + 1
        assert seen == [(r["message_id"], 0) for r in oracle.newest(before)[::-1]]
        fresh = client.get("/v1/trades", params={"limit": 100})
    assert len(fresh.json()["data"]) == len(before) + number - 1000
    assert fresh.headers["K2-Version"] != first.headers["K2-Version"]


def test_a_cursor_outlives_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of a server that has never seen the snapshot, after it was forgotten: the copies of receipts tell it."""
    monkeypatch.setattr(retain, "SNAPSHOTS_MAX", 4)
    monkeypatch.setattr(retain, "SNAPSHOTS_KEPT", 2)
    monkeypatch.setattr(collecting, "IDLE_RECEIPTS_MAX", 1)
    settings = settings_of(tmp_path)
    lake = lake_of(settings)
    before = [dated(trade(n)) for n in range(20)]
    store(lake, TRADES, before)
    with serving(settings) as client:
        first = client.get("/v1/trades", params={"limit": 9})
    for n in range(100, 105):
        store(lake, TRADES, [dated(trade(n)), dated({**before[3], "revision": n})])
        collect(lake, TRADES)
        retain.expire(IcebergLedger(lake), lake.head(TRADES))
    assert int(first.headers["K2-Snapshot-Id"]) not in {s.snapshot_id for s in lake.snapshots(TRADES)}
    with serving(settings) as client:
        later = client.get("/v1/trades", params={"limit": 50, "cursor": first.json()["pagination"]["next_cursor"]})
    assert later.headers["K2-Version"] == first.headers["K2-Version"]
    assert ids([first.json(), later.json()]) == [(r["message_id"], 0) for r in oracle.newest(before)[::-1]]
