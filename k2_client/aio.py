"""The client to await: the methods of `client.py`, one for one; a test compares them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack

import httpx2 as httpx
import pyarrow as pa

from k2_client import questions
from k2_client.connecting import fault_of, head_of, request_of
from k2_client.conversations import Reply, handed, pages, rows, whole
from k2_client.questions import Instant, Names, Prints, Ticks
from k2_client.retries import PATIENT, Retry
from k2_client.steps import Call, Conversation, Fault, Hand, Head, Pause, Receive, Send
from k2_client.tables import bars_table, shown, sql_table, table_of


class AsyncClient:
    """Reads of one K2 from an event loop; every method of Client, to await or to iterate with `async for`.

    url: where the API listens. timeout: seconds without a byte after which a connection has failed.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        retry: Retry = PATIENT,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._retry = retry
        headers = {"X-API-Key": api_key} if api_key else {}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, transport=transport)

    async def trades(
        self, symbol: Names | None = None, *, limit: int | None = None, **asked: Unpack[Prints]
    ) -> pa.Table:
        """Trades of some symbols, oldest first; None = of all. All of them, or the first `limit`."""
        return table_of([batch async for batch in self.iter_trades(symbol, limit=limit, **asked)])

    async def quotes(
        self, symbol: Names | None = None, *, limit: int | None = None, **asked: Unpack[Ticks]
    ) -> pa.Table:
        """Quotes of some symbols, oldest first; None = of all. All of them, or the first `limit`."""
        return table_of([batch async for batch in self.iter_quotes(symbol, limit=limit, **asked)])

    def iter_trades(
        self, symbol: Names | None = None, *, limit: int | None = None, **asked: Unpack[Prints]
    ) -> AsyncIterator[pa.RecordBatch]:
        """The same trades as they arrive, in memory that does not grow with them."""
        return self._batches(questions.ticks("trades", symbol, asked), asked.get("fields"), limit)

    def iter_quotes(
        self, symbol: Names | None = None, *, limit: int | None = None, **asked: Unpack[Ticks]
    ) -> AsyncIterator[pa.RecordBatch]:
        """The same quotes as they arrive."""
        return self._batches(questions.ticks("quotes", symbol, asked), asked.get("fields"), limit)

    async def recent_trades(
        self, symbol: str, exchange: str, *, window_minutes: int = 15, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """Trades of the last minutes, newest first, those that are not committed yet included."""
        answer = await self._json(questions.recent(symbol, exchange, window_minutes, limit))
        found: list[dict[str, Any]] = answer["data"]
        return found

    async def bars(self, symbol: str, interval: str = "1m", **asked: Any) -> pa.Table:
        """Bars of one symbol, oldest first. asked: start, end, exchange, fill and so on, as GET /v1/bars has them."""
        call = questions.bars(interval, symbol, asked)
        return bars_table([row async for page in self._handed(pages(call, self._retry)) for row in page])

    async def sql(
        self,
        statement: str,
        *,
        limit: int = 1000,
        start: Instant | None = None,
        end: Instant | None = None,
        as_of: Instant | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> pa.Table:
        """Rows of one SELECT. The schema's metadata say the versions it read, and whether it was cut at `limit`."""
        asked = {"start": start, "end": end, "as_of": as_of, "versions": versions}
        return sql_table(await self._whole(questions.statement(statement, limit, asked)))

    async def symbols(self, exchange: str | None = None) -> list[str]:
        """Symbols that have a trade or a quote, sorted."""
        found: list[str] = (await self._json(questions.plain("/v1/symbols", {"exchange": exchange})))["data"]
        return found

    async def get(self, path: str, **asked: Any) -> dict[str, Any]:
        """The JSON answer of any path, e.g. `/v1/gaps`."""
        found: dict[str, Any] = await self._json(questions.plain(path, asked))
        return found

    async def iter_rows(self, path: str, **asked: Any) -> AsyncIterator[dict[str, Any]]:
        """The rows of any path that answers in pages, one after the other."""
        async with aclosing(self._handed(pages(questions.plain(path, asked), self._retry))) as found:
            async for page in found:
                for row in page:
                    yield row

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _batches(
        self, call: Call, fields: Sequence[str] | None, limit: int | None
    ) -> AsyncIterator[pa.RecordBatch]:
        async with aclosing(self._handed(rows(call, self._retry, limit))) as batches:
            async for batch in batches:
                yield shown(batch, fields)

    async def _json(self, call: Call) -> Any:
        return (await self._whole(call)).json()

    async def _whole(self, call: Call) -> Reply:
        (reply,) = [reply async for reply in self._handed(handed(whole(call, self._retry)))]
        return reply  # type: ignore[no-any-return]

    def _handed(self, conversation: Conversation) -> AsyncGenerator[Any, None]:
        return _Line(self._http).pieces(conversation)


class _Line:
    """Does what one conversation asks for."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._response: httpx.Response | None = None
        self._bytes: AsyncIterator[bytes]

    async def pieces(self, conversation: Conversation) -> AsyncGenerator[Any, None]:
        """What the conversation hands out, until it ends."""
        answer: Any = None
        try:
            while True:
                step = conversation.send(answer)
                answer = None
                match step:
                    case Hand():
                        yield step.piece
                    case Send():
                        answer = await self._send(step.call)
                    case Receive():
                        answer = await self._receive()
                    case Pause():
                        await asyncio.sleep(step.seconds)
        except StopIteration:
            return
        finally:
            await self._close()

    async def _send(self, call: Call) -> Head | Fault:
        await self._close()
        try:
            self._response = await self._http.send(request_of(self._http, call), stream=True)
        except httpx.TransportError as error:
            return fault_of(error)
        self._bytes = self._response.aiter_bytes()
        return head_of(self._response)

    async def _receive(self) -> bytes | Fault:
        try:
            return await anext(self._bytes, b"")
        except httpx.TransportError as error:
            return fault_of(error)

    async def _close(self) -> None:
        if self._response is not None:
            await self._response.aclose()
