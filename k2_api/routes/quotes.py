"""Quotes."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from k2_api.models import QuotesAnswer
from k2_api.problems import documented
from k2_api.tick_answers import parameters, queried, ranged, written
from k2_api.tick_models import QuotesQuery, QuotesQuestion

router = APIRouter(prefix="/v1", tags=["quotes"])


@router.get(
    "/quotes",
    responses={**written(QuotesAnswer), **documented(400, 404, 410, 422, 504)},
    openapi_extra=parameters(QuotesQuestion),
)
async def quotes(request: Request) -> Response:
    """Best bids and offers over [start_time, end_time), newest first. A side nobody quotes is null, never zero."""
    return await ranged(request, QuotesQuestion)


@router.post("/quotes/query", responses={**written(QuotesAnswer), **documented(400, 404, 410, 413, 422, 504)})
async def quotes_query(request: Request, query: QuotesQuery) -> Response:
    """The same of many symbols at once, in one total order over all of them; filters come before the limit."""
    return await queried(request, query)
