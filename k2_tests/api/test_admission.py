"""More questions than can be answered: who waits, who is told to come back, and who was let in already."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import httpx2 as httpx
import pytest

from k2_api.app import create_app
from k2_core.contracts import TRADES
from k2_resources.duck import Duck, QueryRefused, QueryTimeout
from k2_tests.api.homes import dated, lake_of, serving, settings_of, store
from k2_tests.resources.test_duck import ENDLESS, ONE
from k2_tests.ticks import trade

BUSY_SECONDS = 3.0


def test_so_many_wait_and_the_next_is_told_to_come_back() -> None:
    duck = Duck(threads=1, queue_max=2)

    async def scene() -> list[type]:
        asking = [asyncio.ensure_future(duck.query(ENDLESS, {}, seconds=0.5)) for _ in range(5)]
        return [type(outcome) for outcome in await asyncio.gather(*asking, return_exceptions=True)]

    try:
        assert asyncio.run(scene()) == [QueryTimeout] * 3 + [QueryRefused] * 2
        assert duck.fetch(ONE, {})["n"].to_pylist() == [1], "the queue is empty again"
        assert duck._unfinished == 0
    finally:
        duck.close()


def test_a_task_that_was_let_in_is_not_refused_halfway() -> None:
    duck = Duck(threads=1, queue_max=0)

    async def two_steps(began: asyncio.Event, others: asyncio.Event) -> int:
        await duck.query(ONE, {})
        began.set()
        await others.wait()
        return int((await duck.query(ONE, {}, seconds=20))["n"][0].as_py())

    async def scene() -> None:
        began, others = asyncio.Event(), asyncio.Event()
        let_in = asyncio.ensure_future(two_steps(began, others))
        await began.wait()
        busy = asyncio.ensure_future(duck.query(ENDLESS, {}, seconds=0.5))
        await asyncio.sleep(0.05)
        with pytest.raises(QueryRefused):
            await asyncio.ensure_future(duck.query(ONE, {}))
        others.set()
        assert await let_in == 1
        with pytest.raises(QueryTimeout):
            await busy

    try:
        asyncio.run(asyncio.wait_for(scene(), 30))
    finally:
        duck.close()


def test_a_full_queue_is_said_with_when_to_come_back(tmp_path: Path) -> None:
    config = settings_of(tmp_path, query_threads=1, query_queue_max=0)
    store(lake_of(config), TRADES, [dated(trade(1))])
    app = create_app(config)
    with serving(config, app) as client:
        client.get("/v1/trades?limit=1")
        duck = app.state.backend.reads.duck
        busy = threading.Thread(target=_occupy, args=(duck,))
        busy.start()
        while not duck._running:
            time.sleep(0.01)
        refused = client.get("/v1/trades?limit=2")
        kept = client.get("/v1/trades?limit=1")
        busy.join()
        later = client.get("/v1/trades?limit=2")
    assert (refused.status_code, refused.json()["code"]) == (503, "OVERLOADED")
    assert int(refused.headers["Retry-After"]) >= 1
    assert kept.status_code == 200, "what is kept needs no query"
    assert later.status_code == 200


def test_so_many_are_streamed_and_the_next_is_told_to_come_back(tmp_path: Path) -> None:
    config = settings_of(tmp_path, query_streams_max=1)
    first = dated(trade(0, vendor_data={"padding": "x" * 20_000}))
    store(lake_of(config), TRADES, [{**first, "message_id": f"BINANCE:BTCUSDT:trade:{n}"} for n in range(1_000)])
    with serving(config) as client:
        with client.stream("GET", "/v1/trades?format=ndjson") as slow:
            assert slow.status_code == 200
            with httpx.Client(base_url=client.base_url, headers=client.headers, trust_env=False) as other:
                refused = other.get("/v1/trades?format=arrow")
                assert (refused.status_code, refused.json()["code"]) == (503, "OVERLOADED")
                assert "Retry-After" in refused.headers
                assert other.get("/v1/trades?format=arrow&limit=5").status_code == 200, "a page is no stream"
        deadline = time.monotonic() + 20
        while client.get("/v1/trades?format=csv&fields=symbol").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(("text", "status"), [("0.000001", 408), ("20", 200), ("1e9", 200), ("inf", 200)])
def test_a_client_may_wait_less_than_the_server_would(client: httpx.Client, text: str, status: int) -> None:
    asked = client.get("/v1/trades", params={"limit": 999}, headers={"K2-Timeout-Seconds": text})
    assert asked.status_code == status


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon", ""])
def test_a_patience_that_is_none_is_named(client: httpx.Client, text: str) -> None:
    asked = client.get("/v1/trades", headers=[(b"K2-Timeout-Seconds", text.encode())])
    assert asked.status_code == 422
    assert [e["parameter"] for e in asked.json()["errors"]] == ["K2-Timeout-Seconds"]


def _occupy(duck: Duck) -> None:
    with pytest.raises(QueryTimeout):
        duck.fetch(ENDLESS, {}, seconds=BUSY_SECONDS)
