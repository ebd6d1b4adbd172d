"""Replays: a range of one version, oldest first, batch by batch."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from k2_core.contracts import TRADES
from k2_tests.api import oracle
from k2_tests.api.homes import Row, dated, lake_of, serving, settings_of, store
from k2_tests.ticks import NOON, trade

ALL = {"start_time": "2020-01-01", "end_time": "2030-01-01"}


def batches(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    cursor = None
    while not answers or cursor:
        response = client.post("/v1/replay", json={**ALL, **body, "cursor": cursor})
        assert response.status_code == 200, response.text
        answers.append(response.json())
        cursor = answers[-1]["cursor"]
    return answers


def ids(answers: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(row["message_id"], row["revision"]) for answer in answers for row in answer["data"]]


@pytest.mark.parametrize(
    ("body", "question"),
    [
        ({}, {}),
        ({"symbol": "DUAL", "exchange": "ASX"}, {"symbol": "DUAL", "exchange": "ASX"}),
        ({"start_time": NOON.isoformat()}, {"start": NOON}),
    ],
)
def test_all_batches_are_the_range_in_chronological_order(
    client: httpx.Client, rows: list[Row], body: dict[str, Any], question: dict[str, Any]
) -> None:
    expected = oracle.asked(rows, **question)
    answers = batches(client, batch_size=170, **body)
    assert ids(answers) == [(row["message_id"], row["revision"]) for row in expected]
    told = [answer["batch_info"] for answer in answers]
    assert [info["batch_number"] for info in told] == list(range(1, len(told) + 1))
    assert {info["total_records"] for info in told} == {len(expected)}
    assert [info["batch_size"] for info in told] == [len(answer["data"]) for answer in answers]
    assert told[-1]["progress_percent"] == 100.0
    assert told[0]["progress_percent"] == round(17_000 / len(expected), 2)


def test_a_range_without_rows_is_done_at_once(client: httpx.Client) -> None:
    (answer,) = batches(client, symbol="NOSUCH")
    assert (answer["data"], answer["cursor"]) == ([], None)
    assert answer["batch_info"] == {
        "batch_number": 1, "batch_size": 0, "total_records": 0, "progress_percent": 100.0,
    }  # fmt: skip


def test_quotes_are_replayed_too(client: httpx.Client, quote_rows: list[Row]) -> None:
    answers = batches(client, data_type="quotes")
    assert ids(answers) == [(q["message_id"], q["revision"]) for q in oracle.newest(quote_rows)]


def test_a_replay_stays_on_its_version_while_batches_are_committed(tmp_path: Path) -> None:
    config = settings_of(tmp_path)
    lake = lake_of(config)
    before = [dated(trade(n, timestamp=NOON + timedelta(seconds=n // 2))) for n in range(350)]
    store(lake, TRADES, before)
    with serving(config) as client:
        first = client.post("/v1/replay", json={**ALL, "batch_size": 100}).json()
        found, cursor, number = [first], first["cursor"], 1000
        while cursor:
            store(lake, TRADES, [dated(trade(number, timestamp=NOON)), dated({**before[300], "revision": number})])
            found.append(client.post("/v1/replay", json={**ALL, "batch_size": 100, "cursor": cursor}).json())
            cursor, number = found[-1]["cursor"], number + 1
        assert ids(found) == [(row["message_id"], 0) for row in before]
        assert {answer["batch_info"]["total_records"] for answer in found} == {350}
        snapshot = lake.snapshots(TRADES)[-1].snapshot_id
        assert ids(batches(client, snapshot_id=snapshot)) == ids(found)
        assert len(ids(batches(client))) == 350 + number - 1000


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 101}, {"symbol": "DUAL"}, {"data_type": "quotes"}, {"end_time": "2029-01-01"}, {"exchange": "ASX"}],
)
def test_a_cursor_continues_only_its_own_replay(client: httpx.Client, change: dict[str, Any]) -> None:
    cursor = client.post("/v1/replay", json={**ALL, "batch_size": 100}).json()["cursor"]
    response = client.post("/v1/replay", json={**ALL, "batch_size": 100, "cursor": cursor, **change})
    assert (response.status_code, response.json()["code"]) == (400, "INVALID_CURSOR")


def test_a_cursor_of_pages_is_none_of_replays(client: httpx.Client) -> None:
    paged = client.get("/v1/trades", params={**ALL, "limit": 100, "order": "asc"}).json()["pagination"]["next_cursor"]
    for cursor in (paged, "eyJvIjogMTAwLCAidCI6IDUwMCwgImIiOiAyfQ==", "", "é", "A" * 5000):
        response = client.post("/v1/replay", json={**ALL, "batch_size": 100, "cursor": cursor})
        assert (response.status_code, response.json()["code"]) == (400, "INVALID_CURSOR"), cursor


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"batch_size": 99}, "batch_size"),
        ({"batch_size": 10_001}, "batch_size"),
        ({"start_time": None}, "start_time"),
        ({"end_time": "yesterday"}, "end_time"),
        ({"end_time": "2019-01-01"}, "body"),
        ({"data_type": "bars"}, "data_type"),
        ({"snapshot_id": "x"}, "snapshot_id"),
    ],
)
def test_a_wrong_replay_is_told_where(client: httpx.Client, body: dict[str, Any], parameter: str) -> None:
    response = client.post("/v1/replay", json={**ALL, **body})
    assert response.status_code == 422
    assert [e["parameter"] for e in response.json()["errors"]] == [parameter]


def test_an_unknown_snapshot_is_not_found(client: httpx.Client) -> None:
    response = client.post("/v1/replay", json={**ALL, "snapshot_id": 7})
    assert (response.status_code, response.json()["code"]) == (404, "SNAPSHOT_NOT_FOUND")
