"""Questions in a body: many symbols in one order, filters before the limit, files to be saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import pytest

from k2_core.contracts import TRADES
from k2_tests.api import oracle
from k2_tests.api.bodies import read_body
from k2_tests.api.homes import Row

KEPT: list[tuple[dict[str, Any], Callable[[Row], bool]]] = [
    ({}, lambda row: True),
    ({"symbols": ["DUAL", "BTCUSDT"], "exchanges": ["BINANCE"]}, lambda row: row["exchange"] == "BINANCE"),
    ({"symbols": ["DUAL"], "exchanges": ["ASX", "BINANCE"]}, lambda row: row["symbol"] == "DUAL"),
    ({"min_price": "5000", "max_price": "7000.5"}, lambda row: 5000 <= row["price"] <= Decimal("7000.5")),
    ({"min_quantity": 50}, lambda row: row["quantity"] >= 50),
    ({"max_quantity": 4.5, "min_price": 1}, lambda row: row["quantity"] <= Decimal("4.5") and row["price"] >= 1),
    ({"sides": ["BUY", "UNKNOWN"]}, lambda row: row["side"] in ("BUY", "UNKNOWN")),
    ({"conditions": ['q"\\']}, lambda row: 'q"\\' in row["trade_conditions"]),
    ({"view": "eligible", "symbols": ["DUAL"]}, lambda row: row["symbol"] == "DUAL" and not row["quality_flags"] & 1),
]
SOME = range(len(KEPT))


def asked(client: httpx.Client, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/trades/query", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def ids(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(row["message_id"], row["revision"]) for row in rows]


@pytest.mark.parametrize("number", SOME)
def test_filters_come_before_the_limit_in_one_order_over_all_symbols(
    client: httpx.Client, rows: list[Row], number: int
) -> None:
    body, keeps = KEPT[number]
    expected = [row for row in oracle.newest(rows)[::-1] if keeps(row)]
    assert len(expected) > 5, "the filter must leave rows"
    whole = asked(client, **body, limit=10_000, count=True)
    assert ids(whole["data"]) == ids(expected)
    assert whole["pagination"] == {
        "limit": 10_000, "offset": 0, "total": len(expected), "has_more": False, "next_cursor": None,
    }  # fmt: skip
    assert ids(asked(client, **body, limit=5)["data"]) == ids(expected[:5])
    assert ids(asked(client, **body, limit=5, order="asc")["data"]) == ids(expected[::-1][:5])


def test_offsets_slice_the_whole_answer_and_a_cursor_goes_on_from_there(client: httpx.Client, rows: list[Row]) -> None:
    expected = ids(oracle.newest(rows)[::-1])
    found, offset = [], 0
    while offset < len(expected) + 300:
        page = asked(client, limit=300, offset=offset)
        assert page["pagination"]["offset"] == offset
        assert page["pagination"]["has_more"] is (offset + 300 < len(expected))
        found += ids(page["data"])
        offset += 300
    assert found == expected
    following = asked(client, limit=10, offset=20)["pagination"]["next_cursor"]
    assert ids(asked(client, limit=10, cursor=following)["data"]) == expected[30:40]
    assert asked(client, limit=10, cursor=following)["pagination"]["offset"] == 30


def test_more_than_a_page_is_streamed_in_the_same_envelope(client: httpx.Client, rows: list[Row]) -> None:
    expected = ids(oracle.newest(rows)[::-1])
    response = client.post("/v1/trades/query", json={"limit": 50_000, "offset": 7, "count": True})
    body = response.json()
    assert ids(body["data"]) == expected[7:]
    assert body["pagination"]["total"] == len(expected)
    assert body["meta"]["correlation_id"] == response.headers["X-Correlation-ID"]
    assert list(body) == ["success", "data", "pagination", "meta"]
    assert "Content-Length" not in response.headers


@pytest.mark.parametrize(("name", "media"), [("csv", "text/csv"), ("parquet", "application/octet-stream")])
@pytest.mark.parametrize("limit", [11, 100_000])
def test_a_file_is_saved_under_a_name_and_its_rows_are_told(
    client: httpx.Client, rows: list[Row], name: str, media: str, limit: int
) -> None:
    fields = ["price", "message_id"]
    response = client.post("/v1/trades/query", json={"format": name, "limit": limit, "offset": 3, "fields": fields})
    expected = oracle.newest(rows)[::-1][3 : 3 + limit]
    found = read_body(name, response.content, response.headers)
    assert found == [{n: row[n] for n in ("message_id", "price")} for row in expected]
    assert response.headers["X-Record-Count"] == str(len(expected))
    assert response.headers["Content-Disposition"] == f'attachment; filename="trades.{name}"'
    assert response.headers["Content-Type"].startswith(media)


def test_fields_are_shown_in_contract_order_and_lineage_only_when_named(client: httpx.Client) -> None:
    names = ["kafka_offset", "price", "message_id", "price"]
    (row,) = asked(client, fields=names, limit=1)["data"]
    assert list(row) == ["message_id", "price", "kafka_offset"]
    (row,) = client.get("/v1/trades?limit=1&fields=price,message_id&fields=side").json()["data"]
    assert list(row) == ["message_id", "price", "side"]


def test_quotes_are_asked_for_the_same_way(client: httpx.Client, quote_rows: list[Row]) -> None:
    body = client.post("/v1/quotes/query", json={"symbols": ["BTCUSDT"], "limit": 1000}).json()
    assert ids(body["data"]) == ids(oracle.asked(quote_rows, symbol="BTCUSDT")[::-1])


@pytest.mark.parametrize("revisions", ["latest", "first", "all"])
def test_every_content_of_a_print_can_be_asked_for(client: httpx.Client, rows: list[Row], revisions: str) -> None:
    expected = {
        "latest": oracle.newest(rows),
        "first": [row for row in rows if row["revision"] == 0],
        "all": rows,
    }[revisions]
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = asked(client, revisions=revisions, limit=400, order="asc", **cursor)
        found += page["data"]
        if page["pagination"]["next_cursor"] is None:
            break
        cursor = {"cursor": page["pagination"]["next_cursor"]}
    order = sorted(expected, key=lambda row: (*oracle.total_order(row), row["revision"]))
    assert ids(found) == ids(order)


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"symbols": ["A"] * 101}, "symbols"),
        ({"limit": 0}, "limit"),
        ({"limit": 100_001}, "limit"),
        ({"offset": -1}, "offset"),
        ({"offset": 2**63}, "offset"),
        ({"format": "xml"}, "format"),
        ({"fields": ["price; DROP TABLE trades"]}, "fields"),
        ({"fields": ["*"]}, "fields"),
        ({"sides": ["buy"]}, "0"),
        ({"min_price": "NaN"}, "min_price"),
        ({"min_price": 1e-9}, "min_price"),
        ({"max_price": "1e400"}, "max_price"),
        ({"max_price": -1}, "max_price"),
        ({"min_quantity": "0x10"}, "min_quantity"),
        ({"start_time": "2024-01-02", "end_time": "2024-01-01"}, "body"),
        ({"snapshot_id": 1, "as_of": "2024-01-01"}, "body"),
        ({"version": "zz"}, "version"),
        ({"symbols": [None]}, "0"),
        ({"symbols": ["\ud800"]}, "0"),
    ],
)
def test_a_wrong_body_is_told_where(client: httpx.Client, body: dict[str, Any], parameter: str) -> None:
    response = client.post("/v1/trades/query", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
    assert parameter in [e["parameter"] for e in response.json()["errors"]]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"{" * 5000, b"[" * 100_000])
def test_what_is_no_question_is_refused(client: httpx.Client, content: bytes) -> None:
    for path in ("/v1/trades/query", "/v1/quotes/query", "/v1/replay"):
        response = client.post(path, content=content, headers={"Content-Type": "application/json"})
        assert response.status_code in (400, 422), response.text


@pytest.mark.parametrize("query", ["source=lake%2Btail&cursor=x", "source=lake%2Btail&as_of=2024-01-01", "source=sea"])
def test_what_is_of_this_moment_has_no_past(client: httpx.Client, query: str) -> None:
    assert client.get(f"/v1/trades?{query}").status_code == 422


def test_the_tail_is_read_where_it_is_asked_for(client: httpx.Client, rows: list[Row]) -> None:
    response = client.get("/v1/trades?source=lake+tail&limit=5&count=true")
    assert ids(response.json()["data"]) == ids(oracle.newest(rows)[::-1][:5])
    assert response.json()["pagination"]["next_cursor"] is None
    assert response.headers["K2-Source"] == "lake", "no log is reachable here"
    assert response.headers["Cache-Control"] == "no-store" and "ETag" not in response.headers


def test_every_column_may_be_named(client: httpx.Client) -> None:
    for column in TRADES.columns:
        (row,) = client.get("/v1/trades", params={"limit": 1, "fields": column.name}).json()["data"]
        assert list(row) == [column.name]
