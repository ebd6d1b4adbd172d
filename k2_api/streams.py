"""Rows on their way out: cut to what was asked for, turned into bytes beside the event loop, sent as they are taken."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager

import pyarrow as pa
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from k2_api.formats import Encoder, Ending
from k2_api.ticks import Key
from k2_core.projections import KEY
from k2_resources.duck import QueryRefused, QueryTimeout

SLICE_BYTES = 1 << 20
"""Bytes handed to the connection at a time: what waits there for a slow reader is no longer ours to stop."""


class Places:
    """How many answers may be streamed at a time: each holds a cursor, its files and two batches of rows."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._taken = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place. Raises QueryRefused where none is free."""
        if self._taken >= self._count_max:
            raise QueryRefused(f"{self._taken} answers are streamed already; come back later")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Window:
    """Cuts rows in reading order: some left out first, then so many, and whether more would follow.

    rows: how many were let through. last_key: sort key of the last of them, where rows carry theirs.
    """

    def __init__(self, skip: int, limit: int | None) -> None:
        self._skip = skip
        self._limit = limit
        self.rows = 0
        self.last_key: Key | None = None
        self.has_more = False

    def cut(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a batch that are inside."""
        skipped = min(self._skip, batch.num_rows)
        self._skip -= skipped
        inside = batch.slice(skipped)
        if self._limit is not None and inside.num_rows > (room := self._limit - self.rows):
            self.has_more, inside = True, inside.slice(0, room)
        self.rows += inside.num_rows
        if inside.num_rows and set(KEY) <= set(inside.schema.names):
            self.last_key = tuple(inside.column(name)[-1].as_py() for name in KEY)
        return inside


class Writing:
    """One body in the making: which rows are inside, what was written, and the digest of it."""

    def __init__(self, encoder: Encoder, window: Window, *, is_digested: bool) -> None:
        self._encoder = encoder
        self._digest = hashlib.sha256() if is_digested else None
        self.window = window

    @property
    def sha256(self) -> str:
        """Of what was written so far; empty where nobody asks for it."""
        return self._digest.hexdigest() if self._digest else ""

    def whole(self, batches: Iterable[pa.RecordBatch]) -> bytes:
        """The body up to its end, at once."""
        pieces = [self._noted(self._encoder.begin()), *(self._written(batch) for batch in batches)]
        return b"".join((*pieces, self._noted(self._encoder.rest())))

    async def pieces(self, batches: AsyncGenerator[pa.RecordBatch, None]) -> AsyncGenerator[bytes, None]:
        """The body up to its end, piece by piece; the first brings the first rows, so that failure comes before it."""
        lead = self._noted(self._encoder.begin())
        async with aclosing(batches):
            async for batch in batches:
                piece = await asyncio.to_thread(self._written, batch)
                if piece:
                    yield lead + piece if lead else piece
                    lead = b""
                if self.window.has_more:
                    break
        yield lead + self._noted(await asyncio.to_thread(self._encoder.rest))

    def end(self, ending: Ending) -> bytes:
        """What tells that nothing is missing."""
        return self._encoder.end(ending)

    def _written(self, batch: pa.RecordBatch) -> bytes:
        return self._noted(self._encoder.rows(self.window.cut(batch)))

    def _noted(self, piece: bytes) -> bytes:
        if self._digest:
            self._digest.update(piece)
        return piece


class Streamed(StreamingResponse):
    """Sends pieces until they end, the client leaves, or the time is over. What failed after it began is cut off."""

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], headers: Mapping[str, str], media_type: str, seconds_max: float
    ) -> None:
        super().__init__(pieces, 200, headers, media_type)
        self._pieces = pieces
        self._seconds_max = seconds_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything. Raises what stopped it, and the server closes the connection before the end of the body."""
        sending = asyncio.ensure_future(self._send_all(send))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait({sending, gone}, timeout=self._seconds_max, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            elif not gone.done():
                raise QueryTimeout(f"the answer took longer than {self._seconds_max:g} s")
        finally:
            gone.cancel()
            sending.cancel()
            await asyncio.wait({sending})

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._pieces):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for piece in self._pieces:
                for start in range(0, len(piece), SLICE_BYTES):
                    part = piece[start : start + SLICE_BYTES]
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def disconnected(receive: Receive) -> None:
    """Wait until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
