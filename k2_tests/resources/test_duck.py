from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2_core.errors import Damaged
from k2_resources.duck import Duck, QueryStopped, QueryTimeout, QueryTooLarge, Statement, parquet_paths, statement

ENDLESS = Statement(
    "SELECT count(*) AS n FROM range(10000000) a, range(10000000) b WHERE (a.range * b.range) % 7 = 8", frozenset()
)
ONE = Statement("SELECT 1 AS n", frozenset())


@pytest.fixture
def duck() -> Iterator[Duck]:
    duck = Duck(threads=2, memory="200MB", seconds_max=20)
    yield duck
    duck.close()


def reading(columns: str) -> Statement:
    return Statement(f"SELECT {columns} FROM read_parquet($files, union_by_name = true)", frozenset({"files"}))


def test_values_are_bound_and_never_read_as_sql(duck: Duck) -> None:
    hostile = "x'; DROP TABLE t; -- \0 \u202e"
    echo = Statement("SELECT $value AS value", frozenset({"value"}))
    assert duck.fetch(echo, {"value": hostile})["value"].to_pylist() == [hostile]


def test_a_statement_takes_of_many_values_those_it_names(duck: Duck) -> None:
    assert duck.fetch(ONE, {"unused": 1})["n"].to_pylist() == [1]
    with pytest.raises(KeyError):
        duck.fetch(Statement("SELECT $value", frozenset({"value"})), {})


def test_a_text_of_core_stands_behind_its_steps_and_binds_what_they_name() -> None:
    steps = {"stored": "stored", "corrections": "corrections", "rows": "newest_rows", "selected": "selected"}
    composed = statement("newest_first", **steps)
    assert composed.text.startswith("WITH stored AS (")
    assert {"files", "corrected_files", "symbols", "limit", "after_id"} <= composed.parameters


def test_instants_are_rendered_in_utc_on_every_cursor(duck: Duck) -> None:
    render = Statement("SELECT strftime($at, '%H:%M') AS text, current_setting('TimeZone') AS zone", frozenset({"at"}))
    both = [duck.fetch(render, {"at": datetime(2024, 1, 1, 12, tzinfo=UTC)}).to_pylist()[0] for _ in range(4)]
    assert both == [{"text": "12:00", "zone": "UTC"}] * 4


@pytest.mark.parametrize(
    "folder", ["plain", "with space", "a[1]b", "q?x*", "p%20q", "'quote\"", "exchange_date=2014-03-11", "Ünïcode"]
)
def test_any_path_is_read_as_it_is_written(duck: Duck, tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "data.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"n": [1, 2]}), path)
    for location in (str(path), f"file://{path}"):
        assert duck.fetch(reading("n"), {"files": parquet_paths([location])})["n"].to_pylist() == [1, 2]


def test_columns_are_matched_by_name_across_files(duck: Duck, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"b": ["y"], "a": [2], "c": [3.5]}), tmp_path / "2.parquet")
    files = parquet_paths(str(tmp_path / f"{i}.parquet") for i in (1, 2))
    assert duck.fetch(reading("a, b, c"), {"files": files}).to_pylist() == [
        {"a": 1, "b": "x", "c": None},
        {"a": 2, "b": "y", "c": 3.5},
    ]


def test_a_query_past_its_deadline_is_stopped_and_its_cursor_goes_on(duck: Duck) -> None:
    for _ in range(3):  # more often than there are cursors: each must be usable again
        with pytest.raises(QueryTimeout, match="deadline"):
            duck.fetch(ENDLESS, {}, seconds=0.1)
    assert duck.fetch(ONE, {})["n"].to_pylist() == [1]


def test_waiting_for_a_cursor_counts_against_the_deadline(duck: Duck) -> None:
    async def three() -> list[object]:
        queries = (duck.query(ENDLESS, {}, seconds=0.3) for _ in range(3))
        return await asyncio.gather(*queries, return_exceptions=True)

    assert [type(outcome) for outcome in asyncio.run(three())] == [QueryTimeout] * 3


def test_cancelling_the_caller_stops_the_query_and_spares_its_neighbour(duck: Duck) -> None:
    async def scene() -> int:
        doomed = asyncio.ensure_future(duck.query(ENDLESS, {}))
        await asyncio.sleep(0.1)
        doomed.cancel()
        counts = [
            await duck.query(Statement("SELECT count(*) AS n FROM range(3000000)", frozenset()), {}) for _ in range(8)
        ]
        with pytest.raises(asyncio.CancelledError):
            await doomed
        while duck._running:
            await asyncio.sleep(0.01)
        return sum(int(c["n"][0].as_py()) for c in counts)

    assert asyncio.run(asyncio.wait_for(scene(), 15)) == 8 * 3_000_000


def test_the_event_loop_runs_while_a_query_does(duck: Duck) -> None:
    async def ticks_meanwhile() -> int:
        query = asyncio.ensure_future(duck.query(ENDLESS, {}, seconds=0.5))
        ticks = 0
        while not query.done():
            await asyncio.sleep(0.01)
            ticks += 1
        with pytest.raises(QueryTimeout):
            await query
        return ticks

    assert asyncio.run(ticks_meanwhile()) > 5


def test_a_query_beyond_the_memory_limit_is_refused(duck: Duck) -> None:
    sort = Statement(
        "SELECT list(a.range::VARCHAR || 'padding padding padding') AS l FROM range(20000000) a", frozenset()
    )
    with pytest.raises(QueryTooLarge):
        duck.fetch(sort, {})
    assert duck.fetch(ONE, {})["n"].to_pylist() == [1]


@pytest.mark.parametrize("content", [b"", b"no parquet at all, but long enough to look at", None])
def test_a_file_that_is_damaged_or_gone_is_said_to_be(duck: Duck, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "data.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Damaged):
        duck.fetch(reading("*"), {"files": parquet_paths([str(path)])})


def test_closing_stops_what_runs() -> None:
    duck = Duck(threads=1, memory="200MB", seconds_max=60)
    outcome: list[type[BaseException]] = []

    def run() -> None:
        try:
            duck.fetch(ENDLESS, {})
        except QueryStopped as error:
            outcome.append(type(error))

    caller = threading.Thread(target=run)
    caller.start()
    while not duck._running:
        time.sleep(0.01)
    duck.close()
    caller.join(10)
    assert outcome == [QueryStopped]
