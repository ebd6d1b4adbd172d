"""The client that blocks. `aio.py` has the same methods to await; a test compares them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
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


class Client:
    """Reads of one K2. Safe to share between threads, but for its iterators.

    url: where the API listens. timeout: seconds without a byte after which a connection has failed.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        retry: Retry = PATIENT,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retry = retry
        headers = {"X-API-Key": api_key} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)

    def trades(self, symbol: Names | None = None, *, limit: int | None = None, **asked: Unpack[Prints]) -> pa.Table:
        """Trades of some symbols, oldest first; None = of all. All of them, or the first `limit`."""
        return table_of(self.iter_trades(symbol, limit=limit, **asked))

    def quotes(self, symbol: Names | None = None, *, limit: int | None = None, **asked: Unpack[Ticks]) -> pa.Table:
        """Quotes of some symbols, oldest first; None = of all. All of them, or the first `limit`."""
        return table_of(self.iter_quotes(symbol, limit=limit, **asked))

    def iter_trades(
        self, symbol: Names | None = None, *, limit: int | None = None, **asked: Unpack[Prints]
    ) -> Iterator[pa.RecordBatch]:
        """The same trades as they arrive, in memory that does not grow with them."""
        return self._batches(questions.ticks("trades", symbol, asked), asked.get("fields"), limit)

    def iter_quotes(
        self, symbol: Names | None = None, *, limit: int | None = None, **asked: Unpack[Ticks]
    ) -> Iterator[pa.RecordBatch]:
        """The same quotes as they arrive."""
        return self._batches(questions.ticks("quotes", symbol, asked), asked.get("fields"), limit)

    def recent_trades(
        self, symbol: str, exchange: str, *, window_minutes: int = 15, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """Trades of the last minutes, newest first, those that are not committed yet included."""
        found: list[dict[str, Any]] = self._json(questions.recent(symbol, exchange, window_minutes, limit))["data"]
        return found

    def bars(self, symbol: str, interval: str = "1m", **asked: Any) -> pa.Table:
        """Bars of one symbol, oldest first. asked: start, end, exchange, fill and so on, as GET /v1/bars has them."""
        call = questions.bars(interval, symbol, asked)
        return bars_table(row for page in self._handed(pages(call, self._retry)) for row in page)

    def sql(
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
        return sql_table(self._whole(questions.statement(statement, limit, asked)))

    def symbols(self, exchange: str | None = None) -> list[str]:
        """Symbols that have a trade or a quote, sorted."""
        found: list[str] = self._json(questions.plain("/v1/symbols", {"exchange": exchange}))["data"]
        return found

    def get(self, path: str, **asked: Any) -> dict[str, Any]:
        """The JSON answer of any path, e.g. `/v1/gaps`."""
        found: dict[str, Any] = self._json(questions.plain(path, asked))
        return found

    def iter_rows(self, path: str, **asked: Any) -> Iterator[dict[str, Any]]:
        """The rows of any path that answers in pages, one after the other."""
        with closing(self._handed(pages(questions.plain(path, asked), self._retry))) as found:
            for page in found:
                yield from page

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batches(self, call: Call, fields: Sequence[str] | None, limit: int | None) -> Iterator[pa.RecordBatch]:
        with closing(self._handed(rows(call, self._retry, limit))) as batches:
            for batch in batches:
                yield shown(batch, fields)

    def _json(self, call: Call) -> Any:
        return self._whole(call).json()

    def _whole(self, call: Call) -> Reply:
        (reply,) = self._handed(handed(whole(call, self._retry)))
        return reply  # type: ignore[no-any-return]

    def _handed(self, conversation: Conversation) -> Generator[Any, None, None]:
        return _Line(self._http).pieces(conversation)


class _Line:
    """Does what one conversation asks for."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._response: httpx.Response | None = None
        self._bytes: Iterator[bytes] = iter(())

    def pieces(self, conversation: Conversation) -> Generator[Any, None, None]:
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
                        answer = self._send(step.call)
                    case Receive():
                        answer = self._receive()
                    case Pause():
                        time.sleep(step.seconds)
        except StopIteration:
            return
        finally:
            self._close()

    def _send(self, call: Call) -> Head | Fault:
        self._close()
        try:
            self._response = self._http.send(request_of(self._http, call), stream=True)
        except httpx.TransportError as error:
            return fault_of(error)
        self._bytes = self._response.iter_bytes()
        return head_of(self._response)

    def _receive(self) -> bytes | Fault:
        try:
            return next(self._bytes, b"")
        except httpx.TransportError as error:
            return fault_of(error)

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()
