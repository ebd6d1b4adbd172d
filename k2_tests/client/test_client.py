"""The client against the real server, over good lines and bad ones."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import k2_client
from k2_client import AsyncClient, Broken, Client, Refused, Retry, Unavailable
from k2_core.contracts import TRADES
from k2_tests.api import oracle
from k2_tests.api.homes import Row, lake_of, serving, settings_of, store
from k2_tests.client.conftest import Server, server_of
from k2_tests.client.rough_line import Pass, rough_line
from k2_tests.ticks import NOON

HASTY = Retry(attempts=4, pause_seconds=0.01)


@pytest.fixture(scope="module")
def k2(server: Server) -> Any:
    with Client(server.url, server.key, retry=HASTY) as client:
        yield client


@contextmanager
def rough(server: Server, passing: Pass) -> Iterator[Client]:
    """A client at the other end of a bad line."""
    with rough_line(server.url, passing) as url, Client(url, server.key, retry=HASTY) as client:
        yield client


def ids(rows: list[Row]) -> list[str]:
    return [row["message_id"] for row in rows]


def test_trades_are_those_of_the_lake_in_their_types_and_order(k2: Client, rows: list[Row]) -> None:
    found = k2.trades()
    expected = oracle.newest(rows)
    assert found["message_id"].to_pylist() == ids(expected)
    assert found["price"].to_pylist() == [row["price"] for row in expected]
    assert found.schema.field("price").type == pa.decimal128(18, 8)
    assert found["timestamp"].to_pylist() == [row["timestamp"] for row in expected]


@pytest.mark.parametrize("limit", [1, 7, 250, 10_000_000])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_limit_takes_the_first_rows_of_the_order(k2: Client, rows: list[Row], limit: int, order: Any) -> None:
    expected = oracle.newest(rows) if order == "asc" else oracle.newest(rows)[::-1]
    assert k2.trades(limit=limit, order=order)["message_id"].to_pylist() == ids(expected[:limit])


def test_filters_are_those_of_the_server(k2: Client, rows: list[Row]) -> None:
    start, end = NOON - timedelta(hours=3), NOON + timedelta(hours=3)
    found = k2.trades(["DUAL", "NOBODY"], start=start, end=end, exchange="ASX", sides=["BUY"], min_price=Decimal("2.5"))
    expected = [
        row
        for row in oracle.asked(rows, symbol="DUAL", exchange="ASX", start=start, end=end)
        if row["side"] == "BUY" and row["price"] >= Decimal("2.5")
    ]
    assert found["message_id"].to_pylist() == ids(expected)


def test_only_the_asked_columns_come_and_an_empty_answer_has_them_too(k2: Client) -> None:
    assert k2.trades("DUAL", fields=["price"], limit=3).schema.names == ["price"]
    nobody = k2.trades("NOBODY", fields=["quantity", "price"])
    assert (nobody.num_rows, nobody.schema.names) == (0, ["price", "quantity"])


def test_quotes_bars_symbols_and_statements_come_typed(k2: Client, quote_rows: list[Row], rows: list[Row]) -> None:
    assert k2.quotes()["message_id"].to_pylist() == ids(oracle.newest(quote_rows))
    bars = k2.bars("DUAL", "1h", exchange="BINANCE")
    expected = oracle.bars(rows, "1h", symbol="DUAL", exchange="BINANCE")
    assert bars["window_start"].to_pylist() == [bar["window_start"] for bar in expected]
    assert bars.schema.field("close_price").type == pa.decimal128(38, 8)
    assert "ONLYQUOTED" in k2.symbols()
    assert k2.recent_trades("DUAL", "BINANCE", window_minutes=1) == []
    assert k2.get("/v1/snapshots", table="quotes", limit=1)["table_name"] == "quotes"
    found = k2.sql("SELECT count(*) AS n, sum(quantity) AS q FROM trades", limit=5)
    newest = oracle.newest(rows)
    assert found.to_pylist() == [{"n": len(newest), "q": sum(row["quantity"] for row in newest)}]
    assert found.schema.metadata[b"k2.truncated"] == b"false"


def test_pages_of_json_are_followed_to_their_end(k2: Client, rows: list[Row]) -> None:
    found = [row["message_id"] for row in k2.iter_rows("/v1/trades", limit=100, order="asc")]
    assert found == ids(oracle.newest(rows))


def test_a_refusal_says_what_and_which_request(k2: Client) -> None:
    with pytest.raises(Refused) as refused:
        k2.trades(view="unheard of")  # type: ignore[arg-type]
    assert (refused.value.status, refused.value.code) == (422, "VALIDATION_ERROR")
    assert refused.value.request_id
    with pytest.raises(Refused, match="SQL_REFUSED"):
        k2.sql("SELECT * FROM read_text('/etc/passwd')")


def test_a_wrong_key_is_refused_at_once(server: Server) -> None:
    with Client(server.url, "wrong") as client, pytest.raises(Refused, match="403 FORBIDDEN"):
        client.symbols()


def test_an_instant_without_a_zone_is_not_guessed(k2: Client) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        k2.trades(start=datetime(2024, 1, 1))  # noqa: DTZ001


def test_nobody_there_is_told_after_the_last_attempt() -> None:
    twice = Retry(attempts=2, pause_seconds=0.01)
    with Client("http://127.0.0.1:1", retry=twice) as client, pytest.raises(Unavailable, match="after 2 attempts"):
        client.symbols()


def cut_after(size: int, connections: int) -> Pass:
    """The first connections bring so many bytes each and are cut."""
    return lambda number, sent, data: None if number < connections and sent + len(data) > size else data


@pytest.mark.parametrize("size", [100, 30_000, 60_000])
def test_a_stream_that_breaks_goes_on_after_the_last_row_that_came(server: Server, rows: list[Row], size: int) -> None:
    with rough(server, cut_after(size, 3)) as client:
        for order in ("asc", "desc"):
            expected = oracle.newest(rows) if order == "asc" else oracle.newest(rows)[::-1]
            assert client.trades(order=order)["message_id"].to_pylist() == ids(expected)  # type: ignore[arg-type]


def test_a_stream_that_goes_on_stays_in_its_version(tmp_path: Path, rows: list[Row]) -> None:
    settings = settings_of(tmp_path)
    lake = lake_of(settings)
    # every row at one instant: the place in the stream is not told by time alone
    first = [{**row, "timestamp": NOON, "revision": 0, "message_id": f"a{i}"} for i, row in enumerate(rows[:400])]
    store(lake, TRADES, first)

    def passing(number: int, sent: int, data: bytes) -> bytes | None:
        if number == 0 and sent > 20_000:
            store(lake, TRADES, [{**first[0], "message_id": "later", "timestamp": NOON - timedelta(seconds=1)}])
            return None
        return data

    with serving(settings) as http:
        server = server_of(http)
        with rough(server, passing) as client:
            found = client.trades(order="asc")
            assert found["message_id"].to_pylist() == ids(oracle.newest(first))
            assert found.schema.metadata[b"k2.version"].decode() != ""
            assert client.trades(limit=1)["message_id"].to_pylist() == ["later"]


def test_a_line_that_always_breaks_is_given_up(server: Server) -> None:
    with rough(server, cut_after(0, 100)) as client, pytest.raises(Unavailable, match="after 4 attempts"):
        client.trades()


def changed(marker: bytes) -> Pass:
    """One byte behind a marker is another."""

    def passing(number: int, sent: int, data: bytes) -> bytes:
        at = data.find(marker)
        return (
            data
            if at < 0
            else data[: at + len(marker)] + bytes([data[at + len(marker)] ^ 1]) + data[at + len(marker) + 1 :]
        )

    return passing


def test_a_changed_byte_is_noticed(server: Server) -> None:
    with rough(server, changed(b"BINANCE:DUAL:trade:1")) as client, pytest.raises(Broken):
        client.trades()
    with rough(server, changed(b"DUA")) as client, pytest.raises(Broken):
        client.sql("SELECT DISTINCT symbol FROM trades ORDER BY symbol")


def test_a_busy_server_is_asked_again(server: Server) -> None:
    busy = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"

    def passing(number: int, sent: int, data: bytes) -> bytes | None:
        return busy if number < 2 and sent == 0 else None if number < 2 else data

    with rough(server, passing) as client:
        assert "DUAL" in client.symbols()


def test_a_question_that_took_too_long_is_not_asked_again(server: Server) -> None:
    said = b'{"code":"TIMEOUT","detail":"ask for a shorter range"}'
    head = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(said)
    connections: set[int] = set()

    def passing(number: int, sent: int, data: bytes) -> bytes | None:
        connections.add(number)
        return None if sent else head + said

    with rough(server, passing) as client, pytest.raises(Refused, match="TIMEOUT: ask for a shorter range"):
        client.trades()
    assert connections == {0}


def test_what_is_no_arrow_is_not_taken_for_it(server: Server) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\n<html>hello</html>.."
    with rough(server, lambda number, sent, data: None if sent else answer) as client, pytest.raises(Broken):
        client.trades()


def test_both_clients_have_the_same_methods_and_words() -> None:
    def surface(client: type) -> dict[str, Any]:
        members = inspect.getmembers(client, inspect.isfunction)
        return {name: list(inspect.signature(f).parameters) for name, f in members if not name.startswith("_")}

    assert surface(Client) == surface(AsyncClient)


def test_the_other_client_gives_the_same_answers(server: Server, k2: Client) -> None:
    async def ask() -> list[Any]:
        async with AsyncClient(server.url, server.key, retry=HASTY) as client:
            batches = [batch.num_rows async for batch in client.iter_trades("DUAL")]
            rows = [row async for row in client.iter_rows("/v1/trades", limit=300)]
            return [
                await client.trades("DUAL"),
                await client.quotes(),
                await client.bars("DUAL", "1h"),
                await client.sql("SELECT count(*) AS n FROM trades"),
                await client.symbols(),
                sum(batches),
                rows,
            ]

    expected = [
        k2.trades("DUAL"),
        k2.quotes(),
        k2.bars("DUAL", "1h"),
        k2.sql("SELECT count(*) AS n FROM trades"),
        k2.symbols(),
        k2.trades("DUAL").num_rows,
        list(k2.iter_rows("/v1/trades", limit=300)),
    ]
    assert asyncio.run(ask()) == expected


def test_the_other_client_goes_on_over_a_line_that_breaks(server: Server, rows: list[Row]) -> None:
    async def ask(url: str) -> pa.Table:
        async with AsyncClient(url, server.key, retry=HASTY) as client:
            return await client.trades()

    with rough_line(server.url, cut_after(30_000, 2)) as url:
        assert asyncio.run(ask(url))["message_id"].to_pylist() == ids(oracle.newest(rows))


def test_it_needs_nothing_but_its_two_libraries() -> None:
    blocked = (
        "import sys\nfor name in ('k2_core', 'k2_api', 'duckdb', 'fastapi', 'pydantic', 'dagster', 'pyiceberg'):\n"
    )
    program = f"{blocked}    sys.modules[name] = None\nimport k2_client\nprint(k2_client.Client('http://x'))"
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True).returncode == 0
    assert (Path(k2_client.__file__).parent / "py.typed").exists()


def test_pauses_double_up_to_their_longest_and_believe_the_server() -> None:
    retry, most = Retry(pause_seconds=1, pause_seconds_max=10, retry_after_seconds_max=30), lambda: 1.0
    assert [retry.pause(n, None, most) for n in (1, 2, 3, 4, 5, 400)] == [1, 2, 4, 8, 10, 10]
    assert [retry.pause(1, said, lambda: 0.0) for said in ("7", "500", "soon", "-1", "٣")] == [7, 30, 0.5, 0.5, 0.5]
