"""What there is to ask for: symbols, and what is known of each."""

from __future__ import annotations

import json
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from k2_api import overview
from k2_api.dataset_models import OverviewAnswer, SymbolAnswer
from k2_api.ledger_models import WORD_CHARACTERS_MAX, Day
from k2_api.ledger_pages import rendered, told_response
from k2_api.ledgers import ledgers
from k2_api.models import SymbolsAnswer
from k2_api.problems import Problem, documented
from k2_api.responses import backend, data_response, not_modified, unless_gone
from k2_core.contracts import DAYS, GAPS, INSTRUMENTS, QUOTES, TICK_TABLES, TRADES

router = APIRouter(prefix="/v1", tags=["reference"])


@router.get("/symbols", responses={200: {"model": SymbolsAnswer}, **documented(422, 504)})
async def symbols(
    request: Request,
    exchange: Annotated[str | None, Query(description="Exchange; empty = all.", max_length=WORD_CHARACTERS_MAX)] = None,
) -> Response:
    """Every symbol that has a trade or a quote, sorted."""
    return await unless_gone(request, _symbols(request, exchange))


@router.get("/overview", responses={200: {"model": OverviewAnswer}, **documented(422, 504)})
async def symbols_now(request: Request) -> Response:
    """Every symbol of the trades: last price, what was said of its last closed day, and its open gaps."""
    return await unless_gone(request, _overview(request))


@router.get("/symbols/{symbol:path}", responses={200: {"model": SymbolAnswer}, **documented(404, 422, 504)})
async def symbol(
    request: Request,
    symbol: Annotated[
        str, Path(description="As the exchange writes it.", max_length=WORD_CHARACTERS_MAX, examples=["BHP"])
    ],
    at: Annotated[
        Day | None,
        Query(alias="date", description="Exchange date whose descriptions are shown; empty = that of its last row."),
    ] = None,
) -> Response:
    """One symbol: first and last row and how many, per table and exchange, and the instruments called by it."""
    return await unless_gone(request, _symbol(request, symbol, at))


async def _symbols(request: Request, exchange: str | None) -> Response:
    reads = backend(request).reads
    pinned = (await reads.pin(TRADES), await reads.pin(QUOTES))
    request.state.canonical = json.dumps(exchange)
    if unchanged := not_modified(request, pinned):
        return unchanged
    return data_response(request, pinned, [json.dumps(s) for s in await reads.symbols(pinned, exchange)])


async def _overview(request: Request) -> Response:
    reads, books = backend(request).reads, ledgers(request)
    pinned = (await reads.pin(TRADES), await books.pin(DAYS), await books.pin(GAPS))
    settings = request.app.state.settings
    links = {
        "dagster": settings.alert_dagster_url or settings.dagster(),
        "docs": "/docs",
        "runbook": settings.alert_runbook_url,
    }
    request.state.canonical = json.dumps(links)
    if unchanged := not_modified(request, pinned):
        return unchanged
    return data_response(request, pinned, rendered(await overview.symbols_now(reads, books)), links=links)


async def _symbol(request: Request, symbol: str, at: date | None) -> Response:
    reads = backend(request).reads
    pinned = [await reads.pin(table) for table in (*TICK_TABLES, INSTRUMENTS)]
    request.state.canonical = json.dumps([symbol, str(at)])
    if unchanged := not_modified(request, tuple(pinned)):
        return unchanged
    found = [{"table": p.table.name, **row} for p in pinned[:-1] for row in await overview.seen(reads, p, symbol)]
    day = at or max((row["last_date"] for row in found), default=date.max)
    described = await overview.instruments(reads, pinned[-1], symbol, day)
    if not found and not described:
        raise Problem(404, "NOT_FOUND", f"no symbol {symbol!r:.200}; /v1/symbols lists them")
    shown: dict[str, Any] = {"symbol": symbol, "date": day, "seen": found, "instruments": described}
    return told_response(request, tuple(pinned), shown)
