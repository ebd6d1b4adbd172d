"""Gaps: holes in the ids of feeds whose ids have none."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from k2_api.ledger_models import GapAnswer, GapsAnswer, GapsQuestion
from k2_api.ledger_pages import Turn, entries_response, later, told_response, turn_of
from k2_api.ledgers import Row, gap_key, ledgers, newest_first
from k2_api.problems import Problem, documented
from k2_api.responses import not_modified, unless_gone
from k2_core.gap_ids import GapId
from k2_core.gap_states import is_settled

router = APIRouter(prefix="/v1", tags=["ledgers"])


@router.get("/gaps", responses={200: {"model": GapsAnswer}, **documented(400, 422, 504)})
async def gaps(request: Request, question: Annotated[GapsQuestion, Query()]) -> Response:
    """Holes in the ids of feeds, newest exchange date first, each with its state: the last word about its ids."""
    return await unless_gone(request, _gaps(request, question, turn_of(request, question)))


@router.get("/gaps/{gap_id:path}", responses={200: {"model": GapAnswer}, **documented(404, 422, 504)})
async def gap(
    request: Request,
    gap_id: Annotated[
        str,
        Path(description="feed:scope:session:first-last.", max_length=512, examples=["binance-trades:BTCUSDT:0:7-9"]),
    ],
) -> Response:
    """One gap with everything seen and stated of it, each oldest first."""
    return await unless_gone(request, _gap(request, gap_id))


async def _gaps(request: Request, question: GapsQuestion, turn: Turn) -> Response:
    ledger = await ledgers(request).gaps()
    if unchanged := not_modified(request, (ledger.at,)):
        return unchanged
    found = newest_first(gap for gap in ledger.of(question.state) if _is_meant(question, gap))
    entries = [(gap_key(gap), _shown(gap)) for gap in found]
    return entries_response(request, (ledger.at,), question, later(entries, turn), turn, total=len(entries))


async def _gap(request: Request, gap_id: str) -> Response:
    try:
        named = GapId.parse(gap_id)
    except ValueError:
        raise _unknown(gap_id) from None
    ledger = await ledgers(request).gaps()
    events = ledger.history(named)
    if not events:
        raise _unknown(gap_id)
    state = ledger.state_of(named)
    told = {
        "gap_id": gap_id,
        "feed": named.feed,
        "symbol": named.scope,
        "session": named.session,
        "first_id": named.first_id,
        "last_id": named.last_id,
        "size": named.size,
        "state": state,
        "is_settled": state is None or is_settled({"state": state}),
        "events": events,
    }
    return told_response(request, (ledger.at,), told)


def _is_meant(question: GapsQuestion, gap: Row) -> bool:
    asked = (question.feed, question.exchange, question.symbol, question.severity, question.is_settled)
    found = (gap["feed"], gap["exchange"], gap["scope"], gap["severity"], is_settled(gap))
    is_near = question.date_start <= gap["exchange_date"] < question.date_end
    return is_near and all(a is None or a == f for a, f in zip(asked, found, strict=True))


def _shown(gap: Row) -> Row:
    return {**gap, "is_settled": is_settled(gap)}


def _unknown(gap_id: str) -> Problem:
    return Problem(404, "NOT_FOUND", f"no gap {gap_id!r:.200}; /v1/gaps lists them")
