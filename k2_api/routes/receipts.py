"""Receipts: what every commit did, as it says itself."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from k2_api.ledger_models import ReceiptsAnswer, ReceiptsQuestion
from k2_api.ledger_pages import Turn, entries_response, turn_of
from k2_api.ledgers import Row, ledgers
from k2_api.problems import documented
from k2_api.responses import not_modified, unless_gone
from k2_core.contracts import RECEIPTS, table_named
from k2_core.windows import FIRST_US, LAST_US, from_us, to_us

router = APIRouter(prefix="/v1", tags=["ledgers"])


@router.get("/receipts", responses={200: {"model": ReceiptsAnswer}, **documented(400, 422, 504)})
async def receipts(request: Request, question: Annotated[ReceiptsQuestion, Query()]) -> Response:
    """Commits, newest first: the ranges each read, what became of every record, its files, and C after it."""
    return await unless_gone(request, _receipts(request, question, turn_of(request, question)))


async def _receipts(request: Request, question: ReceiptsQuestion, turn: Turn) -> Response:
    books = ledgers(request)
    at = await books.pin(RECEIPTS)
    if unchanged := not_modified(request, (at,)):
        return unchanged
    after = turn.after or (None,) * 4
    values = {
        "table": question.table and table_named(question.table).name,
        "kind": question.kind,
        "version": question.version,
        "snapshot": question.snapshot_id,
        "start": question.start_time or from_us(FIRST_US),
        "end": question.end_time or from_us(LAST_US),
        "date": question.exchange_date,
        **dict(zip(("after_us", "after_table", "after_uuid", "after_number"), after, strict=True)),
        "limit": question.limit + 1,
    }
    rows = await books.rows(at, "receipts", values)
    return entries_response(request, (at,), question, [(_key(row), _shown(row)) for row in rows], turn)


def _key(row: Row) -> tuple[int | str, ...]:
    return to_us(row["commit_time"]), row["table_name"], row["table_uuid"], row["sequence_number"]


def _shown(row: Row) -> Row:
    told = {column.name: row.get(column.name) for column in RECEIPTS.columns}
    return {**told, "snapshot_id_string": str(row["snapshot_id"])}
