"""Bars."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from k2_api.models import BarsAnswer, BarsQuestion, Timeframes
from k2_api.problems import documented
from k2_api.responses import backend, respond
from k2_core.contracts import TRADES
from k2_core.windows import TIMEFRAMES

router = APIRouter(prefix="/v1", tags=["bars"])


@router.get("/ohlcv/{timeframe}", responses={200: {"model": BarsAnswer}, **documented(400, 404, 410, 422, 504)})
async def ohlcv(
    request: Request,
    timeframe: Annotated[Timeframes, Path(description="1d is the exchange-local trading day.")],
    question: Annotated[BarsQuestion, Query()],
) -> Response:
    """Bars whose window starts in [start_time, end_time), newest first, each from all eligible prints of its window."""
    read = partial(backend(request).reads.bars, timeframe=TIMEFRAMES[timeframe])
    return await respond(request, TRADES, question, read, timeframe=timeframe, symbol=question.symbol)
