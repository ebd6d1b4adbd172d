"""What the server and a cell say to each other: frames over a pair of sockets, and descriptors of files beside them."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

FRAME_BYTES_MAX = 256 << 20
"""No frame is larger: a length beyond it comes from a process that lost its way."""
DESCRIPTORS_A_MESSAGE = 200
"""The kernel takes 253 in one message."""

SCHEME = "k2"
"""Names of handed files begin with it; no other file system answers to it."""


@dataclass(frozen=True)
class View:
    """A table of the statement: SQL whose `$name` are the values, files among them named by `handed`.

    text: empty for a table without rows. columns: what such a table looks like.
    """

    name: str
    text: str
    values: dict[str, Any]
    columns: pa.Schema


@dataclass(frozen=True)
class Job:
    """What a cell is told after its statement was found harmless.

    descriptors: how many follow. rows_max: rows of the answer. bytes_max: of the rows in memory.
    """

    views: tuple[View, ...]
    form: str
    rows_max: int
    bytes_max: int
    descriptors: int


def handed(index: int) -> str:
    """The name under which a cell reads the nth descriptor it was handed."""
    return f"{SCHEME}://{index}.parquet"


def send_frame(to: socket.socket, payload: bytes) -> None:
    """Send one frame: its length in four bytes, then itself."""
    to.sendall(struct.pack(">I", len(payload)) + payload)


def receive_frame(of: socket.socket, bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """Receive one frame. Raises EOFError when the other side is gone, or says more than it may."""
    (length,) = struct.unpack(">I", _exactly(of, 4))
    if length > bytes_max:
        raise EOFError(f"a frame of {length:,} bytes where {bytes_max:,} are allowed")
    return _exactly(of, length)


def send_descriptors(to: socket.socket, paths: Sequence[str]) -> None:
    """Open files for reading and hand them over, a few at a time. Raises FileNotFoundError, EOFError."""
    for at in range(0, len(paths), DESCRIPTORS_A_MESSAGE):
        opened: list[int] = []
        try:
            for path in paths[at : at + DESCRIPTORS_A_MESSAGE]:
                opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            socket.send_fds(to, [b"f"], opened)
            _exactly(to, 1)
        finally:
            for descriptor in opened:
                os.close(descriptor)


def receive_descriptors(of: socket.socket, count: int) -> list[int]:
    """Receive as many open files. Raises EOFError, and OSError where this process may hold no more."""
    found: list[int] = []
    while len(found) < count:
        said, descriptors, flags, _ = socket.recv_fds(of, 1, DESCRIPTORS_A_MESSAGE)
        if not said:
            raise EOFError("the server is gone")
        if flags & socket.MSG_CTRUNC:
            raise OSError("this process may not hold so many open files: raise its limit, or give a shorter range")
        found += descriptors
        of.sendall(b"f")
    return found


def _exactly(of: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = of.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError("the other side is gone")
        parts += part
    return bytes(parts)
