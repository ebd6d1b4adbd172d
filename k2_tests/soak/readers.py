"""Readers who check what they are told: each answer against the tape."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx2 as httpx

from k2_core.windows import MINUTE_US, ceil_us, floor_us, from_us, iso, to_us
from k2_tests.soak.tape import SYMBOLS, Tape
from k2_tests.soak.warden import Api

if TYPE_CHECKING:
    from k2_tests.soak.answers import Outcome

PAUSE_SECONDS = (0.5, 3.0)
"""Between two questions of one reader: people look at what they get."""
_REQUEST_SECONDS_MAX = 30.0
_LATE_US = 2 * MINUTE_US
"""A bar this old is of a minute whose trades are all produced; whether they are in, the tape knows."""
_BUSY = (429, 503)
"""The server says that it has enough to do: an answer, to be asked again, as long as it says when."""
_PATIENCE_SECONDS_MAX = 30.0

Row = Mapping[str, Any]


class Gone(Exception):
    """The API did not answer."""


class Readers:
    """Questions at random, and what is wrong with the answers."""

    def __init__(self, api: Api, tape: Tape, outcome: Outcome, chance: random.Random) -> None:
        self._api = api
        self._tape = tape
        self._outcome = outcome
        self._chance = chance
        self._seen: dict[str, str] = {}

    async def read(self, end: float) -> None:
        """One reader until the end, by the monotonic clock."""
        kinds: Sequence[Callable[[httpx.AsyncClient], Awaitable[None]]]
        kinds = (self._pages, self._range, self._newest, self._several, self._bars, self._again)
        async with httpx.AsyncClient(
            base_url=self._api.url,
            headers={"X-API-Key": self._api.key},
            timeout=_REQUEST_SECONDS_MAX,
            trust_env=False,
        ) as client:
            while time.monotonic() < end:
                try:
                    await self._chance.choice(kinds)(client)
                except Gone:
                    await asyncio.sleep(0.5)
                await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))

    async def _pages(self, client: httpx.AsyncClient) -> None:
        """All trades of a symbol, page by page, as of the first page."""
        symbol = self._chance.choice(SYMBOLS)
        least = self._tape.books[symbol].in_lake
        limit = max(100, min(10_000, least // self._chance.randint(1, 4)))
        sent = {"symbol": symbol, "order": "asc", "limit": str(limit)}
        rows: list[Row] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await self._get(client, "/v1/trades", {**sent, **cursor})
            rows += answer["data"]
            if (following := answer["pagination"]["next_cursor"]) is None:
                break
            cursor = {"cursor": following}
        self._check(symbol, rows, 1, least, "pages")

    async def _range(self, client: httpx.AsyncClient) -> None:
        """The trades of a stretch of time that is certainly in, newest first."""
        symbol, (start_us, end_us) = self._stretch()
        book = self._tape.books[symbol]
        first, after = book.first_at(start_us), book.first_at(end_us)
        sent = {"symbol": symbol, "start_time": _text(start_us), "end_time": _text(end_us), "limit": "10000"}
        answer = await self._get(client, "/v1/trades", sent)
        rows = answer["data"][::-1]
        if after - first <= 10_000 and len(rows) != after - first:
            self._say(f"range {sent}: {len(rows)} rows, {after - first} were produced")
        else:
            self._check(symbol, rows, first, after - 1, "range")

    async def _newest(self, client: httpx.AsyncClient) -> None:
        """What is newest, the tail of the log included."""
        symbol = self._chance.choice(SYMBOLS)
        least = self._tape.books[symbol].in_lake
        answer = await self._get(
            client,
            "/v1/trades/recent",
            {"symbol": symbol, "exchange": "BINANCE", "window_minutes": "60", "limit": "200"},
        )
        rows = answer["data"][::-1]
        first = int(rows[0]["source_sequence"]) if rows else 0
        self._check(symbol, rows, first, least, "newest")

    async def _several(self, client: httpx.AsyncClient) -> None:
        """Two symbols at once, as lines that tell whether they are all."""
        symbols = self._chance.sample(SYMBOLS, 2)
        _, (start_us, end_us) = self._stretch()
        books = [self._tape.books[symbol] for symbol in symbols]
        ends = [min(end_us, book.at_us[book.in_lake - 1]) for book in books]
        asked = {
            "symbols": symbols,
            "start_time": _text(start_us),
            "end_time": _text(max(start_us + 1, min(ends))),
            "limit": 100_000,
            "order": "asc",
        }
        answer = await self._post(client, "/v1/trades/query", asked)
        for symbol, book in zip(symbols, books, strict=True):
            rows = [row for row in answer["data"] if row["symbol"] == symbol]
            first, after = book.first_at(start_us), book.first_at(max(start_us + 1, min(ends)))
            if len(rows) != after - first:
                self._say(f"several {asked}: {len(rows)} rows of {symbol}, {after - first} were produced")
            else:
                self._check(symbol, rows, first, after - 1, "several")

    async def _bars(self, client: httpx.AsyncClient) -> None:
        """Minutes that are over and in."""
        symbol, (start_us, end_us) = self._stretch()
        start_us, end_us = ceil_us(start_us, MINUTE_US), floor_us(end_us, MINUTE_US)
        if start_us >= end_us:
            return
        book = self._tape.books[symbol]
        sent = {"symbol": symbol, "start_time": _text(start_us), "end_time": _text(end_us), "limit": "10000"}
        answer = await self._get(
            client, "/v1/ohlcv/1m", sent, may_be_none=book.first_at(start_us) == book.first_at(end_us)
        )
        for bar in answer["data"]:
            low_us = to_us(datetime.fromisoformat(bar["window_start"]))
            first, after = book.first_at(low_us), book.first_at(low_us + MINUTE_US)
            prices = book.prices[first - 1 : after - 1]
            told = (bar["trade_count"], *(Decimal(bar[f"{n}_price"]) for n in ("open", "high", "low", "close")))
            if not prices or told != (len(prices), prices[0], max(prices), min(prices), prices[-1]):
                self._say(f"bar of {symbol} at {bar['window_start']}: {told}, {len(prices)} trades were produced")

    async def _again(self, client: httpx.AsyncClient) -> None:
        """The same question twice: what has the same tag is the same."""
        symbol, (start_us, end_us) = self._stretch()
        sent = {"symbol": symbol, "start_time": _text(start_us), "end_time": _text(end_us), "limit": "50"}
        for _ in range(2):
            response = await self._send(client, client.build_request("GET", "/v1/trades", params=sent))
            data, tag = json.dumps(response.json()["data"]), response.headers["ETag"]
            if self._seen.setdefault(tag, data) != data:
                self._say(f"{sent}: the answer with tag {tag} was another one before")

    def _stretch(self) -> tuple[str, tuple[int, int]]:
        """A symbol, and a stretch of time of which every trade is in."""
        symbol = self._chance.choice(SYMBOLS)
        book = self._tape.books[symbol]
        first, last = sorted(self._chance.sample(range(book.in_lake), 2))
        return symbol, (book.at_us[first], book.at_us[last])

    def _check(self, symbol: str, rows: Sequence[Row], first: int, last_least: int, how: str) -> None:
        """Rows in rising order are those from `first` on, at least up to `last_least`, as they were produced."""
        book = self._tape.books[symbol]
        ids = [int(row["source_sequence"]) for row in rows]
        if ids != list(range(first, first + len(ids))):
            self._say(f"{how} of {symbol}: ids are not {first}, {first + 1}...: {_oddity(ids, first)}")
        elif (ids[-1] if ids else first - 1) < last_least:
            self._say(f"{how} of {symbol}: ends at {ids[-1:]}, but {last_least} was in before it was asked")
        else:
            for row, number in zip(rows, ids, strict=True):
                told = (Decimal(row["price"]), to_us(datetime.fromisoformat(row["timestamp"]).astimezone(UTC)))
                if told != (book.prices[number - 1], book.at_us[number - 1]):
                    self._say(f"{how} of {symbol}: {number} is {told}, it was produced as {book.prices[number - 1]}")

    async def _get(
        self, client: httpx.AsyncClient, path: str, sent: Mapping[str, str], *, may_be_none: bool = False
    ) -> dict[str, Any]:
        response = await self._send(client, client.build_request("GET", path, params=dict(sent)), may_be_none)
        return {"data": []} if response.status_code == 404 else dict(response.json())

    async def _post(self, client: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return dict((await self._send(client, client.build_request("POST", path, json=dict(body)))).json())

    async def _send(
        self, client: httpx.AsyncClient, request: httpx.Request, may_be_none: bool = False
    ) -> httpx.Response:
        began = time.monotonic()
        while True:
            started = time.monotonic()
            try:
                response = await client.send(request)
            except httpx.TransportError as error:
                self._excuse(started, type(error).__name__)
                raise Gone from error
            self._outcome.answers += 1
            if response.status_code == 200 or (may_be_none and response.status_code == 404):
                return response
            is_busy = response.status_code in _BUSY and "Retry-After" in response.headers
            if not is_busy or time.monotonic() - began > _PATIENCE_SECONDS_MAX:
                self._excuse(started, f"{response.status_code} {request.url.path} {response.text[:200]}")
                raise Gone
            await asyncio.sleep(float(response.headers["Retry-After"]))

    def _excuse(self, started: float, what: str) -> None:
        if self._api.was_down(started, time.monotonic()):
            self._outcome.excused += 1
        else:
            self._outcome.refused[what] += 1

    def _say(self, what: str) -> None:
        self._outcome.wrong.append(what)


def _oddity(ids: Sequence[int], first: int) -> str:
    at = next(i for i, number in enumerate(ids) if number != first + i)
    return f"at {at}: {ids[max(0, at - 2) : at + 3]}"


def _text(instant_us: int) -> str:
    return iso(from_us(instant_us))
