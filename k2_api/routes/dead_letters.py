"""Dead letters: records that could not become rows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from k2_api.ledger_models import LettersAnswer, LettersQuestion
from k2_api.ledger_pages import Turn, entries_response, turn_of
from k2_api.ledgers import ledgers
from k2_api.letters import letter_key, letter_rows, letters_now
from k2_api.problems import documented
from k2_api.responses import not_modified, unless_gone
from k2_api.security import require_scope

router = APIRouter(prefix="/v1", tags=["ledgers"], dependencies=[Depends(require_scope("admin"))])


@router.get("/dead-letters", responses={200: {"model": LettersAnswer}, **documented(400, 422, 504)})
async def dead_letters(request: Request, question: Annotated[LettersQuestion, Query()]) -> Response:
    """Records no table could take, newest first, with their reason and how they stand. Needs the scope admin."""
    return await unless_gone(request, _letters(request, question, turn_of(request, question)))


async def _letters(request: Request, question: LettersQuestion, turn: Turn) -> Response:
    books = ledgers(request)
    state = await letters_now(books)
    if unchanged := not_modified(request, state.pinned):
        return unchanged
    rows = await letter_rows(books, state, question, turn.after)
    return entries_response(request, state.pinned, question, [(letter_key(row), row) for row in rows], turn)
