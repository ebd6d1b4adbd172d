"""Answers made once: by whom, for whom, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from k2_api.app import create_app
from k2_api.cache import AnswerCache, Body
from k2_core.contracts import TRADES
from k2_resources.duck import Duck
from k2_resources.settings import Settings
from k2_tests.api.homes import dated, lake_of, serving, settings_of, store
from k2_tests.ticks import trade

PATIENCE_SECONDS = 20


class Maker:
    """Makes a body when it is let, and counts how often it was asked to."""

    def __init__(self, body: Body | Exception) -> None:
        self.made = 0
        self.stopped = 0
        self.go = asyncio.Event()
        self._body = body

    async def __call__(self) -> Body:
        self.made += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if isinstance(self._body, Exception):
            raise self._body
        return self._body


def run(scene: Any) -> None:
    asyncio.run(asyncio.wait_for(scene, PATIENCE_SECONDS))


def test_all_who_ask_meanwhile_get_what_was_made_once() -> None:
    async def scene() -> None:
        cache, make = AnswerCache(1000), Maker(Body(b"x"))
        asking = [asyncio.ensure_future(cache.get("k", make)) for _ in range(50)]
        await asyncio.sleep(0)
        make.go.set()
        assert {body.head for body in await asyncio.gather(*asking)} == {b"x"}
        assert (await cache.get("k", make)).head == b"x"
        assert make.made == 1

    run(scene())


def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    async def scene() -> None:
        cache, failing = AnswerCache(1000), Maker(ValueError("no"))
        asking = [asyncio.ensure_future(cache.get("k", failing)) for _ in range(3)]
        await asyncio.sleep(0)
        failing.go.set()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ValueError] * 3
        good = Maker(Body(b"x"))
        good.go.set()
        assert (await cache.get("k", good)).head == b"x"

    run(scene())


def test_one_who_leaves_stops_nobody_and_the_last_stops_the_making() -> None:
    async def scene() -> None:
        cache, make = AnswerCache(1000), Maker(Body(b"x"))
        first, second = (asyncio.ensure_future(cache.get("k", make)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0.01)
        assert (make.stopped, second.done()) == (0, False)
        second.cancel()
        await asyncio.sleep(0.01)
        assert make.stopped == 1
        again = Maker(Body(b"y"))
        again.go.set()
        assert (await cache.get("k", again)).head == b"y", "nobody waits for what was stopped"

    run(scene())


def test_it_holds_so_many_bytes_and_forgets_what_was_not_asked_for_longest() -> None:
    async def scene() -> None:
        cache = AnswerCache(8 * 1000)
        made: list[str] = []

        async def body(key: str, size: int = 300) -> None:
            async def make() -> Body:
                made.append(key)
                return Body(b"x" * size)

            await cache.get(key, make)

        for number in range(10):  # ten of 800 bytes are all it takes
            await body(f"k{number}")
        await body("k0")
        await body("k10")
        await body("k0")
        await body("k1")
        assert made == [*(f"k{n}" for n in range(10)), "k10", "k1"]
        await body("large", 2000)
        await body("large", 2000)
        assert made[-2:] == ["large"] * 2, "one answer never evicts all others"

    run(scene())


def test_a_body_is_what_stands_around_the_correlation_id() -> None:
    assert Body(b"a", b"c").of("b") == b"abc"
    assert Body(b"a").of("b") == b"a"


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many queries ran, in a list of one."""
    count, query = [0], Duck.query

    async def counting(duck: Duck, *given: Any, **more: Any) -> Any:
        count[0] += 1
        return await query(duck, *given, **more)

    monkeypatch.setattr(Duck, "query", counting)
    yield count


@pytest.mark.parametrize("name", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_a_page_asked_again_runs_no_query(filled: Settings, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with counted(monkeypatch) as count, serving(filled) as client:
        sent = {"limit": "7", "symbol": "DUAL", "format": name}
        first = client.get("/v1/trades", params=sent, headers={"X-Correlation-ID": "one"})
        made = count[0]
        second = client.get("/v1/trades", params={**sent, "nothing": "known"}, headers={"X-Correlation-ID": "one"})
        assert made > 0 and count[0] == made
        assert second.content == first.content
        other = client.get("/v1/trades", params=sent, headers={"X-Correlation-ID": "another"})
        assert other.content == first.content.replace(b'"one"', b'"another"')
        assert client.get("/v1/trades", params={**sent, "limit": "8"}).content != first.content
        assert count[0] > made


def test_a_commit_shows_at_once_and_what_was_pinned_stays(tmp_path: Path) -> None:
    config = settings_of(tmp_path)
    lake = lake_of(config)
    store(lake, TRADES, [dated(trade(1))])
    with serving(config) as client:
        head = client.get("/v1/trades")
        pinned = {"version": head.headers["K2-Version"]}
        before = client.get("/v1/trades", params=pinned)
        store(lake, TRADES, [dated(trade(2))])
        assert [len(client.get("/v1/trades", params=p).json()["data"]) for p in ({}, pinned)] == [2, 1]
        after = client.get("/v1/trades", params=pinned, headers={"If-None-Match": before.headers["ETag"]})
        assert (after.status_code, after.content) == (304, b"")
        changed = client.get("/v1/trades", headers={"If-None-Match": head.headers["ETag"]})
        assert changed.status_code == 200
    assert head.headers["Cache-Control"] == "no-cache"
    assert before.headers["Cache-Control"] == "private, max-age=31536000, immutable"


def test_a_next_page_may_be_kept_for_ever_and_a_post_not_at_all(client: httpx.Client) -> None:
    cursor = client.get("/v1/trades?limit=3").json()["pagination"]["next_cursor"]
    following = client.get("/v1/trades", params={"limit": 3, "cursor": cursor})
    assert "immutable" in following.headers["Cache-Control"]
    posted = client.post("/v1/trades/query", json={"limit": 3}, headers={"If-None-Match": "*"})
    assert (posted.status_code, posted.headers["Cache-Control"]) == (200, "no-store")


def test_what_a_lake_without_a_commit_says_is_not_kept(tmp_path: Path) -> None:
    config = settings_of(tmp_path)
    app = create_app(config)
    with serving(config, app) as client:
        assert client.get("/v1/trades").json()["data"] == []
        assert client.get("/v1/trades?format=csv").text.count("\n") == 1
        assert not app.state.backend.cache._bodies
        store(lake_of(config), TRADES, [dated(trade(1))])
        assert len(client.get("/v1/trades").json()["data"]) == 1
