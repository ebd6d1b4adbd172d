"""The application: routes, problems, the observer around them, and the pool that lives as long as it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline

from k2_api.cursors import CursorBox
from k2_api.daemon import DaemonLook, DaemonWatch
from k2_api.observe import Observer, RequestMetrics
from k2_api.problems import ProblemDocument, install
from k2_api.reads import LakeView, Reads
from k2_api.responses import Backend
from k2_api.routes import bars, ops, quotes, reference, snapshots, trades
from k2_api.scrape import Scraper
from k2_api.security import ensure_secret, require_key
from k2_resources.duck import Duck
from k2_resources.lake.catalog import Lake
from k2_resources.settings import Settings, load_feeds

SUMMARY = "Trades, quotes and bars out of the lake. Every answer names the state it shows."


def create_app(settings: Settings, lake: LakeView | None = None) -> FastAPI:
    """Build the API over one home. lake: another view of the tables than the settings' own.

    The key is read (or made) now; the query pool opens with the server and closes with it.
    """
    api_key = ensure_secret(settings.api_key_file)
    cursors = CursorBox(ensure_secret(settings.home / "cursor.key"))
    view = lake or Lake(settings.catalog(), settings.warehouse_path())
    feeds = load_feeds(settings)
    zones = {feed.exchange: feed.timezone for feed in feeds}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        seconds = settings.query_seconds_max
        duck = Duck(threads=settings.query_threads, memory=settings.query_memory, seconds_max=seconds)
        app.state.backend = Backend(Reads(view, duck, zones), cursors, seconds)
        watching = asyncio.create_task(DaemonWatch(settings).run())
        yield
        watching.cancel()
        duck.close()

    # its pages bring their scripts along: a laptop without a network still shows them
    app = FastAPIOffline(title="K2", summary=SUMMARY, version=version("k2-platform"), lifespan=lifespan)
    app.state.settings = settings
    app.state.api_key = api_key
    app.state.metrics = RequestMetrics(app.version)
    app.state.daemon = DaemonLook(settings)
    app.state.scraper = Scraper(settings, feeds, app.state.daemon)
    for room in (trades, quotes, bars, reference, snapshots):
        app.include_router(room.router, dependencies=[Depends(require_key)])
    app.include_router(ops.router)
    install(app)
    app.add_middleware(Observer, metrics=app.state.metrics)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the problem schema that every route refers to."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, summary=app.summary, version=app.version, routes=app.routes)
        problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schema["components"]["schemas"] |= {**problem.pop("$defs"), ProblemDocument.__name__: problem}
        app.openapi_schema = schema
    return app.openapi_schema
