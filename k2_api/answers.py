"""Rows of trades and quotes, answered: one call for every route, in every format, a page or all of it.

A page is made whole, kept as bytes, and made once for all who ask meanwhile. What may be larger is streamed: the next
rows are computed while the last are sent, and no further ahead than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from fastapi import Request, Response

from k2_api.cache import POLICY_DIGEST, Body
from k2_api.cursors import Cursor, digest
from k2_api.formats import JSON, Ending, Format, encoder
from k2_api.quality import with_quality
from k2_api.questions import HEAD, At, Ticks
from k2_api.reads import Pinned
from k2_api.responses import (
    OPENING,
    Backend,
    backend,
    closing,
    not_modified,
    patience_seconds,
    state_headers,
    unless_gone,
)
from k2_api.streams import Streamed, Window, Writing
from k2_api.tick_models import PAGE_ROWS_MAX
from k2_api.ticks import Key
from k2_core.contracts import CONTRACT_VERSION, Table
from k2_core.projections import shown_columns

_QUERY_SAFE = "%&=+,:;@/?!$*()~'"
"""What stands in a query string as it is, escapes that are already there among it."""
_FILE_MEDIA = "application/octet-stream"
"""What clients of the original platform get a Parquet file as."""


@dataclass(frozen=True)
class Asked:
    """One request for rows, whatever route it came by.

    cursor: as the client sent it; pins the version. offset: rows to leave out first. is_file: to be saved under a name,
    with X-Record-Count. facts: further members of the JSON envelope, by the state that was pinned.
    """

    table: Table
    ticks: Ticks
    at: At = HEAD
    format: Format = JSON
    cursor: str | None = None
    count: bool = False
    offset: int = 0
    is_file: bool = False
    facts: Callable[[Pinned], Mapping[str, Any]] = field(default=lambda _: {})

    @cached_property
    def question(self) -> str:
        """Digest of the rows meant: a cursor continues these and no others, in whatever form they are shown."""
        return digest(self.table.name, repr(replace(self.ticks, limit=None, fields=(), decimals="string")))

    @cached_property
    def form(self) -> tuple[str, bool, str]:
        """What a body depends on beside version, turn and facts."""
        return repr(self.ticks), self.count, self.format.name

    @property
    def is_page(self) -> bool:
        """Whether the answer is small enough to be made whole."""
        return self.ticks.limit is not None and self.ticks.limit <= PAGE_ROWS_MAX


@dataclass(frozen=True)
class Turn:
    """Where an answer goes on: after which row, how many rows to leave out, and how many stand before it by then."""

    after: Key | None = None
    skip: int = 0
    offset: int = 0


async def answer_ticks(request: Request, asked: Asked) -> Response:
    """Answer with the rows asked for. Raises Problem."""
    patience_seconds(request)  # a wrong one is told whether or not there is anything to wait for
    answer = _at_once(request, asked) or await unless_gone(request, _answer(request, asked))
    return await with_quality(request, answer, asked.table, asked.ticks)


async def answer_live(request: Request, asked: Asked, pinned: Pinned, headers: Mapping[str, str]) -> Response:
    """Answer with a page of a state that is only of this moment: without cursor or tag, and never kept."""
    making = Making(backend(request), asked, pinned, Turn(), is_live=True)
    return _whole(request, making, await making.page(), {"Cache-Control": "no-store", **headers})


def _at_once(request: Request, asked: Asked) -> Response | None:
    """The answer where it was made before, of a state that is at hand: nothing to wait for, nothing to watch."""
    state = backend(request)
    at, turn = _place(state, asked)
    pinned = state.reads.at_hand(asked.table, at)
    if pinned is None or not asked.is_page:
        return None
    making = Making(state, asked, pinned, turn)
    request.state.canonical = making.canonical
    if unchanged := not_modified(request, (pinned,)):
        return unchanged
    body = state.cache.kept(making.key)
    return None if body is None else _whole(request, making, body, state_headers(request, (pinned,)))


async def _answer(request: Request, asked: Asked) -> Response:
    state = backend(request)
    at, turn = _place(state, asked)
    pinned = await state.reads.pin(asked.table, at)
    making = Making(state, asked, pinned, turn)
    request.state.canonical = making.canonical
    if unchanged := not_modified(request, (pinned,)):
        return unchanged
    headers = state_headers(request, (pinned,))
    if not asked.is_page:
        return await _streamed(request, making, headers)
    body = await (making.page() if pinned.commit_time is None else state.cache.get(making.key, making.page))
    return _whole(request, making, body, headers)


def _place(state: Backend, asked: Asked) -> tuple[At, Turn]:
    """Which state, and where in it the answer begins. Raises Problem for a cursor that is none."""
    if asked.cursor is None:
        return asked.at, Turn(None, asked.offset, asked.offset)
    cursor = state.cursors.open(asked.cursor, asked.question)
    return At(version=cursor.version), Turn(cursor.key, 0, cursor.offset)


def _whole(request: Request, making: Making, body: Body, headers: dict[str, str]) -> Response:
    headers |= {"K2-Row-Count": str(body.rows), **making.file_headers(body.rows)}
    if body.next_cursor is not None:
        headers["K2-Next-Cursor"] = body.next_cursor
        if request.method == "GET":
            headers["Link"] = f'<{_following_url(request, body.next_cursor)}>; rel="next"'
    return Response(body.of(request.state.correlation_id), 200, headers, making.media_type)


def _following_url(request: Request, cursor: str) -> str:
    """The same question from a cursor on; escaped again, for a client may have sent what no header may hold."""
    sent = request.scope["query_string"].decode("latin-1").split("&")
    query = "&".join([part for part in sent if part and not part.startswith("cursor=")] + [f"cursor={cursor}"])
    return f"{quote(request.scope['path'])}?{quote(query, safe=_QUERY_SAFE)}"


async def _streamed(request: Request, making: Making, headers: dict[str, str]) -> Response:
    if making.asked.is_file or making.asked.format.name == "csv":
        rows = await making.rows_to_come()
        headers |= {"K2-Row-Count": str(rows), **making.file_headers(rows)}
    pieces = making.stream(request.state.correlation_id)
    try:
        first = await anext(pieces)
    except BaseException:
        await pieces.aclose()
        raise
    return Streamed(_after(first, pieces), headers, making.media_type, making.state.stream_seconds_max)


async def _after(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        yield first
        async for piece in pieces:
            yield piece


@dataclass(frozen=True)
class Making:
    """One answer being made. is_live: of this moment only, so that it has no cursor."""

    state: Backend
    asked: Asked
    pinned: Pinned
    turn: Turn
    is_live: bool = False

    @property
    def canonical(self) -> str:
        """Everything the body depends on, beside the version."""
        return repr((self.asked.form, self.turn, self.asked.facts(self.pinned)))

    @property
    def key(self) -> str:
        """What the body is kept under."""
        return digest(CONTRACT_VERSION, POLICY_DIGEST, self.pinned.version, self.asked.table.name, self.canonical)

    @property
    def media_type(self) -> str:
        """What Content-Type says."""
        is_old = self.asked.is_file and self.asked.format.name == "parquet"
        return _FILE_MEDIA if is_old else self.asked.format.media_type

    def file_headers(self, rows: int) -> dict[str, str]:
        """What makes a browser save the answer, and what old clients read of a file."""
        if not self.asked.is_file:
            return {}
        name = f"{self.asked.table.short_name}.{self.asked.format.name}"
        return {"Content-Disposition": f'attachment; filename="{name}"', "X-Record-Count": str(rows)}

    async def page(self) -> Body:
        """The whole body."""
        batches, next_key = await self._found()
        writing = self._writing(Window(0, None))
        text = await asyncio.to_thread(writing.whole, batches)
        rows = writing.window.rows
        following = self._following(next_key, rows)
        end, tail = await self._end(writing, following, has_more=next_key is not None)
        return Body(b"".join((self._opening(), text, end)), tail, rows, following)

    async def stream(self, correlation_id: str) -> AsyncGenerator[bytes, None]:
        """The same in pieces, as they are computed. Raises QueryRefused where too many are streamed already."""
        with self.state.places.taken():
            writing = self._writing(Window(self.turn.skip, self.asked.ticks.limit))
            lead = self._opening()
            async with aclosing(writing.pieces(self._all())) as pieces:
                async for piece in pieces:
                    yield lead + piece if lead else piece
                    lead = b""
            window = writing.window
            following = self._following(window.last_key if window.has_more else None, window.rows)
            end, tail = await self._end(writing, following, has_more=window.has_more)
            yield end if tail is None else b"".join((end, correlation_id.encode(), tail))

    async def rows_to_come(self) -> int:
        """How many rows the whole answer has."""
        total = await self.state.reads.count(self.pinned, self.asked.ticks)
        limit = self.asked.ticks.limit
        rows = max(total - self.turn.offset, 0)
        return rows if limit is None else min(rows, limit)

    async def _found(self) -> tuple[list[pa.RecordBatch], Key | None]:
        """The rows of a page, and the sort key of the last when more follow."""
        if self.turn.skip:
            return await self._found_far()
        reads, ticks, shape = self.state.reads, self.asked.ticks, self.asked.format.shape
        if shape == "json":
            page = await reads.page(self.pinned, ticks, self.turn.after)
            return [pa.record_batch({"json": pa.array(page.rows, pa.string())})], page.next_key
        sheet = await reads.sheet(self.pinned, ticks, self.turn.after, shape)
        return sheet.rows.to_batches(), sheet.next_key

    async def _found_far(self) -> tuple[list[pa.RecordBatch], Key | None]:
        """The same behind rows that are left out: read past them, holding none of them."""
        window, found = Window(self.turn.skip, self.asked.ticks.limit), []
        async with aclosing(self._all()) as batches:
            async for batch in batches:
                found.append(window.cut(batch))
                if window.has_more:
                    break
        return found, window.last_key if window.has_more else None

    async def _all(self) -> AsyncGenerator[pa.RecordBatch, None]:
        reads = self.state.reads
        for part in reads.parts(self.pinned, self.asked.ticks, self.asked.format.shape, self.turn.after):
            async with aclosing(reads.duck.stream(part.statement, part.values)) as batches:
                async for batch in batches:
                    yield batch

    def _writing(self, window: Window) -> Writing:
        columns = shown_columns(self.asked.table, self.asked.ticks.fields)
        schema = pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in columns])
        return Writing(encoder(self.asked.format, schema), window, is_digested=self.asked.format.is_digested)

    def _opening(self) -> bytes:
        return OPENING if self.asked.format.name == "json" else b""

    async def _end(self, writing: Writing, following: str | None, *, has_more: bool) -> tuple[bytes, bytes | None]:
        """What stands after the rows; in JSON as what is before and after the correlation id."""
        rows = writing.window.rows
        if self.asked.format.name != "json":
            return writing.end(Ending(rows, writing.sha256, self.pinned.version, following)), None
        total = await self.state.reads.count(self.pinned, self.asked.ticks) if self.asked.count else None
        pagination = {
            "limit": self.asked.ticks.limit,
            "offset": self.turn.offset,
            "total": total,
            "has_more": has_more,
            "next_cursor": following,
        }
        return closing((self.pinned,), {"pagination": pagination, **self.asked.facts(self.pinned)})

    def _following(self, next_key: Key | None, rows: int) -> str | None:
        if next_key is None or self.is_live:
            return None
        cursor = Cursor(self.asked.question, self.pinned.version, next_key, self.turn.offset + rows)
        return self.state.cursors.seal(cursor)
