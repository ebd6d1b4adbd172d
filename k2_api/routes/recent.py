"""The newest trades, those included that no commit holds yet."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model

from k2_api.answers import Asked, answer_live
from k2_api.formats import FormatName, negotiated
from k2_api.models import Meta, TradesAnswer
from k2_api.problems import documented
from k2_api.questions import Ticks
from k2_api.responses import backend, unless_gone
from k2_api.tail import Tail
from k2_api.tick_answers import written
from k2_api.tick_models import PAGE_ROWS_MAX, Source
from k2_core.contracts import TRADES
from k2_core.windows import iso, to_us
from k2_resources import clock

router = APIRouter(prefix="/v1", tags=["trades"])

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class RecentQuestion(BaseModel):
    """GET /v1/trades/recent."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    symbol: Name = Field(description="Symbol as the exchange writes it.")
    exchange: Name = Field(description="Exchange, e.g. BINANCE.")
    window_minutes: int = Field(15, ge=1, le=60, description="How far back from now, in event time.")
    limit: int = Field(1000, ge=1, le=PAGE_ROWS_MAX, description="Rows at most, the newest.")
    source: Source = Field("lake+tail", description="lake = only what is committed.")
    decimals: Literal["string", "number"] = Field("string", description="How JSON writes prices and quantities.")
    count: bool = Field(False, description="Count all rows of the window into pagination.total.")
    format: FormatName | None = Field(None, description="How rows are written; without it, what Accept likes best.")

    def ticks(self, start: datetime, end: datetime) -> Ticks:
        """The rows of one window."""
        return Ticks(
            symbols=(self.symbol,),
            exchanges=(self.exchange,),
            start_us=to_us(start),
            end_us=to_us(end),
            limit=self.limit,
            decimals=self.decimals,
        )


class RecentQuery(BaseModel):
    """What was asked, and the window it meant: [start_time, end_time) in event time."""

    symbol: str
    exchange: str
    window_minutes: int
    start_time: str
    end_time: str


class RecentMeta(Meta):
    """About the answer."""

    query: RecentQuery


RecentAnswer = create_model(
    "RecentAnswer", __base__=TradesAnswer, __doc__="The newest trades of one symbol.", meta=(RecentMeta, ...)
)


@router.get("/trades/recent", responses={**written(RecentAnswer), **documented(422, 504)})
async def recent(request: Request, question: Annotated[RecentQuestion, Query()]) -> Response:
    """Trades of the last minutes, newest first: those the log holds past the newest commit, too, each exactly once.

    K2-Source says whether they are in (`lake+tail`) or not (`lake`), K2-Tail-Reason why something is left out,
    K2-Tail-Lag-Records and K2-Tail-Lag-Seconds what is known to be missing. The answer is of this moment: no cursor.
    """
    return await unless_gone(request, _recent(request, question))


async def _recent(request: Request, question: RecentQuestion) -> Response:
    tail: Tail = request.app.state.tail
    paired = await tail.pair(backend(request).reads, TRADES, question.source)
    end = clock.now()
    start = end - timedelta(minutes=question.window_minutes)
    asked = Asked(
        table=TRADES,
        ticks=question.ticks(start, end),
        format=negotiated(request.headers.get("Accept", ""), question.format),
        count=question.count,
        facts=lambda _: {"meta": {"query": _told(question, start, end)}},
    )
    return await answer_live(request, asked, paired.pinned, paired.headers())


def _told(question: RecentQuestion, start: datetime, end: datetime) -> Mapping[str, Any]:
    named = RecentQuery(**question.model_dump(), start_time=iso(start), end_time=iso(end))
    return named.model_dump()
