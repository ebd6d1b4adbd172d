"""How the things K2 needs are: each asked with a short patience, none trusted to answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from k2_api.models import AlertsHealth, DaemonHealth, Dependency, TopicHealth
from k2_api.reads import Reads
from k2_core.contracts import TRADES
from k2_core.errors import PartitionPaused
from k2_core.standing import TopicStanding
from k2_core.watch import Telling
from k2_resources.dagster_graphql import DaemonView
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


def overall(found: Sequence[Dependency], *, is_degraded: bool = False) -> Status:
    """The worst of all. is_degraded: whether something else is not as it should be."""
    ranks: tuple[Status, ...] = ("unhealthy", "degraded")
    worst: Status = next((rank for rank in ranks if any(d.status == rank for d in found)), "healthy")
    return "degraded" if is_degraded and worst == "healthy" else worst


def topics_of(standings: Iterable[TopicStanding]) -> list[TopicHealth]:
    """How each topic stands. Codes only: anybody may read them, and a message may quote a record."""
    found = []
    for s in standings:
        codes = {halt.code for halt in s.halts} | ({PartitionPaused.code} if s.paused else set())
        found.append(TopicHealth(table=s.table, topic=s.topic, lag_records=s.lag, stands=sorted(codes)))
    return found


def daemon_of(view: DaemonView | None, now_seconds: float) -> DaemonHealth:
    """How the daemon is."""
    age = None if view is None else view.tick_age_seconds(now_seconds)
    return DaemonHealth(answers=view is not None, last_tick_age_seconds=None if age is None else round(age, 3))


def alerts_of(told: Telling | None) -> AlertsHealth:
    """What people are told. What a channel said is not for anybody: it may name who is told."""
    if told is None:
        return AlertsHealth(firing=None, undelivered=None, oldest_undelivered_age_seconds=None)
    return AlertsHealth(
        firing=told.firing,
        undelivered=told.undelivered,
        oldest_undelivered_age_seconds=told.oldest_undelivered_age_seconds,
    )


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
