"""A client for benches of the API: as many connections as asked, each with one request under way, and no more work
than reading the answers takes. It shares the machine with the server, so its own cost is part of every figure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k2_core.errors import K2Error

_READ_BYTES = 1 << 20


class BadAnswer(K2Error):
    """Raised when a server under load answers anything but 200: a bench of refusals measures nothing."""

    code = "BAD_ANSWER"


@dataclass(frozen=True)
class Target:
    """Where requests go, and the header that lets them in."""

    host: str
    port: int
    key: str

    def get(self, path: str) -> bytes:
        """The bytes of a request on a connection that stays open."""
        head = f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nX-API-Key: {self.key}\r\nAccept-Encoding: identity\r\n\r\n"
        return head.encode("ascii")


@dataclass(frozen=True)
class Load:
    """What a load came to. seconds: of each answer, from the request's first byte to the answer's last."""

    seconds: npt.NDArray[np.float64]
    wall_seconds: float
    bytes: int

    @property
    def per_second(self) -> float:
        return len(self.seconds) / self.wall_seconds

    def quantile_ms(self, q: float) -> float:
        return float(np.quantile(self.seconds, q)) * 1000


def load(target: Target, paths: Sequence[str], connections: int, answers: int) -> Load:
    """Ask for the paths in turn over so many connections until so many answers came. Raises BadAnswer."""
    return asyncio.run(_load(target, [target.get(path) for path in paths], connections, answers))


async def _load(target: Target, requests: Sequence[bytes], connections: int, answers: int) -> Load:
    turns = iter(range(answers))
    started = time.perf_counter()
    found = await asyncio.gather(*(_connection(target, requests, turns) for _ in range(connections)))
    wall = time.perf_counter() - started
    seconds = np.array([s for times, _ in found for s in times])
    return Load(seconds, wall, sum(size for _, size in found))


async def _connection(target: Target, requests: Sequence[bytes], turns: Iterator[int]) -> tuple[list[float], int]:
    reader, writer = await asyncio.open_connection(target.host, target.port, limit=_READ_BYTES)
    seconds, size = [], 0
    for turn in turns:  # one iterator shared by all connections
        start = time.perf_counter()
        writer.write(requests[turn % len(requests)])
        size += await _answer(reader)
        seconds.append(time.perf_counter() - start)
    writer.close()
    return seconds, size


async def _answer(reader: asyncio.StreamReader) -> int:
    """Read one answer and throw it away."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200"):
        raise BadAnswer(head.decode("latin-1") + (await reader.read(2000)).decode(errors="replace"))
    lines = head.split(b"\r\n")
    for line in lines:
        if line.startswith(b"content-length:"):
            size = int(line[15:])
            await reader.readexactly(size)
            return size
    return await _chunks(reader)


async def _chunks(reader: asyncio.StreamReader) -> int:
    total = 0
    while True:
        size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass  # a trailer
            return total
        await reader.readexactly(size)
        total += size
        await reader.readexactly(2)
