"""Quotes as of instants, and trades beside the quote that stood when they were printed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from k2_api.cursors import Cursor, digest
from k2_api.models import parse_instant
from k2_api.pinning import Pinned
from k2_api.prevailing import Moment, QuoteBook, Standing
from k2_api.prevailing_models import AsOfAnswer, AsOfQuestion, WithQuotesAnswer, WithQuotesQuestion
from k2_api.problems import documented
from k2_api.questions import At
from k2_api.responses import backend, data_response, not_modified, unless_gone
from k2_core.contracts import QUOTES, TRADES
from k2_core.windows import iso, to_us

router = APIRouter(prefix="/v1", tags=["quotes"])


@router.get("/quotes/as-of", responses={200: {"model": AsOfAnswer}, **documented(404, 410, 422, 504)})
async def as_of(request: Request, question: Annotated[AsOfQuestion, Query()]) -> Response:
    """The quote that stood at each instant: the last one at or before it, per exchange."""
    return await unless_gone(request, _as_of(request, question))


@router.get("/trades/with-quotes", responses={200: {"model": WithQuotesAnswer}, **documented(400, 404, 410, 422, 504)})
async def with_quotes(request: Request, question: Annotated[WithQuotesQuestion, Query()]) -> Response:
    """Trades of one symbol, each with the quote of its exchange that stood when it was printed."""
    return await unless_gone(request, _with_quotes(request, question))


async def _as_of(request: Request, question: AsOfQuestion) -> Response:
    reads = backend(request).reads
    pinned = await reads.pin(QUOTES, question.state())
    request.state.canonical = question.model_dump_json()
    if unchanged := not_modified(request, (pinned,)):
        return unchanged
    listed = sorted(venue for venue, symbol in await reads.listings(pinned) if symbol == question.symbol)
    venues = [venue for venue in listed if question.exchange in (None, venue)]
    moments = [Moment(venue, to_us(at)) for at in question.at for venue in venues]
    book = QuoteBook(pinned, question.symbol, question.age_us_max, question.decimals)
    stood = await book.at(reads.duck, moments)
    asked = [iso(at) for at in question.at for _ in venues]
    rows = [
        f'{{"at":"{at}","exchange":{json.dumps(moment.exchange)},"age_us":{_age(quote)},"quote":{_json(quote)}}}'
        for at, moment, quote in zip(asked, moments, stood, strict=True)
    ]
    return data_response(request, (pinned,), rows)


async def _with_quotes(request: Request, question: WithQuotesQuestion) -> Response:
    state = backend(request)
    asked = digest(request.url.path, question.filters())
    cursor = None if question.cursor is None else state.cursors.open(question.cursor, asked)
    trades, quotes = await _pinned(request, question, cursor)
    request.state.canonical = question.model_dump_json()
    if unchanged := not_modified(request, (trades, quotes)):
        return unchanged
    page = await state.reads.page(trades, question.ticks(), cursor.key[1:] if cursor else None)
    book = QuoteBook(quotes, question.symbol, question.age_us_max, question.decimals)
    stood = await book.at(state.reads.duck, [_moment(text, question) for text in page.rows])
    offset = cursor.offset if cursor else 0
    following = None
    if page.next_key is not None:
        key = (quotes.version if quotes.state else "", *page.next_key)
        following = state.cursors.seal(Cursor(asked, trades.version, key, offset + len(page.rows)))
    pagination = {
        "limit": question.limit,
        "offset": offset,
        "total": None,
        "has_more": following is not None,
        "next_cursor": following,
    }
    rows = [_beside(text, quote, question) for text, quote in zip(page.rows, stood, strict=True)]
    return data_response(request, (trades, quotes), rows, pagination=pagination)


async def _pinned(request: Request, question: WithQuotesQuestion, cursor: Cursor | None) -> tuple[Pinned, Pinned]:
    """Trades and quotes: as the cursor pins them, else as the question says."""
    reads = backend(request).reads
    if cursor is None:
        return await reads.pin(TRADES, question.state()), await reads.pin(QUOTES, question.state())
    version = str(cursor.key[0])
    # an empty version: there was no quote yet when the first page was asked for
    quotes = await reads.pin(QUOTES, At(version=version)) if version else Pinned(QUOTES, None, ())
    return await reads.pin(TRADES, At(version=cursor.version)), quotes


def _moment(trade: str, question: WithQuotesQuestion) -> Moment:
    row = json.loads(trade)
    at_us = to_us(parse_instant(row["timestamp"]))  # type: ignore[arg-type]  # text, as DuckDB writes it
    return Moment(row["exchange"], at_us - (question.quote_at == "before"))


def _beside(trade: str, quote: Standing | None, question: WithQuotesQuestion) -> str:
    """A trade's JSON with its quote behind it."""
    if quote is not None and question.quote_at == "before":
        quote = replace(quote, age_us=quote.age_us + 1)
    return f'{trade[:-1]},"quote_age_us":{_age(quote)},"quote":{_json(quote)}}}'


def _age(quote: Standing | None) -> str:
    return "null" if quote is None else str(quote.age_us)


def _json(quote: Standing | None) -> str:
    return "null" if quote is None else quote.json
