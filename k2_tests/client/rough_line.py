"""A line to a server that breaks, changes bytes, or answers in its stead: real sockets, as a bad network has them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

Pass = Callable[[int, int, bytes], bytes | None]
"""What becomes of bytes of an answer: (number of the connection, bytes before them on it, the bytes) -> bytes; None cuts."""


@contextmanager
def rough_line(url: str, passing: Pass) -> Iterator[str]:
    """The address of a relay to a server."""
    target = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def accept() -> None:
        number = 0
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((target.hostname, target.port))
                for work in (
                    lambda n=near, f=far: _forward(n, f),
                    lambda n=near, f=far, i=number: _back(n, f, i, passing),
                ):
                    threads.append(threading.Thread(target=work, daemon=True))
                    threads[-1].start()
                number += 1

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (accepting, *threads):
            thread.join(10)


def _forward(near: socket.socket, far: socket.socket) -> None:
    with suppress(OSError):
        while data := near.recv(65_536):
            far.sendall(data)
    with suppress(OSError):
        far.shutdown(socket.SHUT_RDWR)


def _back(near: socket.socket, far: socket.socket, number: int, passing: Pass) -> None:
    sent = 0
    with near, far, suppress(OSError):
        while data := far.recv(4_096):
            passed = passing(number, sent, data)
            if passed is None:
                break
            near.sendall(passed)
            sent += len(data)
        near.shutdown(socket.SHUT_RDWR)
