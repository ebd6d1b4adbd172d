"""Gaps, days, receipts and dead letters over HTTP, beside the rows of their tables."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from k2_api.dataset_models import ConditionAnswer
from k2_api.keys import create_key
from k2_api.ledger_models import DayAnswer, DaysAnswer, GapAnswer, GapsAnswer, LettersAnswer, ReceiptsAnswer
from k2_core.contracts import DAYS, DEAD_LETTERS, RECEIPTS, TRADES, Table
from k2_resources.lake.catalog import Lake
from k2_tests.api.homes import serving, settings_of
from k2_tests.api.ledger_homes import close, ledger_home, plain
from k2_tests.api.test_protocol import HOSTILE, check_problem
from k2_tests.lakes import DAY, FEED, TOPIC, Batch, collect, full_lake, put

LISTS = ("/v1/gaps", "/v1/days", "/v1/receipts", "/v1/dead-letters")
PARAMETERS = {
    "/v1/gaps": ["feed", "exchange", "symbol", "state", "severity", "is_settled", "start_date", "limit", "cursor"],
    "/v1/days": ["feed", "exchange", "symbol", "verdict", "versions", "end_date", "limit", "cursor"],
    "/v1/receipts": ["table", "kind", "version", "snapshot_id", "exchange_date", "start_time", "limit", "cursor"],
    "/v1/dead-letters": ["table", "topic", "reason", "status", "with_bytes", "end_time", "limit", "cursor"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledgers [x] 100%")


@pytest.fixture(scope="module")
def lake(home: Path) -> Lake:
    return ledger_home(home)


@pytest.fixture(scope="module")
def client(home: Path, lake: Lake) -> Iterator[httpx.Client]:
    with serving(settings_of(home)) as client:
        yield client


def rows_of(lake: Lake, table: Table) -> list[dict[str, Any]]:
    """What pyiceberg finds in a table."""
    found: list[dict[str, Any]] = lake.load(table).scan().to_arrow().to_pylist()
    return found


def data(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    response = client.get(path, params=params)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


def test_every_hole_is_listed_with_its_last_word(client: httpx.Client) -> None:
    found = data(client, "/v1/gaps")
    assert [(g["first_id"], g["state"], g["is_settled"], g["actor"]) for g in found] == [
        (8, "open", False, "judge"),
        (7, "accepted", True, "desk"),
        (3, "open", False, "judge"),
    ]
    assert [g["first_id"] for g in data(client, "/v1/gaps", is_settled="false")] == [8, 3]
    assert [g["first_id"] for g in data(client, "/v1/gaps", state="filled")] == [4]
    assert data(client, "/v1/gaps", symbol="ETHUSDT") == data(client, "/v1/gaps", start_date="2024-08-09") == []
    assert (
        len(data(client, "/v1/gaps", feed=FEED.name, exchange="BINANCE", severity="warn", end_date="2024-08-09")) == 3
    )
    GapsAnswer.model_validate_json(client.get("/v1/gaps").content, strict=True)


def test_a_gap_tells_its_life_and_an_unknown_one_is_not_found(client: httpx.Client) -> None:
    gap_id = f"{FEED.name}:BTCUSDT:0:7-7"
    response = client.get(f"/v1/gaps/{gap_id}")
    found = response.json()["data"]
    assert (found["gap_id"], found["state"], found["is_settled"], found["size"]) == (gap_id, "accepted", True, 1)
    assert [(e["state"], e["actor"], e["evidence"]) for e in found["events"]] == [
        ("open", "judge", None),
        ("accepted", "desk", '{"why":"late"}'),
    ]
    GapAnswer.model_validate_json(response.content, strict=True)
    assert client.get(f"/v1/gaps/{FEED.name}:BTCUSDT:0:4-4").json()["data"]["state"] == "filled"
    for unknown in (f"{FEED.name}:BTCUSDT:0:100-101", "nonsense", "a/b", "%00", "x" * 600):
        response = client.get(f"/v1/gaps/{unknown}")
        assert response.status_code in (404, 422), unknown
        check_problem(response)


def test_the_last_version_of_each_day_is_listed_and_all_on_demand(client: httpx.Client, lake: Lake) -> None:
    stored = sorted(rows_of(lake, DAYS), key=lambda r: (r["exchange_date"], r["feed"], r["symbol"], r["version"]))
    assert [(r["feed"], r["symbol"], r["version"]) for r in stored] == [
        ("binance-quotes", "*", 1),
        (FEED.name, "BTCUSDT", 1),
        (FEED.name, "BTCUSDT", 2),
    ]
    named = DaysAnswer.model_json_schema()["$defs"]["Closing"]["properties"]
    shown = [{name: row[name] for name in named} for row in reversed(stored)]
    assert data(client, "/v1/days", versions="all") == plain(shown)
    assert data(client, "/v1/days") == plain([shown[0], shown[2]])
    assert data(client, "/v1/days", verdict="not_collected") == plain([shown[2]])
    assert data(client, "/v1/days", exchange="BINANCE", symbol="BTCUSDT", start_date=str(DAY)) == plain([shown[0]])
    DaysAnswer.model_validate_json(client.get("/v1/days").content, strict=True)


def test_a_version_is_chosen_before_the_verdict_is_asked_for(client: httpx.Client, lake: Lake) -> None:
    first, last = sorted((r for r in rows_of(lake, DAYS) if r["feed"] == FEED.name), key=lambda r: r["version"])
    assert first["missing"] != last["missing"]
    assert [d["version"] for d in data(client, "/v1/days", verdict=last["verdict"], feed=FEED.name)] == [2]


def test_a_day_shows_its_certificate_and_every_version(client: httpx.Client, lake: Lake) -> None:
    path = f"/v1/days/binance/BTCUSDT/{DAY}"
    response = client.get(path)
    assert [day["feed"] for day in response.json()["data"]] == ["binance-quotes", FEED.name]
    found = response.json()["data"][1]
    stored = {r["version"]: r for r in rows_of(lake, DAYS) if r["feed"] == FEED.name}
    assert found["certificate"] == plain(stored[2])
    assert [v["version"] for v in found["versions"]] == [1, 2]
    assert data(client, path, version=1, feed=FEED.name)[0]["certificate"] == plain(stored[1])
    DayAnswer.model_validate_json(response.content, strict=True)
    assert client.get(path, params={"version": 3}).status_code == 404
    assert client.get(f"/v1/days/BINANCE/ETHUSDT/{DAY + timedelta(days=1)}").status_code == 404
    assert client.get("/v1/days/BINANCE/BTCUSDT/1723075200").status_code == 422


def test_a_feed_without_any_row_says_so_of_every_symbol_but_one_with_rows_does_not(client: httpx.Client) -> None:
    (told,) = data(client, f"/v1/days/BINANCE/ETHUSDT/{DAY}")
    assert (told["feed"], told["verdict"], told["certificate"]["symbol"]) == ("binance-quotes", "not_collected", "*")


def test_receipts_are_those_of_the_table_newest_first(client: httpx.Client, lake: Lake) -> None:
    stored = sorted(
        rows_of(lake, RECEIPTS),
        key=lambda r: (r["commit_time"], r["table_name"], r["table_uuid"], r["sequence_number"]),
        reverse=True,
    )
    response = client.get("/v1/receipts")
    shown = [{**row, "snapshot_id_string": str(row["snapshot_id"])} for row in stored]
    assert response.json()["data"] == plain(shown)
    ReceiptsAnswer.model_validate_json(response.content, strict=True)
    assert len(data(client, "/v1/receipts", table="trades")) == sum(r["table_name"] == TRADES.name for r in stored)
    assert [r["kind"] for r in data(client, "/v1/receipts", kind="register")] == ["register"]
    one = next(r for r in stored if r["table_name"] == TRADES.name)
    assert [r["version"] for r in data(client, "/v1/receipts", snapshot_id=one["snapshot_id"])] == [one["version"]]
    named = [r for r in stored if any(d["exchange_date"] == DAY for d in r["dates"])]
    assert len(data(client, "/v1/receipts", exchange_date=str(DAY))) == len(named) > 0
    ended = plain(one)["commit_time"]
    assert len(data(client, "/v1/receipts", end_time=ended)) == sum(
        r["commit_time"] < one["commit_time"] for r in stored
    )


def test_letters_stand_as_their_replays_ended(client: httpx.Client, lake: Lake) -> None:
    found = data(client, "/v1/dead-letters")
    stands = {letter["kafka_offset"]: (letter["status"], letter["delivered"]) for letter in found}
    assert stands == {
        3: ("resolved", [f"{TOPIC}[0]@0:5"]),
        4: ("open", []),
        7: ("dead again", [f"{TOPIC}[0]@0:10"]),
        8: ("pending", [f"{TOPIC}[0]@0:99"]),
        10: ("open", []),
    }
    assert len(stands) == len(rows_of(lake, DEAD_LETTERS))
    for status, count in (("open", 2), ("resolved", 1), ("dead again", 1), ("pending", 1)):
        assert len(data(client, "/v1/dead-letters", status=status)) == count
    LettersAnswer.model_validate_json(client.get("/v1/dead-letters").content, strict=True)


def test_the_bytes_of_letters_come_when_asked_for(client: httpx.Client, lake: Lake) -> None:
    assert {(letter["value"], letter["key"]) for letter in data(client, "/v1/dead-letters")} == {(None, None)}
    asked = {"with_bytes": "true", "table": "trades", "topic": TOPIC, "reason": "bad_magic"}
    found = data(client, "/v1/dead-letters", **asked)
    sent = {letter["kafka_offset"]: base64.b64decode(letter["value"]) for letter in found}
    assert sent == {row["kafka_offset"]: row["value"] for row in rows_of(lake, DEAD_LETTERS)}
    assert {letter["kafka_offset"]: letter["value_bytes"] for letter in found} == {n: len(v) for n, v in sent.items()}
    assert data(client, "/v1/dead-letters", topic="other") == data(client, "/v1/dead-letters", reason="empty") == []
    assert data(client, "/v1/dead-letters", end_time="2024-08-08") == []
    assert len(data(client, "/v1/dead-letters", start_time="2024-08-08", end_time="2024-08-09")) == 5


def test_only_a_key_of_an_admin_reads_letters(client: httpx.Client, home: Path) -> None:
    _, secret = create_key(settings_of(home).api_keys_file, "reader", ("read",))
    deadline = time.monotonic() + 20
    while (found := client.get("/v1/gaps", headers={"X-API-Key": secret})).status_code != 200:
        assert time.monotonic() < deadline, found.text
        time.sleep(0.2)
    refused = client.get("/v1/dead-letters", headers={"X-API-Key": secret})
    assert (refused.status_code, check_problem(refused)["code"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize("path", LISTS)
def test_pages_of_one_entry_are_the_whole_list(client: httpx.Client, path: str) -> None:
    whole = data(client, path)
    assert len(whole) > 1
    cursor, walked = None, []
    for offset in range(len(whole)):
        body = client.get(path, params={"limit": 1, **({"cursor": cursor} if cursor else {})}).json()
        walked += body["data"]
        assert body["pagination"]["offset"] == offset
        cursor = body["pagination"]["next_cursor"]
        assert body["pagination"]["has_more"] is (cursor is not None)
    assert (walked, cursor) == (whole, None)


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_of_another_question_is_refused(client: httpx.Client, path: str) -> None:
    cursor = client.get(path, params={"limit": 1}).json()["pagination"]["next_cursor"]
    other = next(p for p in LISTS if p != path)
    for asked in (other, f"{path}?{'topic=x' if 'letters' in path else 'table=trades' if 'rec' in path else 'feed=x'}"):
        response = client.get(httpx.URL(asked).copy_merge_params({"cursor": cursor}))
        assert (response.status_code, response.json()["code"]) == (400, "INVALID_CURSOR")


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in PARAMETERS.items() for name in names])
def test_no_parameter_value_breaks_a_ledger(client: httpx.Client, path: str, name: str) -> None:
    for value in HOSTILE[::3]:
        response = client.get(path, params={name: value})
        assert response.status_code in (200, 400, 422), (value, response.text)
        if response.status_code != 200:
            check_problem(response)
        elif name in ("feed", "exchange", "symbol", "topic") and value:
            assert response.json()["data"] == [], value


@pytest.mark.parametrize("path", [*LISTS, f"/v1/days/BINANCE/BTCUSDT/{DAY}"])
def test_a_ledger_needs_a_key_and_names_its_state(client: httpx.Client, path: str) -> None:
    assert httpx.get(client.base_url.join(path), trust_env=False).status_code == 401
    response = client.get(path)
    assert len(response.headers["K2-Version"]) in (32, 64)
    assert response.json()["success"] is True
    assert response.json()["meta"]["timestamp"].endswith("Z")


def test_an_empty_home_has_empty_ledgers(tmp_path: Path) -> None:
    with serving(settings_of(tmp_path)) as client:
        for path in LISTS:
            body = client.get(path).json()
            assert (body["data"], body["pagination"]["next_cursor"]) == ([], None), path
        assert client.get(f"/v1/gaps/{FEED.name}:BTCUSDT:0:7-7").status_code == 404
        assert client.get(f"/v1/days/BINANCE/BTCUSDT/{DAY}").status_code == 404


def test_a_new_commit_changes_the_answer_and_its_tag(tmp_path: Path) -> None:
    lake = full_lake(tmp_path)
    with serving(settings_of(tmp_path)) as client:
        first = client.get("/v1/gaps")
        held = {"If-None-Match": first.headers["ETag"]}
        assert client.get("/v1/gaps", headers=held).status_code == 304
        put(lake, Batch([20], gaps=[(10, 19)]))
        collect(lake, TRADES)
        again = client.get("/v1/gaps", headers=held)
        assert (again.status_code, again.headers["ETag"] != first.headers["ETag"]) == (200, True)
        assert json.loads(again.content)["data"][0]["first_id"] == 10


def test_answers_say_how_many_ids_are_missing_of_what_was_asked(client: httpx.Client) -> None:
    def told(path: str) -> tuple[str | None, str | None]:
        response = client.get(path)
        assert response.status_code in (200, 304), response.text
        return response.headers.get("K2-Gaps"), response.headers.get("K2-Quality")

    for path in ("/v1/trades?", "/v1/ohlcv/1m?", "/v1/bars/1m?"):
        assert told(f"{path}symbol=BTCUSDT") == ("2", "degraded")
        assert told(f"{path}symbol=BTCUSDT&end_time=2024-08-09T00:00:00Z&exchange=BINANCE") == ("2", "degraded")
    assert told("/v1/trades") == ("2", "degraded")
    for other in (
        "/v1/trades?symbol=ETHUSDT",
        "/v1/trades?exchange=ASX",
        "/v1/trades?start_time=2024-08-09T00:00:00Z",
        "/v1/trades?end_time=2024-08-08T00:00:00Z",
        "/v1/quotes?symbol=BTCUSDT",
        "/v1/bars/1m?symbol=ETHUSDT",
    ):
        assert told(other) == ("0", "available"), other


def test_rows_are_served_while_the_ledger_cannot_be_read(tmp_path: Path) -> None:
    full_lake(tmp_path)
    for file in tmp_path.rglob("audit/gaps/data/**/*.parquet"):
        file.unlink()
    with serving(settings_of(tmp_path)) as client:
        response = client.get("/v1/trades")
        assert (response.status_code, response.headers["K2-Quality"]) == (200, "unknown")
        assert "K2-Gaps" not in response.headers
        assert (client.get("/v1/gaps").status_code, client.get("/v1/gaps").json()["code"]) == (503, "DAMAGED")


def test_the_condition_of_a_date_follows_its_closings(client: httpx.Client, tmp_path: Path) -> None:
    (found,) = data(client, "/v1/datasets/binance-trades/condition")
    assert (found["date"], found["condition"], found["verdicts"]) == (str(DAY), "available", {"complete": 1})
    assert (found["rows_stored"], found["rows_missing"], found["closed"]) == (6, 0, "2024-08-09T02:00:00.000000Z")
    (nothing,) = data(client, "/v1/datasets/binance-quotes/condition")
    assert (nothing["condition"], nothing["rows_stored"], nothing["last_modified"]) == ("missing", 0, None)
    assert data(client, "/v1/datasets/binance-trades/condition", start_date="2024-08-09") == []
    assert (
        client.get("/v1/datasets/binance-trades/condition?start_date=2024-08-09&end_date=2024-08-09").status_code == 422
    )
    lake = full_lake(tmp_path)
    with serving(settings_of(tmp_path)) as other:
        response = other.get("/v1/datasets/binance-trades/condition")
        assert [(d["condition"], d["verdicts"], d["closed"]) for d in response.json()["data"]] == [
            ("pending", {}, None)
        ]
        ConditionAnswer.model_validate_json(response.content, strict=True)
        close(lake, hours=0)
        (closed,) = data(other, "/v1/datasets/binance-trades/condition")
        assert (closed["condition"], closed["verdicts"], closed["rows_missing"]) == ("degraded", {"incomplete": 1}, 1)
