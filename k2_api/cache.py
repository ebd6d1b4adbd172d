"""Answers that were made once: bytes by what was asked of which version, and one maker for all who ask meanwhile.

A version never changes, so nothing here is ever invalidated; what was not asked for longest goes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cachetools import LRUCache

POLICY_DIGEST = "none"
"""Which rows a key may see is part of what an answer is; every key sees all of them."""
_SHARE_MAX = 8
"""One answer takes an eighth of the cache at most: a few large pages must not evict thousands of small ones."""


@dataclass(frozen=True)
class Body:
    """The bytes of one answer, and what its headers say of them.

    tail: what stands behind the correlation id of the request; None for formats that do not carry one.
    """

    head: bytes
    tail: bytes | None = None
    rows: int = 0
    next_cursor: str | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.head) + len(self.tail or b"")

    def of(self, correlation_id: str) -> bytes:
        """The bytes for one request. correlation_id: needs no escape in JSON."""
        return self.head if self.tail is None else b"".join((self.head, correlation_id.encode(), self.tail))


class AnswerCache:
    """Bodies of up to bytes_max together. Belongs to one event loop."""

    def __init__(self, bytes_max: int) -> None:
        self._bodies: LRUCache[str, Body] = LRUCache(bytes_max, getsizeof=_size)
        self._flights: dict[str, _Flight] = {}
        self._share_bytes_max = bytes_max // _SHARE_MAX

    async def get(self, key: str, make: Callable[[], Awaitable[Body]]) -> Body:
        """The body under a key, made at most once at a time; whoever waits for it keeps its making alive.

        Raises what making it raised, in all who waited for it; the next to ask tries again.
        """
        body = self.kept(key)
        if body is not None:
            return body
        flight = self._flights.get(key)
        if flight is None or flight.task.done():
            flight = self._flights[key] = _Flight(asyncio.ensure_future(self._made(key, make)))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if flight.waiting == 0:
                flight.task.cancel()
                self._land(key, flight)

    def kept(self, key: str) -> Body | None:
        """The body under a key, where it was made already."""
        return self._bodies.get(key)

    async def _made(self, key: str, make: Callable[[], Awaitable[Body]]) -> Body:
        body = await make()
        if body.size_bytes <= self._share_bytes_max:
            self._bodies[key] = body
        return body

    def _land(self, key: str, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


@dataclass
class _Flight:
    """One making, and how many wait for it."""

    task: asyncio.Future[Body]
    waiting: int = 0


_OVERHEAD_BYTES = 500
"""What a key and an entry take beside the bytes: empty answers must not be free."""


def _size(body: Body) -> int:
    return body.size_bytes + _OVERHEAD_BYTES
