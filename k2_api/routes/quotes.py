"""Quotes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from k2_api.models import QuotesAnswer, QuotesQuestion
from k2_api.problems import documented
from k2_api.responses import backend, respond
from k2_core.contracts import QUOTES

router = APIRouter(prefix="/v1", tags=["quotes"])


@router.get("/quotes", responses={200: {"model": QuotesAnswer}, **documented(400, 410, 422, 504)})
async def quotes(request: Request, question: Annotated[QuotesQuestion, Query()]) -> Response:
    """Best bids and offers over [start_time, end_time), newest first. A side nobody quotes is null, never zero."""
    return await respond(request, QUOTES, question, backend(request).reads.quotes)
