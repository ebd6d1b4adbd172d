"""Trades."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from k2_api.models import TradesAnswer, TradesQuestion
from k2_api.problems import documented
from k2_api.responses import backend, respond
from k2_core.contracts import TRADES

router = APIRouter(prefix="/v1", tags=["trades"])


@router.get("/trades", responses={200: {"model": TradesAnswer}, **documented(400, 410, 422, 504)})
async def trades(request: Request, question: Annotated[TradesQuestion, Query()]) -> Response:
    """Trades over [start_time, end_time), newest first: the newest revision of each. An unknown symbol has none."""
    return await respond(request, TRADES, question, backend(request).reads.trades)
