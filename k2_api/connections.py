"""Connections to clients: how long each phase of a request may take, how large its head may be, how many there are.

uvicorn bounds only the time between requests (measured: a socket that sends nothing, half a head or one byte a second,
and a client that never reads its answer, each stay for ever; a head of any size is kept). A watch per connection
looks once a second. Bodies are the guard's: it reads them whole, under a deadline, before any route.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import secrets
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from k2_api.browsers import protective
from k2_api.problems import MEDIA_TYPE, Problem, document

LOG = logging.getLogger("k2.api")
HEAD_BYTES_MAX = 64 << 10
HEADERS_MAX = 100
"""Of one request, trailers included; the longest question is some kilobytes."""
WATCH_SECONDS = 1.0
"""How often a connection is looked at: deadlines are kept to within this."""
LINGER_SECONDS, LINGER_BYTES_MAX = 2.0, 16 << 20
"""How much a refused client may go on sending: a connection closed under its hands would lose the answer."""
TAKEN_BYTES_MIN = 4096
"""A client that takes less of what waits for it, in the time it is given, has stopped, however cleverly."""


@dataclass(frozen=True)
class Patience:
    """How long a client may take, in seconds, and how many may be there."""

    head_seconds: float = 10.0
    stall_seconds: float = 30.0
    connections_max: int = 500


def protocol(patience: Patience) -> type[asyncio.Protocol]:
    """The protocol class that uvicorn shall serve with."""
    made: Callable[..., Connection] = partial(Connection, patience=patience)
    return cast("type[asyncio.Protocol]", made)


class _Counted:
    """A transport that knows how many bytes it was given."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.written_bytes = 0

    def write(self, data: bytes) -> None:
        self.written_bytes += len(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """One connection, watched from its first moment to its last."""

    def __init__(self, *arguments: Any, patience: Patience, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._patience = patience
        self._watch: asyncio.TimerHandle | None = None
        self._is_in_head, self._is_begun = True, False
        self._head_since: float | None = None
        self._heads = self._head_bytes = self._head_piece_bytes = self._head_lines = 0
        self._counted: _Counted
        self._taken_bytes, self._taken_at = 0, 0.0
        self._is_deaf = False
        self._ignored_bytes = 0
        self._refused_at: float | None = None
        self._refusal: Problem | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._counted = _Counted(transport)
        super().connection_made(cast("asyncio.Transport", self._counted))
        self._head_since = self._taken_at = self.loop.time()
        self._tick()
        if self._is_one_too_many():
            self._is_deaf = True
            self.transport.write(
                _rendered(Problem(503, "UNAVAILABLE", "too many connections", headers={"Retry-After": "1"}))
            )
            self.transport.close()  # at once: lingering would take the room it does not have

    def _is_one_too_many(self) -> bool:
        """Whether there is no room: none at all, or none for this address, which leaves half of it to others."""
        there, most = len(self.connections), self._patience.connections_max
        if there > most or there <= most // 2:
            return there > most
        addresses = [client[0] for other in self.connections if (client := getattr(other, "client", None))]
        return self.client is not None and addresses.count(self.client[0]) > most // 2

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            self._ignore(len(data))
            return
        was_in_head, heads_before = self._is_in_head, self._heads
        super().data_received(data)
        if not self._is_in_head or self._is_deaf or self.transport.is_closing():
            return
        is_all_head = was_in_head and self._heads == heads_before
        if is_all_head or self._is_begun:
            self._head_since = self._head_since or self.loop.time()
        self._head_piece_bytes += len(data) if is_all_head else 0
        if self._head_piece_bytes > HEAD_BYTES_MAX:
            self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        self._head_bytes = self._head_lines = 0
        self._is_begun = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_lines += 1
        self._count(len(name) + len(value))
        if self._is_in_head:  # a trailer comes after the request was judged: it must not change it
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head, self._head_since, self._head_piece_bytes = False, None, 0
        self._heads += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_head, self._is_begun = True, False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, unless an earlier request of this connection is being answered."""
        cycle = self.cycle
        is_answering = cycle is not None and not cycle.response_complete
        if is_answering and (self.pipeline or cycle.response_started):
            self.transport.abort()  # any byte of ours would become part of the other answer
        elif is_answering and not cycle.more_body:
            cycle.keep_alive = False
            self._is_deaf = True
        else:
            self._refuse(self._refusal or _no_http())

    def _unsupported_upgrade_warning(self) -> None:
        self.cycle.keep_alive = False  # what follows the request is in a language nobody speaks here

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX or self._head_lines > HEADERS_MAX:
            self._refusal = _head_too_large()
            raise ValueError("the head of a request is too large")

    def _refuse(self, problem: Problem) -> None:
        """Answer without the application, and go on reading past what arrives for a moment."""
        self._refused_at, self._is_deaf = self.loop.time(), True
        if self.cycle is not None:
            self.cycle.disconnected = True  # whoever waits for the rest of the request is told that it will not come
            self.cycle.message_event.set()
        self.transport.write(_rendered(problem))
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _ignore(self, size: int) -> None:
        self._ignored_bytes += size
        if self._ignored_bytes > LINGER_BYTES_MAX:
            self.transport.abort()

    def _tick(self) -> None:
        now = self.loop.time()
        if self._has_stalled(now):
            LOG.warning("a client read nothing of its answer for %g s and was dropped", self._patience.stall_seconds)
            self.transport.abort()
        elif self._refused_at is not None:
            if now - self._refused_at > LINGER_SECONDS:
                self.transport.close()
        elif self._is_late(now):
            self._give_up_on_head()
        self._watch = self.loop.call_later(WATCH_SECONDS, self._tick)

    def _has_stalled(self, now: float) -> bool:
        """Whether bytes wait to be read and none, or hardly any, have been for too long."""
        waiting = self._waiting_bytes()
        taken = self._counted.written_bytes - waiting
        if waiting == 0 or taken - self._taken_bytes >= TAKEN_BYTES_MIN:
            self._taken_bytes, self._taken_at = taken, now
        return now - self._taken_at > self._patience.stall_seconds

    def _waiting_bytes(self) -> int:
        """Bytes of answers the client has not taken: ours, and the kernel's, which tells of room by megabytes."""
        held = self.transport.get_write_buffer_size()
        try:
            descriptor = self.transport.get_extra_info("socket").fileno()
            queued = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):  # no such question to this kind of socket, or it is closed already
            return held
        return held + int.from_bytes(queued, sys.byteorder)

    def _is_late(self, now: float) -> bool:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        since = self._head_since
        return since is not None and not is_answering and now - since > self._patience.head_seconds

    def _give_up_on_head(self) -> None:
        if self._head_piece_bytes == 0:
            self.transport.close()  # nothing was asked
            return
        seconds = self._patience.head_seconds
        self._refuse(Problem(408, "REQUEST_TIMEOUT", f"the head of the request did not arrive within {seconds:g} s"))


def _head_too_large() -> Problem:
    detail = f"the head of a request has at most {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} lines"
    return Problem(431, "REQUEST_HEADER_FIELDS_TOO_LARGE", detail)


def _no_http() -> Problem:
    """What a client is told of bytes the parser refuses, in the words of the original platform where it had some."""
    if "Content-Length" in str(sys.exception()):
        return Problem(400, "INVALID_CONTENT_LENGTH", "the length of the body is not told as one whole number")
    return Problem(400, "BAD_REQUEST", "this is not a request of HTTP/1.1")


def _rendered(problem: Problem) -> bytes:
    request_id = secrets.token_hex(4)
    body = document(problem, "/", request_id).encode()
    headers = {
        "content-type": MEDIA_TYPE,
        "content-length": str(len(body)),
        "connection": "close",
        "cache-control": "no-store",
        "x-correlation-id": request_id,
        **problem.headers,
    }
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    lines = [name + b": " + value for name, value in (*pairs, *protective(pairs))]
    status = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}".encode()
    return b"\r\n".join((status, *lines, b"", body))
