"""For operators: where things are, how they are, what they count."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from k2_api.dataset_models import ReadyAnswer
from k2_api.health import alerts_of, daemon_of, dependencies, overall, topics_of
from k2_api.models import HealthAnswer
from k2_api.observe import state_metrics
from k2_api.responses import backend
from k2_api.scrape import CATALOG_SECONDS
from k2_core.contracts import INGESTED
from k2_core.errors import K2Error
from k2_core.windows import iso
from k2_resources.clock import now

router = APIRouter(tags=["operations"])
SNAPSHOTS_MAX = 100_000
"""More than any table keeps: the count is of all of them."""


@router.get("/health", response_model=HealthAnswer)
async def health(request: Request, response: Response) -> HealthAnswer:
    """How K2 and the things it needs are. Always 200: the status is in the body."""
    response.headers["Cache-Control"] = "no-store"
    state, reads = request.app.state, backend(request).reads
    found, standings, view = await asyncio.gather(
        dependencies(reads, state.settings.endpoints()), state.scraper.standings(reads), state.daemon.look()
    )
    at, told = now(), state.daemon.telling(view)
    daemon = daemon_of(view, at.timestamp()) if state.settings.dagster() else None
    topics = topics_of(standings)
    is_silent = daemon is not None and (daemon.last_tick_age_seconds or 0.0) > state.settings.alert_daemon_seconds
    stands = is_silent or any(topic.stands for topic in topics) or (told is not None and told.is_late)
    return HealthAnswer(
        status=overall(found, is_degraded=stands),
        version=request.app.version,
        timestamp=iso(at),
        dependencies=found,
        daemon=daemon,
        topics=topics,
        alerts=alerts_of(told),
    )


@router.get("/ready", response_model=ReadyAnswer, responses={503: {"model": ReadyAnswer}})
async def ready(request: Request, response: Response) -> ReadyAnswer:
    """Whether this server can answer questions now: 503 while the catalog or the query engine does not answer."""
    found = await dependencies(backend(request).reads, {})
    is_ready = overall(found) == "healthy"
    response.status_code = 200 if is_ready else 503
    response.headers["Cache-Control"] = "no-store"
    return ReadyAnswer(status="ready" if is_ready else "not_ready", dependencies=found)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Prometheus text: this process's requests, and how the tables, the log and the machine are now."""
    own = generate_latest(request.app.state.metrics.registry)
    text = own + await _state(request)
    return Response(text, headers={"Cache-Control": "no-store"}, media_type=CONTENT_TYPE_LATEST)


async def _state(request: Request) -> bytes:
    reads, scraper = backend(request).reads, request.app.state.scraper
    try:
        async with asyncio.timeout(CATALOG_SECONDS):
            pinned = [await reads.pin(table) for table in INGESTED]
            kept = {table.name: len(await reads.snapshots(table, SNAPSHOTS_MAX)) for table in INGESTED}
    except (K2Error, TimeoutError):
        return b"# the catalog does not answer: no table metrics\n" + bytes(await scraper.scrape(reads, ()))
    return state_metrics(pinned, kept) + bytes(await scraper.scrape(reads, pinned))
