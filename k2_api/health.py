"""How the things K2 needs are: each asked with a short patience, none trusted to answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from k2_api.models import Dependency
from k2_api.reads import Reads
from k2_core.contracts import TRADES
from k2_resources.duck import statement

PATIENCE_SECONDS = 1.0
"""A probe that takes longer counts as down: health must answer while things are broken."""
_OURSELVES = "api"

Status = Literal["healthy", "degraded", "unhealthy"]


async def dependencies(reads: Reads, endpoints: Mapping[str, Any]) -> list[Dependency]:
    """Ask the catalog, the query engine and every endpoint of the running stack, all at once."""

    async def engine() -> None:
        await reads.duck.query(statement("alive"), {})

    async def catalog() -> None:
        await asyncio.to_thread(reads.lake.state, TRADES)

    probes = [_probe("catalog", catalog, "unhealthy"), _probe("query_engine", engine, "unhealthy")]
    for name, address in sorted(endpoints.items()):
        if name != _OURSELVES and (place := _place(address)):
            probes.append(_probe(name, _connection(*place), "degraded"))
    return list(await asyncio.gather(*probes))


def overall(found: list[Dependency]) -> Status:
    """The worst of all."""
    ranks: tuple[Status, ...] = ("unhealthy", "degraded")
    return next((rank for rank in ranks if any(d.status == rank for d in found)), "healthy")


async def _probe(name: str, ask: Callable[[], Awaitable[None]], when_down: Status) -> Dependency:
    started = time.perf_counter()
    try:
        await asyncio.wait_for(ask(), PATIENCE_SECONDS)
    except Exception as error:  # a probe reports whatever is wrong; only its kind, for anybody may read it
        return Dependency(name=name, status=when_down, latency_ms=None, message=f"no answer: {type(error).__name__}")
    latency_ms = round((time.perf_counter() - started) * 1000, 3)
    return Dependency(name=name, status="healthy", latency_ms=latency_ms, message=None)


def _connection(host: str, port: int) -> Callable[[], Awaitable[None]]:
    async def connect() -> None:
        _, writer = await asyncio.open_connection(host, port)
        writer.close()

    return connect


def _place(address: object) -> tuple[str, int] | None:
    """Host and port of `host:port` or a URL; None for an entry that is no address."""
    if not isinstance(address, str):
        return None
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        return (parts.hostname, parts.port) if parts.hostname and parts.port else None
    except ValueError:
        return None
