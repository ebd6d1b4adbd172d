"""Clients of the simulated exchange in tests: a well-behaved one, and one that decides what it answers."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as dial
from websockets.uri import parse_uri

from k2_feeds.exchange import SimulatedExchange

PATIENCE_SECONDS = 30.0


def connect(url: str) -> ClientConnection:
    """A client that answers pings by itself."""
    return dial(
        url,
        proxy=None,
        compression=None,
        ping_interval=None,
        max_queue=None,
        close_timeout=1,
        open_timeout=PATIENCE_SECONDS,
    )


def visit(running: SimulatedExchange, path: str = "/ws") -> None:
    """Connect, and leave. Raises InvalidStatus where the exchange refuses."""
    with connect(running.ws_url + path):
        pass


def events(client: ClientConnection, count: int) -> list[Any]:
    """So many frames, read as JSON."""
    return [json.loads(client.recv(timeout=PATIENCE_SECONDS)) for _ in range(count)]


def until(condition: Any, seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until a condition holds, and give what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)
    return found


def get(url: str, **options: Any) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=PATIENCE_SECONDS, **options)


def post(url: str, document: Any) -> httpx.Response:
    return httpx.post(url, json=document, trust_env=False, timeout=PATIENCE_SECONDS)


class RawClient:
    """A client that takes part in the protocol only as far as it is told."""

    def __init__(self, url: str) -> None:
        uri = parse_uri(url)
        self._protocol = ClientProtocol(uri)
        self._socket = socket.create_connection((uri.host, uri.port))
        self._protocol.send_request(self._protocol.connect())
        self._socket.sendall(b"".join(self._protocol.data_to_send()))

    def frames(self, seconds: float) -> Iterator[Frame]:
        """Frames of so many seconds, unanswered; ends early where the server ends the connection."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65_536)
            except TimeoutError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                return
            self._protocol.receive_data(data)
            yield from (event for event in self._protocol.events_received() if isinstance(event, Frame))
            list(self._protocol.data_to_send())  # the answers it would give go nowhere

    def send(self, opcode: Opcode, payload: bytes = b"") -> None:
        self._socket.sendall(Frame(opcode, payload).serialize(mask=True))

    def close(self) -> None:
        self._socket.close()


@contextmanager
def raw_client(url: str) -> Iterator[RawClient]:
    client = RawClient(url)
    try:
        yield client
    finally:
        client.close()
