"""States of a table: named by snapshot, version, instant or tag; described, compared, and the same for ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest
from click.testing import CliRunner

from k2_cli.main import main
from k2_core.compaction import Limits
from k2_core.contracts import TRADES
from k2_core.protocol import collect as collecting
from k2_resources import clock
from k2_resources.lake.catalog import Lake
from k2_resources.lake.compaction import compact
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.orphans import sweep
from k2_resources.lake.retention import forget
from k2_resources.settings import Settings
from k2_tests.api import oracle
from k2_tests.api.homes import Row, dated, lake_of, serving, settings_of, store
from k2_tests.lakes import collect
from k2_tests.ticks import NOON, trade

SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Told:
    """Three commits as the server told them, one after the other, and the rows each stored."""

    settings: Settings
    commits: list[list[Row]]
    states: list[dict[str, Any]]
    bodies: list[bytes]

    def visible(self, count: int) -> list[Row]:
        """What is to be seen after so many commits, oldest first."""
        return oracle.newest([row for rows in self.commits[:count] for row in rows])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Three commits, each asked for when it was the newest; then rewritten, forgotten but for a tag, and swept."""
    settings = settings_of(tmp_path_factory.mktemp("states"))
    lake = lake_of(settings)
    rows = [dated(trade(n, timestamp=NOON + n * SECOND)) for n in range(30)]
    moved = dated({**trade(3, timestamp=NOON + 60 * SECOND), "revision": 1})
    told = Told(settings, [rows[:10], [*rows[10:20], moved], rows[20:]], [], [])
    with serving(settings) as client:
        for commit in told.commits:
            store(lake, TRADES, commit)
            told.states.append(client.get("/v1/snapshots", params={"limit": 1}).json()["data"][0])
            told.bodies.append(rows_at(client, len(told.states), told.states[-1]["snapshot_id"]))
        upkeep(settings, lake)
    return told


@pytest.fixture(scope="module")
def client(told: Told) -> Iterator[httpx.Client]:
    """A server that has seen none of it happen."""
    with serving(told.settings) as client:
        yield client


def upkeep(settings: Settings, lake: Lake) -> None:
    """Tag the second state, rewrite everything, forget all but the head and the tag, delete what that leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collecting, "IDLE_RECEIPTS_MAX", 1)
        second = lake.snapshots(TRADES)[1].snapshot_id
        run(settings, "create", "second", "--table", "trades", "--snapshot", str(second))
        assert list(compact(lake, TRADES, Limits(1_000, 32), date(2024, 8, 20), run_id="upkeep", code_version="0"))
        collect(lake, TRADES)
        late = clock.now() + timedelta(days=1)
        assert forget(IcebergLedger(lake), lake.head(TRADES), late)
        for _ in range(2):
            sweep(lake, TRADES, now=late, grace=timedelta(0), run_id="upkeep", code_version="0")


def run(settings: Settings, *words: str) -> str:
    done = CliRunner().invoke(main, ["tags", *words, "--home", str(settings.home)])
    assert done.exit_code == 0, done.output
    return done.output


def rows_at(client: httpx.Client, number: int, snapshot_id: int) -> bytes:
    """All of an answer about one snapshot but the name of the request."""
    response = client.post(f"/v1/snapshots/{snapshot_id}/query", json={"limit": 100})
    assert response.status_code == 200, response.text
    assert response.json()["snapshot_id"] == snapshot_id, number
    return response.content.replace(response.json()["meta"]["correlation_id"].encode(), b"")


def ids(rows: list[Row]) -> list[tuple[str, int]]:
    return [(row["message_id"], row["revision"]) for row in rows]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_snapshot_answers_the_same_bytes_once_it_is_rewritten_forgotten_and_swept(told, client, number):
    snapshot_id = told.states[number]["snapshot_id"]
    body = rows_at(client, number, snapshot_id)
    assert body == told.bodies[number]
    shown = json.loads(body)
    assert ids(shown["data"]) == ids(told.visible(number + 1)[::-1])
    assert shown["snapshot_timestamp"] == told.states[number]["timestamp"]
    about = client.get(f"/v1/snapshots/{snapshot_id}").json()["data"]
    assert about["is_retained"] is (number == 1)
    assert about["tags"] == (["second"] if number == 1 else [])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_snapshot_version_and_instant_name_one_state(told, client, number):
    state = client.get(f"/v1/snapshots/{told.states[number]['snapshot_id']}").json()["data"]
    pins = [{"snapshot_id": state["snapshot_id"]}, {"version": state["version"]}, {"as_of": state["timestamp"]}]
    answers = [client.get("/v1/trades", params={"limit": 100, **pin}) for pin in pins]
    assert {answer.headers["K2-Version"] for answer in answers} == {state["version"]}
    assert {ids_text(answer) for answer in answers} == {str(ids(told.visible(number + 1)[::-1]))}
    assert all("immutable" in answer.headers["Cache-Control"] for answer in answers)
    assert state["offsets"][0]["next_offset"] == sum(map(len, told.commits[: number + 1]))


def ids_text(answer: httpx.Response) -> str:
    return str(ids(answer.json()["data"]))


def test_an_instant_before_everything_shows_nothing_and_one_to_come_is_provisional(told, client):
    before = datetime.fromisoformat(told.states[0]["timestamp"]) - SECOND
    empty = client.get("/v1/trades", params={"as_of": before.isoformat()})
    assert (empty.status_code, empty.json()["data"]) == (200, [])
    ahead = client.get("/v1/trades", params={"as_of": datetime(2100, 1, 1, tzinfo=UTC).isoformat(), "limit": 100})
    assert ids(ahead.json()["data"]) == ids(told.visible(3)[::-1])
    assert ahead.headers["Cache-Control"] == "no-cache"
    assert ahead.headers["K2-Provisional"] == "true"


def test_a_tag_names_a_state_until_it_is_deleted(told, client):
    listed = client.get("/v1/tags").json()["data"]
    assert [(tag["name"], tag["snapshot_id"]) for tag in listed] == [("second", told.states[1]["snapshot_id"])]
    answer = client.get("/v1/trades", params={"tag": "second", "limit": 100})
    assert ids(answer.json()["data"]) == ids(told.visible(2)[::-1])
    assert answer.headers["Cache-Control"] == "no-cache", "a tag may be given to another state"
    run(told.settings, "create", "now")
    assert [tag["tag"] for tag in json.loads(run(told.settings, "list", "--json"))] == ["now", "second"]
    assert client.get("/v1/trades", params={"tag": "now", "limit": 1}).status_code == 200
    run(told.settings, "delete", "now")
    assert client.get("/v1/trades", params={"tag": "now"}).json()["code"] == "SNAPSHOT_NOT_FOUND"


@pytest.mark.parametrize(
    "words",
    [
        ("create", "second"),
        ("create", "no name"),
        ("create", "main"),
        ("create", "x", "--as-of", "yesterday"),
        ("create", "x", "--table", "trades", "--snapshot", "7"),
        ("create", "x", "--as-of", "2000-01-01T00:00:00Z"),
        ("delete", "main"),
        ("delete", "nothing"),
    ],
)
def test_a_tag_that_cannot_be_is_refused_in_one_sentence(told, words):
    done = CliRunner().invoke(main, ["tags", *words, "--home", str(told.settings.home)])
    assert done.exit_code == 2
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "pin", [{"snapshot_id": 7}, {"version": "0" * 64}, {"tag": "main"}, {"tag": "' OR 1=1"}], ids=str
)
def test_a_state_that_never_was_is_not_found(client, pin):
    answer = client.get("/v1/trades", params=pin)
    assert (answer.status_code, answer.json()["code"]) == (404, "SNAPSHOT_NOT_FOUND")


@pytest.mark.parametrize("path", ["/v1/snapshots/7", "/v1/snapshots/diff?from=7"])
def test_a_snapshot_that_never_was_has_no_description(client, path):
    assert client.get(path).json()["code"] == "SNAPSHOT_NOT_FOUND"
    assert client.post("/v1/snapshots/7/query", json={}).json()["code"] == "SNAPSHOT_NOT_FOUND"


@pytest.mark.parametrize("path", ["/v1/snapshots/x", "/v1/snapshots/-1", "/v1/snapshots/99999999999999999999"])
def test_a_bad_snapshot_id_is_invalid(client, path):
    assert client.get(path).status_code == 422


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [3, 1000])
@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 2), (0, 2), (1, 1), (2, None)])
def test_a_difference_is_what_two_answers_do_not_share(told, client, first, second, limit, order):
    before, after = told.visible(first + 1), told.visible(3 if second is None else second + 1)
    expected = [("superseded", row) for row in before if row not in after]
    expected += [("added", row) for row in after if row not in before]
    expected.sort(key=lambda change: (*oracle.total_order(change[1]), change[1]["revision"]), reverse=order == "desc")
    asked = {"from": told.states[first]["snapshot_id"], "limit": limit, "order": order}
    if second is not None:
        version = client.get(f"/v1/snapshots/{told.states[second]['snapshot_id']}").json()["data"]["version"]
        asked |= {"to": version}
    found: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        answer = client.get("/v1/snapshots/diff", params={**asked, **cursor})
        assert answer.status_code == 200, answer.text
        found += answer.json()["data"]
        assert len(answer.json()["data"]) <= limit
        if not answer.json()["pagination"]["has_more"]:
            break
        cursor = {"cursor": answer.json()["pagination"]["next_cursor"]}
    assert [(c["change"], *ids([c["row"]])) for c in found] == [(c, *ids([row])) for c, row in expected]


def test_a_difference_goes_forward(told, client):
    first, last = (told.states[n]["snapshot_id"] for n in (0, 2))
    answer = client.get("/v1/snapshots/diff", params={"from": last, "to": first})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_RANGE")


def test_a_difference_of_one_symbol_is_of_it_alone(told, client):
    asked = {"from": told.states[0]["snapshot_id"], "symbol": "NOSUCH"}
    assert client.get("/v1/snapshots/diff", params=asked).json()["data"] == []
    asked["symbol"] = "BTCUSDT"
    changes = [c["change"] for c in client.get("/v1/snapshots/diff", params=asked).json()["data"]]
    assert changes.count("superseded") == 1 and changes.count("added") == 21
