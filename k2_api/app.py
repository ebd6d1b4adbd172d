"""The application: routes, problems, the observer around them, and the pool that lives as long as it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline

from k2_api import browsers
from k2_api.bar_reads import BarReads
from k2_api.cache import AnswerCache
from k2_api.cursors import CursorBox
from k2_api.daemon import DaemonLook, DaemonWatch
from k2_api.guard import Bounds, Guard, describe_refusals
from k2_api.keys import KeyRing
from k2_api.ledgers import Ledgers
from k2_api.observe import Observer, RequestMetrics
from k2_api.problems import ProblemDocument, install
from k2_api.quality import Quality
from k2_api.rates import Rates
from k2_api.reads import Reads
from k2_api.responses import Backend, describe_patience
from k2_api.routes import (
    aggregations,
    bars,
    datasets,
    days,
    dead_letters,
    estimate,
    gaps,
    ops,
    page,
    prevailing,
    quotes,
    receipts,
    recent,
    reference,
    replay,
    snapshots,
    sql,
    stats,
    summary,
    trades,
)
from k2_api.scrape import Scraper
from k2_api.security import ensure_secret, require_key, require_scope
from k2_api.sql_worker import SqlWorker
from k2_api.streams import Places
from k2_api.tail import Tail
from k2_core.feeds import Feed
from k2_resources.duck import Duck
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived_reads import bar_rules
from k2_resources.settings import Settings, load_feeds

SUMMARY = "Trades, quotes and bars out of the lake. Every answer names the state it shows."


def create_app(settings: Settings, lake: Lake | None = None) -> FastAPI:
    """Build the API over one home. lake: another view of the tables than the settings' own.

    The key is read (or made) now; the query pool opens with the server and closes with it.
    """
    ensure_secret(settings.api_key_file)
    keys = KeyRing(settings.api_key_file, settings.api_keys_file)
    view = lake or Lake(settings.catalog(), settings.warehouse_path())
    feeds = load_feeds(settings)

    # its pages bring their scripts along: a laptop without a network still shows them
    about = {"title": "K2", "summary": SUMMARY, "version": version("k2-platform")}
    app = FastAPIOffline(**about, lifespan=partial(_open, settings, view, feeds), redirect_slashes=False)
    app.state.settings = settings
    app.state.feeds = feeds
    app.state.metrics = RequestMetrics(app.version)
    app.state.daemon = DaemonLook(settings)
    app.state.scraper = Scraper(settings, feeds, app.state.daemon)
    ledger_rooms = (gaps, days, receipts, dead_letters, datasets, estimate, stats, prevailing)
    for room in (recent, trades, quotes, replay, bars, aggregations, summary, reference, snapshots, *ledger_rooms):
        app.include_router(room.router, dependencies=[Depends(require_key)])
    app.include_router(sql.router, dependencies=[Depends(require_scope("sql"))])
    app.include_router(ops.router)
    app.include_router(page.router)
    install(app)
    _protect(app, settings, keys)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _open(settings: Settings, lake: Lake, feeds: tuple[Feed, ...], app: FastAPI) -> AsyncIterator[None]:
    """Everything that lives as long as the server: the query pool, its readers, the tail, the watch over the daemon."""
    with closing(_engine(settings)) as duck, closing(SqlWorker(settings)) as app.state.sql:
        app.state.backend = _backend(settings, Reads(lake, duck))
        app.state.ledgers = Ledgers(app.state.backend.reads)
        app.state.quality = Quality(app.state.ledgers, feeds)
        app.state.bars = BarReads(app.state.backend.reads, lake, bar_rules(settings.config, feeds))
        app.state.tail = Tail(settings, feeds, lake)
        app.state.tail.start()
        watching = asyncio.create_task(DaemonWatch(settings).run())
        yield
        watching.cancel()
        await asyncio.to_thread(app.state.tail.close)


def _engine(settings: Settings) -> Duck:
    return Duck(
        threads=settings.query_threads,
        memory=settings.query_memory,
        seconds_max=settings.query_seconds_max,
        queue_max=settings.query_queue_max,
    )


def _backend(settings: Settings, reads: Reads) -> Backend:
    return Backend(
        reads,
        CursorBox(ensure_secret(settings.home / "cursor.key")),
        settings.query_seconds_max,
        AnswerCache(settings.query_cache_bytes_max),
        Places(settings.query_streams_max),
        settings.query_stream_seconds_max,
    )


def _protect(app: FastAPI, settings: Settings, keys: KeyRing) -> None:
    """Put around the routes what every request passes; the last one is the outermost."""
    bounds = Bounds(
        body_bytes_max=settings.api_body_bytes_max,
        body_seconds_max=settings.api_body_seconds_max,
        rate_per_minute=settings.api_rate_per_minute,
        probes_per_minute=settings.api_probes_per_minute,
    )
    app.add_middleware(Guard, keys=keys, rates=Rates(), bounds=bounds)
    if allowed := browsers.origins(settings.api_cors_origins):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=allowed,
            allow_methods=("GET", "POST"),
            allow_headers=browsers.ASKED_WITH,
            expose_headers=browsers.READ,
        )
    app.add_middleware(Observer, metrics=app.state.metrics)


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the problem schema that every route refers to."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, summary=app.summary, version=app.version, routes=app.routes)
        describe_refusals(schema["paths"])
        describe_patience(schema["paths"])
        problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schema["components"]["schemas"] |= {**problem.pop("$defs"), ProblemDocument.__name__: problem}
        app.openapi_schema = schema
    return app.openapi_schema
