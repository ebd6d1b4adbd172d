"""What holds on every route: keys, problems, headers, hostile requests."""

from __future__ import annotations

import itertools
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from k2_api.models import Quote, QuotesAnswer, Trade, TradesAnswer
from k2_api.security import ensure_secret
from k2_core.contracts import QUOTES, TRADES
from k2_core.errors import Misconfigured
from k2_resources.settings import Settings
from k2_tests.api import oracle
from k2_tests.api.homes import Row, lake_of, serving, settings_of, store

DATA = [
    "/v1/trades",
    "/v1/quotes",
    "/v1/ohlcv/1m?symbol=DUAL",
    "/v1/ohlcv/1d?symbol=DUAL",
    "/v1/symbols",
    "/v1/snapshots",
]
HOSTILE = [
    "' OR 1=1 --",
    "'; DROP TABLE trades; --",
    "BTCUSDT' UNION SELECT * FROM read_text('/etc/passwd') --",
    "%' OR symbol LIKE '%",
    "$symbol",
    "a\0b",
    "\u202e\U0001f4a9é\ufffe",
    "../../etc/passwd",
    "x" * 5000,
    "9" * 400,
    "-1",
    "NaN",
    "1e400",
    "null",
    "[]",
    "{}",
    "%s%n${jndi:ldap://x}",
    "\r\nX-Injected: 1",
    " ",
    "",
]
FILTERS = [("/v1/trades", "symbol"), ("/v1/trades", "exchange"), ("/v1/quotes", "symbol"), ("/v1/symbols", "exchange")]
RANGE = ["symbol", "exchange", "start_time", "end_time", "limit", "order", "decimals", "count", "cursor"]
PARAMETERS = {
    "/v1/trades": [*RANGE, "view", "unknown"],
    "/v1/quotes": RANGE,
    "/v1/ohlcv/5m": [*RANGE, "view"],
    "/v1/symbols": ["exchange"],
    "/v1/snapshots": ["table", "limit"],
}


@pytest.mark.parametrize("path", DATA)
def test_without_a_key_nothing_is_said(client: httpx.Client, path: str) -> None:
    response = httpx.get(client.base_url.join(path), trust_env=False)
    assert (response.status_code, response.json()["code"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("key", ["wrong", "é", "x" * 10_000])
@pytest.mark.parametrize("path", DATA)
def test_a_wrong_key_is_forbidden_even_with_wrong_parameters(client: httpx.Client, path: str, key: str) -> None:
    url = client.base_url.join(path).copy_merge_params({"limit": "no number"})
    response = httpx.get(url, headers=[(b"X-API-Key", key.encode())], trust_env=False)
    assert (response.status_code, response.json()["code"]) == (403, "FORBIDDEN")


def test_the_key_file_is_read_by_its_owner_only_and_made_once(tmp_path: Path) -> None:
    first = ensure_secret(tmp_path / "new" / "api.key")
    assert ensure_secret(tmp_path / "new" / "api.key") == first
    assert len(first) >= 32
    assert (tmp_path / "new" / "api.key").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["api.key"]


def test_an_empty_key_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "api.key").write_text("\n")
    with pytest.raises(Misconfigured, match="empty"):
        ensure_secret(tmp_path / "api.key")


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in PARAMETERS.items() for name in names])
def test_no_parameter_value_breaks_the_server(client: httpx.Client, path: str, name: str) -> None:
    for value in HOSTILE:
        symbol = {"symbol": "DUAL"} if path.startswith("/v1/ohlcv") and name != "symbol" else {}
        response = client.get(path, params={**symbol, name: value})
        assert response.status_code in (200, 400, 404, 422), (value, response.text)
        assert "x-injected" not in response.headers
        if response.status_code != 200:
            check_problem(response)
        elif (path, name) in FILTERS:
            assert response.json()["data"] == [], value


@pytest.mark.parametrize(
    "query",
    [
        "limit=1&limit=2",
        "symbol=a&symbol=b",
        "%ff%fe=%ff",
        "symbol=%ff%00",
        "symbol=%",
        "a[b]=1",
        "&&&==",
        "limit=%31%30",
        "start_time=",
    ],
)
def test_no_query_string_breaks_the_server(client: httpx.Client, query: str) -> None:
    assert client.get(f"/v1/trades?{query}").status_code in (200, 422)


@pytest.mark.parametrize("timeframe", ["2m", "1M", "1m'--", "%00", "..%2f1m"])
def test_an_unknown_timeframe_is_invalid(client: httpx.Client, timeframe: str) -> None:
    assert client.get(f"/v1/ohlcv/{timeframe}?symbol=DUAL").status_code in (404, 422)


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/trades?limit=0", "limit"),
        ("/v1/trades?limit=10001", "limit"),
        ("/v1/quotes?limit=99999999999999999999999999", "limit"),
        ("/v1/trades?limit=ten", "limit"),
        ("/v1/trades?start_time=yesterday", "start_time"),
        ("/v1/trades?start_time=1710000000", "start_time"),
        ("/v1/trades?start_time=0001-01-01T00:00:00%2B14:00", "start_time"),
        ("/v1/trades?end_time=9999-12-31T23:59:59.9999999Z", "end_time"),
        ("/v1/trades?end_time=2024-02-30", "end_time"),
        ("/v1/trades?order=sideways", "order"),
        ("/v1/trades?view=dirty", "view"),
        ("/v1/ohlcv/1m", "symbol"),
        ("/v1/ohlcv/1m?symbol=%20", "symbol"),
        ("/v1/ohlcv/7m?symbol=DUAL", "timeframe"),
        ("/v1/snapshots?limit=101", "limit"),
    ],
)
def test_a_wrong_parameter_is_named(client: httpx.Client, path: str, parameter: str) -> None:
    response = client.get(path)
    assert response.status_code == 422
    assert [e["parameter"] for e in check_problem(response)["errors"]] == [parameter]
    assert response.json()["code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize("end", ["2024-08-08T12:00:00Z", "2024-08-08T11:59:59.999999Z"])
def test_a_range_must_end_after_it_starts(client: httpx.Client, end: str) -> None:
    response = client.get("/v1/trades", params={"start_time": "2024-08-08T12:00:00Z", "end_time": end})
    assert (response.status_code, response.json()["code"]) == (422, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "NOT_FOUND"),
        ("POST", "/v1/trades", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/snapshots?table=nothing", 400, "INVALID_TABLE"),
        ("GET", "/v1/trades?cursor=nothing", 400, "INVALID_CURSOR"),
    ],
)
def test_every_failure_is_a_problem_with_its_word(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path)
    assert (response.status_code, check_problem(response)["code"]) == (status, code)


def check_problem(response: httpx.Response) -> dict[str, Any]:
    """A problem document, and what old clients read."""
    body: dict[str, Any] = response.json()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert set(body) == {
        "type",
        "title",
        "status",
        "detail",
        "instance",
        "code",
        "request_id",
        "errors",
        "success",
        "error",
    }
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["X-Correlation-ID"]
    assert body["error"] == {"code": body["code"], "message": body["detail"]}
    assert body["success"] is False
    assert not re.search(r"Traceback|duckdb|parquet|sqlite|\.py\b", response.text)
    return body


def test_every_single_change_to_a_cursor_is_noticed(client: httpx.Client) -> None:
    cursor = client.get("/v1/trades", params={"limit": 1}).json()["pagination"]["next_cursor"]
    assert client.get("/v1/trades", params={"cursor": cursor}).status_code == 200
    spoilt = [cursor[:i] + ("A" if c != "A" else "B") + cursor[i + 1 :] for i, c in enumerate(cursor)]
    for text in [*spoilt, cursor[:-1], cursor + "A", cursor + "=", cursor[::-1], "", "é"]:
        response = client.get("/v1/trades", params={"cursor": text})
        assert (response.status_code, response.json()["code"]) == (400, "INVALID_CURSOR"), text


@pytest.mark.parametrize(
    "other",
    [
        "/v1/trades?symbol=DUAL",
        "/v1/trades?order=asc",
        "/v1/trades?view=eligible",
        "/v1/trades?end_time=2030-01-01",
        "/v1/quotes?",
    ],
)
def test_a_cursor_continues_only_its_own_question(client: httpx.Client, other: str) -> None:
    cursor = client.get("/v1/trades", params={"limit": 1}).json()["pagination"]["next_cursor"]
    response = client.get(f"{other}&cursor={cursor}")
    assert (response.status_code, response.json()["code"]) == (400, "INVALID_CURSOR")


def test_a_cursor_survives_a_restart_and_another_page_size(filled: Settings, client: httpx.Client) -> None:
    cursor = client.get("/v1/trades", params={"limit": 5}).json()["pagination"]["next_cursor"]
    with serving(filled) as restarted:
        answer = restarted.get("/v1/trades", params={"cursor": cursor, "limit": 7}).json()
    assert answer["data"] == client.get("/v1/trades", params={"limit": 12}).json()["data"][5:]


@pytest.mark.parametrize("path", DATA)
def test_every_data_answer_names_its_state(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    body = response.json()
    assert response.status_code == 200
    assert re.fullmatch(r"\d+(,\d+)?", response.headers["K2-Snapshot-Id"])
    assert re.fullmatch(r"[0-9a-f]{32,64}", response.headers["K2-Version"])
    assert response.headers["K2-Row-Count"] == str(len(body["data"]))
    assert response.headers["Cache-Control"] == "no-cache"
    assert body["success"] is True
    assert body["meta"]["correlation_id"] == response.headers["X-Correlation-ID"]
    assert body["meta"]["timestamp"].endswith("Z")


@pytest.mark.parametrize("path", DATA[:-1])
def test_an_answer_the_client_holds_is_not_sent_again(client: httpx.Client, path: str) -> None:
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": f'"other", {first.headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_two_questions_never_share_a_tag(client: httpx.Client) -> None:
    questions = [
        *DATA,
        "/v1/trades?limit=5",
        "/v1/trades?decimals=number",
        "/v1/trades?count=true",
        "/v1/symbols?exchange=ASX",
    ]
    tags = [client.get(question).headers["ETag"] for question in questions]
    assert len(set(tags)) == len(tags)


def test_a_sane_correlation_id_is_echoed_and_another_is_replaced(client: httpx.Client) -> None:
    sane = client.get("/v1/symbols", headers={"X-Correlation-ID": "desk-7:42"})
    assert sane.headers["X-Correlation-ID"] == sane.json()["meta"]["correlation_id"] == "desk-7:42"
    for hostile in ("x" * 129, "<script>", "a b", "é"):
        answered = client.get("/v1/symbols", headers=[(b"X-Correlation-ID", hostile.encode())]).headers[
            "X-Correlation-ID"
        ]
        assert re.fullmatch(r"[0-9a-f]{8}", answered)


def test_symbols_are_those_of_trades_and_quotes_sorted(client: httpx.Client, rows: list[Row]) -> None:
    assert client.get("/v1/symbols").json()["data"] == ["BTCUSDT", "DUAL", "ONLYQUOTED"]
    assert client.get("/v1/symbols", params={"exchange": "ASX"}).json()["data"] == ["DUAL"]


def test_snapshots_are_the_commits_newest_first(filled: Settings, client: httpx.Client) -> None:
    body = client.get("/v1/snapshots", params={"limit": 3}).json()
    expected = lake_of(filled).snapshots(TRADES, 3)
    assert [s["snapshot_id"] for s in body["data"]] == [s.snapshot_id for s in expected]
    assert [s["snapshot_id_string"] for s in body["data"]] == [str(s.snapshot_id) for s in expected]
    assert [datetime.fromisoformat(s["timestamp"]) for s in body["data"]] == [s.timestamp for s in expected]
    assert body["table_name"] == "trades"
    assert {"snapshot_id", "timestamp", "manifest_list", "summary"} <= set(body["data"][0])
    assert client.get("/v1/snapshots", params={"table": "quotes"}).json()["table_name"] == "quotes"


def test_what_needs_no_key_answers_without_one(client: httpx.Client) -> None:
    for path in ("/", "/health", "/metrics", "/docs", "/redoc", "/openapi.json"):
        assert httpx.get(client.base_url.join(path), trust_env=False).status_code == 200
    about = client.get("/").json()
    assert {"name", "version", "docs", "redoc", "health", "api"} == set(about)


def test_health_names_each_dependency(client: httpx.Client) -> None:
    body = client.get("/health").json()
    assert body["status"] == "healthy"
    assert {d["name"]: d["status"] for d in body["dependencies"]} == {"catalog": "healthy", "query_engine": "healthy"}
    assert all(d["latency_ms"] >= 0 for d in body["dependencies"])


def test_health_is_degraded_when_a_part_of_the_stack_does_not_answer(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    settings.endpoints_file.parent.mkdir(parents=True)
    with serving(settings) as client:
        own = f"{client.base_url.host}:{client.base_url.port}"
        settings.endpoints_file.write_text(
            f'{{"kafka": "127.0.0.1:1", "registry": "http://{own}", "pid": 7, "api": "x:1"}}'
        )
        body = client.get("/health").json()
    assert body["status"] == "degraded"
    assert {d["name"]: d["status"] for d in body["dependencies"]} == {
        "catalog": "healthy",
        "query_engine": "healthy",
        "kafka": "degraded",
        "registry": "healthy",
    }


def test_metrics_tell_the_state_of_the_tables_and_the_requests(client: httpx.Client, rows: list[Row]) -> None:
    client.get("/v1/ohlcv/1m?symbol=NOSUCH")
    client.get("/no/such/path")
    text = client.get("/metrics").text
    assert f'k2_table_rows{{table="market_data.trades"}} {float(len(rows))}' in text
    assert 'k2_table_snapshots{table="market_data.trades"} 5.0' in text
    assert (
        f'k2_table_next_offset{{kafka_partition="0",table="market_data.trades",topic="market.test"}} {float(len(rows))}'
        in text
    )
    assert 'k2_http_requests_total{endpoint="/v1/ohlcv/{timeframe}",method="GET",status_code="404"}' in text
    assert 'k2_http_request_duration_seconds_bucket{endpoint="/v1/ohlcv/{timeframe}",le="0.005",method="GET"}' in text
    assert "k2_platform_info{version=" in text
    assert "no/such/path" not in text and "NOSUCH" not in text


def test_an_empty_lake_has_empty_answers(tmp_path: Path) -> None:
    with serving(settings_of(tmp_path / "not yet there")) as client:
        for path in ("/v1/trades", "/v1/quotes?count=true", "/v1/symbols", "/v1/snapshots"):
            response = client.get(path)
            assert (response.status_code, response.json()["data"]) == (200, []), path
        assert client.get("/v1/ohlcv/1d?symbol=BHP").status_code == 404
        assert client.get("/health").json()["status"] == "healthy"
        assert client.get("/metrics").status_code == 200


def test_a_missing_data_file_is_a_problem_that_names_nothing(tmp_path: Path, rows: list[Row]) -> None:
    settings = settings_of(tmp_path)
    lake = lake_of(settings)
    store(lake, TRADES, rows[:10])
    for file in tmp_path.rglob("market_data/trades/data/**/*.parquet"):
        file.unlink()
    with serving(settings) as client:
        response = client.get("/v1/trades")
    assert (response.status_code, check_problem(response)["code"]) == (503, "DAMAGED")


@pytest.mark.parametrize(("model", "table"), [(Trade, TRADES), (Quote, QUOTES)])
def test_the_described_row_agrees_with_the_contract(client: httpx.Client, model: Any, table: Any) -> None:
    described = client.get("/openapi.json").json()["components"]["schemas"][model.__name__]
    expected = [c for c in table.columns if c.origin != "lineage"]
    assert list(described["properties"]) == [c.name for c in expected]
    assert described["required"] == [c.name for c in expected if not c.nullable]


def test_real_answers_fit_the_described_models(client: httpx.Client) -> None:
    TradesAnswer.model_validate_json(client.get("/v1/trades?limit=1000").content, strict=True)
    QuotesAnswer.model_validate_json(client.get("/v1/quotes").content, strict=True)


def test_the_description_covers_the_routes_and_their_problems(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert {
        "/", "/health", "/v1/trades", "/v1/quotes", "/v1/ohlcv/{timeframe}", "/v1/symbols", "/v1/snapshots",
        "/v1/trades/query", "/v1/quotes/query", "/v1/replay",
    } <= set(document["paths"])  # fmt: skip
    operations = [(p, o) for p, of_path in document["paths"].items() for o in of_path.values()]
    for path, operation in ((p, o) for p, o in operations if p.startswith("/v1")):
        assert operation["security"] == [{"APIKeyHeader": []}, {"HTTPBearer": []}], path
        assert list(operation["responses"]["403"]["content"]) == ["application/problem+json"]
    for reference in set(re.findall(r'"#/components/schemas/(\w+)"', client.get("/openapi.json").text)):
        assert reference in document["components"]["schemas"]


def test_the_oracle_is_not_trivial(rows: list[Row]) -> None:
    newest = oracle.newest(rows)
    assert len(newest) < len(rows)
    ties = sum(a["timestamp"] == b["timestamp"] for a, b in itertools.pairwise(newest))
    moved = {r["message_id"] for r in rows if r["revision"]}
    assert ties > 100 and len(moved) > 100


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_documentation_pages_bring_their_scripts_along(client: httpx.Client, path: str) -> None:
    page = client.get(path).text
    scripts = re.findall(r'<script[^>]* src="([^"]+)"', page)
    assert scripts
    assert all(script.startswith("/") and client.get(script).status_code == 200 for script in scripts)
