"""Requests no HTTP client would send: bytes on a socket, and what comes back until the server closes it."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2 as httpx

PATIENCE_SECONDS = 60.0
"""Machines are shared and slow; what takes this long does not happen."""


@contextmanager
def connected(
    client: httpx.Client, buffer_bytes: int | None = None, address: str = "127.0.0.1"
) -> Iterator[socket.socket]:
    """A socket from an address to the server of a client. buffer_bytes: what of an answer it takes without a reader."""
    with socket.socket() as made:
        made.bind((address, 0))
        if buffer_bytes is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        made.settimeout(PATIENCE_SECONDS)
        made.connect((client.base_url.host, client.base_url.port))
        yield made


def rest(stream: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    received = bytearray()
    try:
        while piece := stream.recv(1 << 16):
            received += piece
    except ConnectionResetError:
        pass
    return bytes(received)


def answers(client: httpx.Client, *pieces: bytes, pause_seconds: float = 0.0) -> list[tuple[int, bytes]]:
    """Send pieces and collect answers until the connection is closed: their status, and all bytes of each."""
    with connected(client) as stream:
        for piece in pieces:
            try:
                stream.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(pause_seconds)
        received = rest(stream)
    parts = re.split(rb"(?=HTTP/1\.1 \d{3} )", received)
    return [(int(part[9:12]), part) for part in parts if part]


def head(client: httpx.Client, *lines: str, path: str = "/v1/symbols", method: str = "GET") -> bytes:
    """The head of a request with the right key. lines: further header lines."""
    key = client.headers["X-API-Key"]
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: k2", f"X-API-Key: {key}", *lines, "", "")).encode("latin-1")
