"""Bars: in the shape of the original platform under /ohlcv, with all K2 tells of them under /bars."""

from __future__ import annotations

import json
from datetime import date
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from k2_api.bar_answers import (
    Turn,
    bar_reads,
    bar_texts,
    canonical,
    ohlcv_texts,
    pagination_of,
    turn_of,
)
from k2_api.bar_filling import filled_page
from k2_api.bar_health import health_of
from k2_api.bar_models import (
    BATCH_BARS_MAX,
    BATCH_ITEMS_MAX,
    BarsQuestion,
    BatchItem,
    Intervals,
    OhlcvQuestion,
    Timeframes,
)
from k2_api.bar_pages import Asked, BarPage, page_of
from k2_api.bar_questions import BarsAsked
from k2_api.bar_shapes import BarsAnswer, BatchEntry, OhlcvAnswer, OhlcvHealth
from k2_api.pinning import Pinned
from k2_api.problems import Problem, documented
from k2_api.quality import with_quality
from k2_api.questions import Ticks
from k2_api.responses import Data, backend, cached, commit_text, unless_gone
from k2_core.bar_fills import Fill
from k2_core.contracts import TRADES
from k2_core.windows import INTERVALS, TIMEFRAMES

router = APIRouter(prefix="/v1", tags=["bars"])


@router.get("/ohlcv/health", responses={200: {"model": OhlcvHealth}, **documented(504)})
async def ohlcv_health(request: Request) -> Response:
    """How fresh bars are: how long ago the newest window of each length began, and how long ago is too long."""
    return await unless_gone(request, _health(request))


@router.get("/ohlcv/{timeframe}", responses={200: {"model": OhlcvAnswer}, **documented(400, 404, 410, 422, 504)})
async def ohlcv(
    request: Request,
    timeframe: Annotated[Timeframes, Path(description="1d is the exchange-local trading day.")],
    question: Annotated[OhlcvQuestion, Query()],
) -> Response:
    """Bars whose window starts in [start_time, end_time), newest first, each of all eligible prints of its window."""
    return await _told(request, question, await unless_gone(request, _ohlcv(request, timeframe, question)))


@router.post(
    "/ohlcv/batch", responses={200: {"model": dict[str, BatchEntry]}, **documented(400, 404, 410, 413, 422, 504)}
)
async def ohlcv_batch(request: Request, items: list[BatchItem]) -> Response:
    """Up to five questions of /ohlcv/{timeframe} about one state; one without an answer does not fail the others.

    The answers stand under `{timeframe}_{symbol}`; a second question of the same name has `#2` behind it.
    """
    _refuse_large(items)
    return await unless_gone(request, _batch(request, items))


@router.get("/bars/{interval}", responses={200: {"model": BarsAnswer}, **documented(400, 404, 410, 422, 504)})
async def bars(
    request: Request,
    interval: Annotated[
        Intervals,
        Path(description="1d is the exchange-local date; session, of it only what printed while the exchange traded."),
    ],
    question: Annotated[BarsQuestion, Query()],
) -> Response:
    """Bars whose window starts in [start_time, end_time), oldest first.

    Prices follow the update rules of the exchange; vwap and twap are exact, rounded half to even at the eighth decimal.
    """
    return await _told(request, question, await unless_gone(request, _bars(request, interval, question)))


async def _told(request: Request, question: OhlcvQuestion | BarsQuestion, answer: Response) -> Response:
    """The answer, and what is known to be missing of the trades it rests on."""
    exchanges = (question.exchange,) if question.exchange else ()
    asked = Ticks((question.symbol,), exchanges, question.start_us, question.end_us)
    return await with_quality(request, answer, TRADES, asked)


async def _ohlcv(request: Request, timeframe: str, question: OhlcvQuestion) -> Response:
    turn = turn_of(request, question, question)
    pinned = await backend(request).reads.pin(TRADES, turn.at)
    asked = _page(question.asked(question.symbol, TIMEFRAMES[timeframe]), question, turn)

    async def make() -> Data:
        page = await page_of(bar_reads(request), pinned, asked)
        if not len(page.bars) and turn.after is None:
            raise _nothing(timeframe, question.symbol)
        texts = ohlcv_texts(page.bars, timeframe, numbers=question.decimals == "number")
        pagination = pagination_of(request, question, pinned, page, turn)
        facts = {"timeframe": timeframe, "symbol": question.symbol, "timestamp": commit_text((pinned,))}
        return Data(texts, {"pagination": pagination, **facts})

    return await cached(request, (pinned,), canonical(request, pinned, question), make)


async def _bars(request: Request, interval: str, question: BarsQuestion) -> Response:
    turn = turn_of(request, question, question)
    pinned = await backend(request).reads.pin(TRADES, turn.at)
    asked = _page(question.asked(question.symbol, INTERVALS[interval]), question, turn)

    async def make() -> Data:
        page = await _filled(request, pinned, asked, question.fill)
        texts = bar_texts(page.bars, interval, numbers=question.decimals == "number")
        pagination = pagination_of(request, question, pinned, page, turn)
        return Data(texts, {"pagination": pagination, "interval": interval, "symbol": question.symbol})

    return await cached(request, (pinned,), canonical(request, pinned, question), make)


async def _filled(request: Request, pinned: Pinned, asked: Asked, fill: Fill) -> BarPage:
    reads = bar_reads(request)
    if fill == "none":
        return await page_of(reads, pinned, asked)
    return await filled_page(reads, pinned, asked, fill, partial(_trades_on, request))


async def _batch(request: Request, items: list[BatchItem]) -> Response:
    pinned = await backend(request).reads.pin(TRADES)
    answers: dict[str, str] = {}
    for item in items:
        name = f"{item.timeframe}_{item.symbol}"
        same = sum(known.partition("#")[0] == name for known in answers)
        answers[f"{name}#{same + 1}" if same else name] = await _answer(request, pinned, item)
    body = ",".join(f"{json.dumps(name)}:{text}" for name, text in answers.items())
    headers = {"K2-Version": pinned.version, "Cache-Control": "no-store"}
    return Response(f"{{{body}}}".encode(), 200, headers, "application/json")


async def _answer(request: Request, pinned: Pinned, item: BatchItem) -> str:
    question = item.question()
    turn = Turn("", question.at())
    asked = question.asked(item.symbol, TIMEFRAMES[item.timeframe])
    page = await page_of(bar_reads(request), pinned, _page(asked, question, turn))
    facts: dict[str, Any] = {"pagination": None, "timeframe": item.timeframe, "symbol": item.symbol, "error": None}
    if len(page.bars):
        # its next page is asked for by time: the newest bar it lacks begins before the oldest it has
        pagination = pagination_of(request, question, pinned, page, turn)
        facts["pagination"] = {**pagination, "next_cursor": None}
    else:
        facts["error"] = _nothing(item.timeframe, item.symbol).detail
    texts = ohlcv_texts(page.bars, item.timeframe, numbers=False)
    success = json.dumps(bool(texts))
    return f'{{"success":{success},"data":[{",".join(texts)}],{json.dumps(facts, separators=(",", ":"))[1:]}'


async def _health(request: Request) -> Response:
    reads = backend(request).reads
    pinned = await reads.pin(TRADES)
    health = await health_of(reads, pinned, bar_reads(request).rules.zones)
    return Response(health.model_dump_json(), 200, {"Cache-Control": "no-store"}, "application/json")


def _page(asked: BarsAsked, question: OhlcvQuestion | BarsQuestion, turn: Turn) -> Asked:
    after = None if turn.after is None else (int(turn.after[0]), int(turn.after[1]), str(turn.after[2]))
    return Asked(asked, question.descending, question.limit, after, question.count)


def _trades_on(request: Request, exchange: str, day: date) -> bool:
    """Whether an exchange trades on a date: always, where no feed knows its calendar."""
    calendars = [feed.sessions for feed in request.app.state.feeds if feed.exchange == exchange]
    return all(sessions is None or sessions.days.is_open(day) for sessions in calendars)


def _refuse_large(items: list[BatchItem]) -> None:
    if not items:
        raise Problem(400, "INVALID_REQUEST", "a batch has at least one question")
    if len(items) > BATCH_ITEMS_MAX:
        raise Problem(400, "TOO_MANY_REQUESTS", f"a batch has {BATCH_ITEMS_MAX} questions at most")
    if sum(item.limit for item in items) > BATCH_BARS_MAX:
        raise Problem(400, "RESOURCE_LIMIT_EXCEEDED", f"the limits of a batch add up to {BATCH_BARS_MAX} at most")


def _nothing(timeframe: str, symbol: str) -> Problem:
    return Problem(404, "NOT_FOUND", f"no {timeframe} bars of {symbol} in that range")
