"""Clients that take their time: each phase of a request has an end, and nobody else waits for them.

uvicorn alone keeps every one of these connections for as long as the client likes.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress

import httpx2 as httpx
import pytest
from fastapi.responses import StreamingResponse

from k2_api.app import create_app
from k2_tests.api.homes import serving, settings_of
from k2_tests.api.sockets import answers, connected, head, rest

HEAD_SECONDS, STALL_SECONDS, IDLE_SECONDS = 1.0, 2.0, 4
TOO_LONG_SECONDS = 60.0
"""A machine under load is late; a server without the deadline would never be done."""
PIECES, PIECE_BYTES = 400, 1 << 17
CONNECTIONS_MAX = 40
ENDLESS = "/v1/endless"


class Streams:
    """An endless answer, and how many of them are being sent."""

    def __init__(self) -> None:
        self.open = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            while True:
                yield bytes(PIECE_BYTES)
                await asyncio.sleep(0)
        finally:
            self.open -= 1

    async def answer(self) -> StreamingResponse:
        return StreamingResponse(self.pieces())


@pytest.fixture(scope="module")
def streams() -> Streams:
    return Streams()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, streams: Streams) -> Iterator[httpx.Client]:
    patience = {"api_header_seconds_max": HEAD_SECONDS, "api_stall_seconds_max": STALL_SECONDS}
    bounds = {"api_idle_seconds_max": IDLE_SECONDS, "api_connections_max": CONNECTIONS_MAX}
    settings = settings_of(tmp_path_factory.mktemp("slow"), **patience, **bounds)
    app = create_app(settings)
    app.add_api_route(ENDLESS, streams.answer)
    with serving(settings, app) as client:
        yield client


def test_a_connection_that_says_nothing_is_closed(client: httpx.Client) -> None:
    since = time.monotonic()
    assert answers(client) == []
    assert HEAD_SECONDS * 0.9 < time.monotonic() - since < TOO_LONG_SECONDS


@pytest.mark.parametrize("trickle", [[], [b"x"] * 20], ids=["stops", "goes on, a byte at a time"])
def test_half_a_head_is_waited_for_only_so_long(client: httpx.Client, trickle: list[bytes]) -> None:
    since = time.monotonic()
    found = answers(client, b"GET / HTTP/1.1\r\nHost: k2\r\nX: ", *trickle, pause_seconds=0.2)
    assert [status for status, _ in found] == [408]
    assert HEAD_SECONDS * 0.9 < time.monotonic() - since < TOO_LONG_SECONDS


def test_line_ends_between_requests_keep_no_connection_open(client: httpx.Client) -> None:
    found = answers(client, head(client), *[b"\r\n"] * 20, pause_seconds=0.3)
    assert [status for status, _ in found] in ([200, 408], [200])


def test_a_connection_may_rest_between_requests_longer_than_a_head_may_take(client: httpx.Client) -> None:
    with connected(client) as stream:
        for _ in range(2):
            stream.sendall(head(client))
            assert b'"success":true' in stream.recv(1 << 16)
            time.sleep(HEAD_SECONDS + 1.5)
        since = time.monotonic()
        assert rest(stream) == b""
        assert time.monotonic() - since < TOO_LONG_SECONDS


def test_the_beginning_of_a_next_request_does_not_cut_the_answer_before_it(client: httpx.Client) -> None:
    with connected(client) as stream:
        stream.sendall(head(client, path=ENDLESS) + b"GET /v1/sym")
        end, received = time.monotonic() + HEAD_SECONDS + 2, 0
        while time.monotonic() < end:
            received += len(stream.recv(1 << 20))
        assert received > PIECE_BYTES
        assert stream.recv(1), "the answer goes on"


def test_a_client_that_reads_nothing_is_dropped_and_its_answer_ends(client: httpx.Client, streams: Streams) -> None:
    await_open(streams, 0)
    with connected(client, buffer_bytes=4096) as stream:
        stream.sendall(head(client, path=ENDLESS))
        await_open(streams, 1)
        await_open(streams, 0)
        received = b""
        with pytest.raises(ConnectionResetError):
            while piece := stream.recv(1 << 20):
                received += piece
            raise ConnectionResetError


def test_a_client_that_reads_slowly_but_steadily_is_served(client: httpx.Client, streams: Streams) -> None:
    with connected(client, buffer_bytes=4096) as stream:
        stream.sendall(head(client, path=ENDLESS))
        end = time.monotonic() + 2.5 * STALL_SECONDS
        while time.monotonic() < end:
            assert stream.recv(1 << 14)
            time.sleep(0.1)
        assert streams.open == 1
    await_open(streams, 0)


def test_a_client_that_asks_without_a_pause_is_never_taken_for_one_that_stopped(client: httpx.Client) -> None:
    end = time.monotonic() + 3 * STALL_SECONDS
    with connected(client) as stream:
        while time.monotonic() < end:
            stream.sendall(head(client))
            assert stream.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_others_are_served_while_many_clients_dawdle_and_the_one_too_many_is_told(client: httpx.Client) -> None:
    client.get("/v1/symbols")
    with ExitStack() as open_ones:

        def dawdle(address: str) -> socket.socket:
            stream = open_ones.enter_context(connected(client, address=address))
            with suppress(BrokenPipeError, ConnectionResetError):
                stream.sendall(b"GET / HTTP/1.1\r\nHost: k2\r\n")
            return stream

        greedy = [dawdle("127.0.0.1") for _ in range(CONNECTIONS_MAX)]
        assert client.get("/v1/symbols").status_code == 200, "the connection it had goes on"
        assert [stream.recv(12) for stream in greedy[-5:]] == [b"HTTP/1.1 503"] * 5
        with connected(client, address="127.0.0.2") as other:
            other.sendall(head(client))
            assert other.recv(12) == b"HTTP/1.1 200", "half of the room is left to other addresses"
        others = [dawdle(f"127.0.0.{n}") for n in range(3, CONNECTIONS_MAX)]
        assert others[-1].recv(12) == b"HTTP/1.1 503"
    since = time.monotonic()
    while not can_connect(client):
        assert time.monotonic() - since < TOO_LONG_SECONDS
        time.sleep(0.1)


def can_connect(client: httpx.Client) -> bool:
    return [status for status, _ in answers(client, head(client, "Connection: close"))] == [200]


def test_a_server_that_stops_does_not_wait_for_those_who_dawdle(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = settings_of(tmp_path_factory.mktemp("stopping"), api_header_seconds_max=3600)
    with ExitStack() as open_ones:
        with serving(settings) as client:
            for _ in range(5):
                stream = open_ones.enter_context(connected(client))
                stream.sendall(b"GET / HTTP/1.1\r\nHost: k2\r\n")
            since = time.monotonic()
        assert time.monotonic() - since < 15
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("uvicorn")]


def await_open(streams: Streams, expected: int) -> None:
    since = time.monotonic()
    while streams.open != expected:
        assert time.monotonic() - since < TOO_LONG_SECONDS
        time.sleep(0.05)
