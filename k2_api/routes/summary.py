"""The summary of one exchange date of one symbol."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, Path, Query, Request, Response

from k2_api.bar_answers import bar_reads, canonical, pinned_by, summary_text
from k2_api.bar_models import SummaryQuestion, Upper
from k2_api.bar_questions import BarsAsked
from k2_api.bar_shapes import SummaryAnswer
from k2_api.ledger_models import Day
from k2_api.pinning import Pinned
from k2_api.problems import Problem, documented, invalid
from k2_api.responses import not_modified, object_response, unless_gone
from k2_core.bar_fills import counted
from k2_core.windows import DAY_US, EPOCH, FIRST_US, LAST_US, TIMEFRAMES

router = APIRouter(prefix="/v1", tags=["bars"])


@router.get("/summary/{symbol}/{date}", responses={200: {"model": SummaryAnswer}, **documented(404, 410, 422, 504)})
async def summary(
    request: Request,
    symbol: Annotated[Upper, Path(description="Symbol; trimmed and upper-cased.")],
    day: Annotated[Day, Path(alias="date", description="Exchange-local date, YYYY-MM-DD.")],
    question: Annotated[SummaryQuestion, Query()],
) -> Response:
    """Prices, volume and averages of one exchange-local date, of all eligible prints of that date."""
    return await unless_gone(request, _summary(request, symbol, day, question))


async def _summary(request: Request, symbol: str, day: date, question: SummaryQuestion) -> Response:
    pinned = await pinned_by(request, question)
    request.state.canonical = canonical(request, pinned, question)
    if unchanged := not_modified(request, (pinned,)):
        return unchanged
    found = await _daily(request, pinned, _asked(symbol, day, question), day)
    if len(found) == 0:
        raise Problem(404, "NOT_FOUND", f"no print of {symbol} counts on {day}")
    if len(found) > 1:
        there = ", ".join(found["exchange"].to_pylist())
        raise invalid(
            [{"parameter": "exchange", "in": "query", "pointer": "/query/exchange", "detail": f"one of {there}"}]
        )
    text = summary_text(found, numbers=question.decimals == "number")
    return object_response(request, (pinned,), text)


async def _daily(request: Request, pinned: Pinned, asked: BarsAsked, day: date) -> pa.Table:
    """The daily bars of one date, one an exchange."""
    bars = counted(await bar_reads(request).whole(pinned, asked))
    return bars.filter(pc.equal(bars["exchange_date"], pa.scalar(day, pa.date32())))


def _asked(symbol: str, day: date, question: SummaryQuestion) -> BarsAsked:
    """Windows that begin within a day of midnight UTC: whatever the zone, that of the date is among them."""
    midnight_us = (day - EPOCH.date()).days * DAY_US
    start_us, end_us = max(midnight_us - DAY_US, FIRST_US), min(midnight_us + DAY_US, LAST_US)
    is_regular = question.session == "regular"
    return BarsAsked(symbol, question.exchange, TIMEFRAMES["1d"], start_us, end_us, question.view, is_regular)
