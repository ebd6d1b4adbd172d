"""SQL of strangers: right answers to harmless statements, none to others, and nothing touched whatever was asked."""

from __future__ import annotations

import asyncio
import base64
import copy
import csv
import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import httpx2 as httpx
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2_api.pinning import Pinned
from k2_api.plans import Span
from k2_api.problems import Problem
from k2_api.sql_guard import tables_of
from k2_api.sql_views import GRANTED, grant
from k2_api.sql_worker import WAITING_MAX, SqlAnswer, SqlWorker
from k2_core.contracts import TRADES
from k2_core.errors import K2Error, Misconfigured
from k2_core.protocol import collect as collecting
from k2_resources.confinement import possible
from k2_resources.lake.pins import Pins
from k2_resources.settings import Settings
from k2_resources.sql_cell.wire import Job, View, handed
from k2_tests.api import oracle
from k2_tests.api.homes import Row, dated, lake_of, serving, settings_of, store
from k2_tests.api.hostile_sql import BEYOND_THE_GUARD, HARMLESS, HEAVY, HOSTILE, WRONG
from k2_tests.api.test_citations import upkeep
from k2_tests.api.test_reads import LINEAGE, append, rename
from k2_tests.lakes import collect
from k2_tests.ticks import trade

MOVED = "SELECT message_id, price, platform_sequence FROM trades ORDER BY timestamp"
GRANTED_NAMES = frozenset(GRANTED)
REFUSALS = ("SQL_REFUSED", "SQL_ERROR", "VALIDATION_ERROR")
SECONDS = 20.0
"""Patience with one statement on a busy machine; only endless ones come near it, and those have a server of their own."""
pytestmark = pytest.mark.skipif(not possible(), reason="no way to confine a process here")


@pytest.fixture(scope="module")
def answering(filled: Settings) -> Settings:
    return filled.model_copy(update={"sql": True, "sql_seconds_max": SECONDS, "sql_cells": 2})


@pytest.fixture(scope="module")
def sql(answering: Settings) -> Iterator[httpx.Client]:
    with serving(answering) as client:
        yield client


def ask(client: httpx.Client, statement: str, **more: Any) -> httpx.Response:
    return client.post("/v1/sql", json={"sql": statement, **more})


def data(client: httpx.Client, statement: str, **more: Any) -> list[dict[str, Any]]:
    response = ask(client, statement, **more)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


def tree(statement: str) -> str:
    with duckdb.connect() as engine:
        return str(engine.execute("SELECT json_serialize_sql($1)", [statement]).fetchone()[0])


def contents(home: Path) -> dict[Path, str]:
    """Digest of every file under a folder, but for the catalog, which others of the session write to."""
    files = (path for path in home.rglob("*") if path.is_file() and not path.name.startswith("catalog.db"))
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def filled_in(statement: str, home: Path) -> str:
    """A hostile statement with its targets: a data file of the lake, and a file beside it."""
    lake = next(home.rglob("*.parquet"))
    return statement.replace("{out}", str(home / "stolen")).replace("{lake}", str(lake)).replace("{{}}", "{}")


def test_sums_and_counts_equal_plain_python_over_the_newest_revisions(sql: httpx.Client, rows: list[Row]) -> None:
    newest = oracle.newest(rows)
    found = data(sql, "SELECT symbol, count(*) AS n, sum(quantity) AS q FROM trades GROUP BY symbol ORDER BY symbol")
    count, total = Counter(r["symbol"] for r in newest), Counter[str]()
    for row in newest:
        total[row["symbol"]] += row["quantity"]  # type: ignore[assignment]
    assert [(r["symbol"], r["n"], Decimal(r["q"])) for r in found] == [(s, count[s], total[s]) for s in sorted(count)]


def test_a_range_leaves_out_the_rows_outside_of_it(sql: httpx.Client, rows: list[Row]) -> None:
    times = sorted(row["timestamp"] for row in oracle.newest(rows))
    start, end = times[100], times[-100]
    asked = {"start_time": start.isoformat(), "end_time": end.isoformat()}
    expected = [row["message_id"] for row in oracle.asked(rows, start=start, end=end)]
    found = data(sql, "SELECT message_id FROM trades", limit=10_000, **asked)
    assert sorted(row["message_id"] for row in found) == sorted(expected)


def test_every_format_has_the_same_rows_with_every_digit(sql: httpx.Client) -> None:
    statement = "SELECT message_id, price, timestamp FROM trades ORDER BY message_id"
    rows = data(sql, statement, limit=500)
    lines = ask(sql, statement, limit=500, format="ndjson")
    assert [json.loads(line) for line in lines.text.splitlines()] == rows
    table = ask(sql, statement, limit=500, format="csv")
    assert list(csv.DictReader(io.StringIO(table.text))) == rows
    prices = [Decimal(row["price"]) for row in rows]
    arrow = pa.ipc.open_stream(ask(sql, statement, limit=500, format="arrow").content).read_all()
    assert (arrow["price"].to_pylist(), arrow.schema.field("price").type) == (prices, pa.decimal128(18, 8))
    parquet = sql.post(
        "/v1/sql", json={"sql": statement, "limit": 500}, headers={"Accept": "application/vnd.apache.parquet"}
    )
    assert pq.read_table(io.BytesIO(parquet.content))["price"].to_pylist() == prices
    for response in (lines, table, parquet):
        digest = base64.b64encode(hashlib.sha256(response.content).digest()).decode()
        assert response.headers["Content-Digest"] == f"sha-256=:{digest}:"


def test_what_json_has_no_word_for_is_told_as_text(sql: httpx.Client) -> None:
    statement = (
        "SELECT 'nan'::DOUBLE AS d, 170141183460469231731687303715884105727::HUGEINT AS h, [1, NULL] AS l, "
        "MAP {'a': 1.50} AS m, DATE '2024-02-29' AS day, TIME '10:00:01' AS t, INTERVAL 3 DAY AS i, '\\xAA'::BLOB AS b, "
        "TIMESTAMPTZ '2024-01-01 00:00:00+01' AS z, TIMESTAMP_NS '2024-01-01 00:00:00.123456789' AS ns, NULL AS nothing"
    )
    (row,) = data(sql, statement)
    assert (row["d"], row["h"], row["l"], row["m"]) == ("nan", str(2**127 - 1), [1, None], {"a": "1.50"})
    assert (row["day"], row["t"], row["b"], row["nothing"]) == ("2024-02-29", "10:00:01", "aa", None)
    assert row["z"] == "2023-12-31T23:00:00.000000Z"
    assert row["ns"].startswith("2024-01-01") and row["ns"].endswith("123456789")


def test_a_longer_answer_than_asked_for_says_so(sql: httpx.Client) -> None:
    response = ask(sql, "SELECT * FROM range(10)", limit=4)
    assert (len(response.json()["data"]), response.json()["truncated"], response.headers["K2-Truncated"]) == (
        4,
        True,
        "true",
    )
    response = ask(sql, "SELECT * FROM range(4)", limit=4)
    assert (len(response.json()["data"]), response.json()["truncated"], response.headers["K2-Truncated"]) == (
        4,
        False,
        "false",
    )


@pytest.mark.parametrize("statement", HARMLESS)
def test_what_people_ask_is_answered(sql: httpx.Client, statement: str) -> None:
    assert ask(sql, statement).status_code == 200


def test_the_same_versions_have_the_same_answer_after_more_was_stored(tmp_path: Path, rows: list[Row]) -> None:
    settings = settings_of(tmp_path, sql=True, sql_seconds_max=SECONDS)
    lake = lake_of(settings)
    store(lake, TRADES, rows[:50])
    statement = "SELECT message_id, price FROM trades ORDER BY ALL"
    with serving(settings) as client:
        first = ask(client, statement).json()
        store(lake, TRADES, [{**row, "message_id": f"later {i}"} for i, row in enumerate(rows[:50])])
        again = ask(client, statement, versions=first["meta"]["versions"]).json()
        as_of = ask(client, statement, as_of=first["meta"]["timestamp"]).json()
        assert ask(client, statement).json()["data"] != first["data"]
        assert ask(client, statement, versions={"trades": "0" * 64}).status_code == 404
    assert again["data"] == as_of["data"] == first["data"]


def test_a_version_whose_snapshot_is_forgotten_and_columns_of_another_name_are_read_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "IDLE_RECEIPTS_MAX", 1)
    settings = settings_of(tmp_path, sql=True, sql_seconds_max=SECONDS)
    lake = lake_of(settings)
    rows = [dated({**trade(n), "platform_sequence": n}) for n in range(20)]
    store(lake, TRADES, rows[:12])
    with serving(settings) as client:
        first = ask(client, MOVED).json()
        store(lake, TRADES, [*rows[12:], {**rows[3], "revision": 1, "price": rows[3]["price"] + 1}])
        collect(lake, TRADES)
        upkeep(lake)
        assert ask(client, MOVED, versions=first["meta"]["versions"]).json()["data"] == first["data"]
        newest = ask(client, MOVED).json()
    assert [row["price"] for row in newest["data"][:4]] == [
        *(row["price"] for row in first["data"][:3]),
        "61841.63000000",
    ]
    rename(lake, "platform_sequence", "position")
    append(lake, {**dated(trade(20)), **LINEAGE, "position": 20})
    rename(lake, "position", "platform_sequence")
    with serving(settings) as client:
        found = data(client, MOVED)
    assert [row["platform_sequence"] for row in found] == list(range(21))
    assert found[:20] == newest["data"]


def test_the_guard_refuses_every_hostile_statement(filled: Settings) -> None:
    with duckdb.connect() as engine:
        for statement in HOSTILE:
            text = filled_in(statement, filled.home)
            parsed = str(engine.execute("SELECT json_serialize_sql($1)", [text]).fetchone()[0])
            if statement not in WRONG:
                with pytest.raises(Problem):
                    tables_of(parsed, GRANTED_NAMES)


def test_no_hostile_statement_runs_and_no_file_changes(sql: httpx.Client, answering: Settings) -> None:
    before = contents(answering.home)
    outcomes = {}
    for statement in HOSTILE[::2] + WRONG:
        response = ask(sql, filled_in(statement, answering.home))
        outcomes[statement] = (response.status_code, response.json().get("code"))
    assert {s: o for s, o in outcomes.items() if o[0] != 422 or o[1] not in REFUSALS} == {}
    assert len(outcomes) >= 60
    assert contents(answering.home) == before


@pytest.mark.parametrize("statement", HEAVY, ids=lambda s: s[:20])
def test_what_an_engine_does_not_like_does_not_hurt_the_server(sql: httpx.Client, statement: str) -> None:
    assert ask(sql, statement).status_code in (200, 413, 422)
    assert data(sql, "SELECT 1 AS one") == [{"one": 1}]


def test_behind_the_guard_the_process_itself_can_touch_nothing(answering: Settings, filled: Settings) -> None:
    """The guard is left out: what it would refuse is run, and fails."""
    before = contents(filled.home)
    lake = next(filled.home.rglob("*.parquet"))
    view = View("trades", "SELECT * FROM read_parquet($files)", {"files": [handed(0)]}, pa.schema([]))
    job = Job((view,), "json", 10, 1 << 20, 1)

    async def run(worker: SqlWorker, statement: str) -> SqlAnswer:
        async with worker.cell() as cell:
            await cell.parse(filled_in(statement, filled.home))
            return await cell.run(job, (str(lake),))

    async def attack() -> None:
        worker = SqlWorker(answering)
        try:
            assert (await run(worker, "SELECT symbol FROM trades LIMIT 1")).rows == 1
            for statement in BEYOND_THE_GUARD:
                with pytest.raises((Problem, K2Error)):
                    await run(worker, statement)
        finally:
            worker.close()

    asyncio.run(attack())
    assert contents(filled.home) == before


@pytest.mark.parametrize("statement", HARMLESS)
def test_a_member_the_guard_does_not_know_is_refused_wherever_it_stands(statement: str) -> None:
    """What a newer engine may add to a tree it parses."""
    document = json.loads(tree(statement))
    tables_of(json.dumps(document), GRANTED_NAMES)
    for path in _dicts(document["statements"]):
        changed = copy.deepcopy(document)
        node = changed["statements"]
        for step in path:
            node = node[step]
        node["unheard_of"] = {"type": "COPY_QUERY_NODE"}
        with pytest.raises(Problem):
            tables_of(json.dumps(changed), GRANTED_NAMES)


def _dicts(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, dict):
        yield path
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for step, value in inner:
        yield from _dicts(value, (*path, step))


ENDLESS = "SELECT count(*) FROM range(3000000) a, range(3000000) b WHERE (a.range + b.range) % 7 = 1"
"""Nine million million pairs, and next to no memory."""


def test_statements_end_at_their_deadline_and_at_their_memory(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sql=True, sql_seconds_max=3.0)
    lake_of(settings)
    with serving(settings) as client:
        began = time.monotonic()
        endless = ask(client, ENDLESS)
        took = time.monotonic() - began
        large = ask(client, "SELECT list(a.range) FROM range(1000000000) a, range(1000) b")
        wide = ask(client, "SELECT unnest(range(400000000)) AS n")
        after = ask(client, "SELECT 1 AS one", limit=1)
    assert (endless.status_code, endless.json()["code"]) == (504, "TIMEOUT")
    assert took < 3.0 + 5.0
    assert large.status_code in (413, 504)
    assert (wide.status_code, wide.json()["code"]) == (413, "RESOURCE_LIMIT_EXCEEDED")
    assert after.status_code == 200


def test_a_client_that_leaves_takes_its_process_along(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sql=True, sql_seconds_max=60.0)
    lake_of(settings)
    known = _templates()
    with serving(settings) as client:
        assert ask(client, "SELECT 1").status_code == 200
        (template,) = _templates() - known
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/sql", json={"sql": ENDLESS}, timeout=1)
        deadline = time.monotonic() + 20
        while template.children() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert template.children() == []
        environment = Path(f"/proc/{template.pid}/environ").read_text()
        assert "K2_" not in environment
    assert not template.is_running()


def _templates() -> set[psutil.Process]:
    return {c for c in psutil.Process().children() if "k2_resources.sql_cell" in " ".join(c.cmdline())}


def test_more_statements_than_can_wait_are_told_to_come_back(answering: Settings) -> None:
    async def crowd() -> int:
        worker = SqlWorker(answering.model_copy(update={"sql_cells": 1}))
        try:
            async with worker.cell():
                waiting = [asyncio.create_task(_enter(worker)) for _ in range(WAITING_MAX)]
                await asyncio.sleep(0)
                with pytest.raises(Problem) as refused:
                    await _enter(worker)
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
            return refused.value.status
        finally:
            worker.close()

    assert asyncio.run(crowd()) == 429


async def _enter(worker: SqlWorker) -> None:
    async with worker.cell():
        pass


def test_a_template_that_died_is_replaced(answering: Settings) -> None:
    async def survive() -> str:
        worker = SqlWorker(answering)
        known = _templates()
        try:
            async with worker.cell() as cell:
                await cell.parse("SELECT 1")
            (template,) = _templates() - known
            template.kill()
            template.wait()
            async with worker.cell() as cell:
                return await cell.parse("SELECT 1")
        finally:
            worker.close()

    assert json.loads(asyncio.run(survive()))["error"] is False


def test_a_cell_nobody_waits_for_any_more_is_ended(answering: Settings) -> None:
    async def leave() -> list[psutil.Process]:
        worker = SqlWorker(answering)
        known = _templates()
        try:
            async with worker.cell() as cell:
                await cell.parse("SELECT 1")
            (template,) = _templates() - known
            for _ in range(5):
                entering = asyncio.create_task(_enter(worker))
                await asyncio.sleep(0)
                entering.cancel()
                await asyncio.gather(entering, return_exceptions=True)
            async with worker.cell():
                pass
            deadline = time.monotonic() + 10
            while template.children() and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            return list(template.children())
        finally:
            worker.close()

    assert asyncio.run(leave()) == []


def test_statements_are_for_those_who_may(client: httpx.Client, sql: httpx.Client, answering: Settings) -> None:
    response = ask(client, "SELECT 1")
    assert (response.status_code, response.json()["code"]) == (403, "SQL_DISABLED")
    assert ask(httpx.Client(base_url=sql.base_url, trust_env=False), "SELECT 1").status_code == 401


def test_statements_are_not_offered_where_nothing_confines_them(tmp_path: Path) -> None:
    remote = settings_of(tmp_path, sql=True, warehouse="s3://bucket/warehouse")
    with pytest.raises(Misconfigured, match="local directory"):
        SqlWorker(remote)


def test_too_many_files_are_refused_before_any_is_opened(filled: Settings) -> None:
    pin = Pins(lake_of(filled)).head(TRADES)
    assert pin is not None
    pinned = Pinned(TRADES, pin.state, pin.extent.files)
    assert len(grant([pinned], Span(), 1_000).paths) >= len(pinned.files)
    with pytest.raises(Problem, match="shorter range") as refused:
        grant([pinned], Span(), 1)
    assert refused.value.status == 413
