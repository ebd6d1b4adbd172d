"""Trades."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from k2_api.models import TradesAnswer
from k2_api.problems import documented
from k2_api.tick_answers import parameters, queried, ranged, written
from k2_api.tick_models import TradesQuery, TradesQuestion

router = APIRouter(prefix="/v1", tags=["trades"])


@router.get(
    "/trades",
    responses={**written(TradesAnswer), **documented(400, 404, 410, 422, 504)},
    openapi_extra=parameters(TradesQuestion),
)
async def trades(request: Request) -> Response:
    """Trades over [start_time, end_time), newest first: the newest revision of each. An unknown symbol has none."""
    return await ranged(request, TradesQuestion)


@router.post("/trades/query", responses={**written(TradesAnswer), **documented(400, 404, 410, 413, 422, 504)})
async def trades_query(request: Request, query: TradesQuery) -> Response:
    """The same of many symbols at once, in one total order over all of them; filters come before the limit."""
    return await queried(request, query)
