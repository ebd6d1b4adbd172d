"""Replays: a range of one version, oldest first, batch by batch; the first batch counts the rows of all."""

from __future__ import annotations

import json

from fastapi import Request, Response

from k2_api.cursors import Cursor, digest
from k2_api.questions import At, Ticks
from k2_api.reads import Pinned
from k2_api.responses import Data, backend, cached, unless_gone
from k2_api.tick_models import ReplayQuestion
from k2_core.contracts import QUOTES, TRADES, Table

_TABLES = {table.short_name: table for table in (TRADES, QUOTES)}


async def replayed(request: Request, question: ReplayQuestion) -> Response:
    """Answer with the next batch. Raises Problem."""
    return await unless_gone(request, _batch(request, question))


async def _batch(request: Request, question: ReplayQuestion) -> Response:
    state = backend(request)
    table, ticks = _TABLES[question.data_type], question.ticks()
    asked = _question(table, ticks)
    cursor = None if question.cursor is None else state.cursors.open(question.cursor, asked)
    at = At(version=cursor.version) if cursor else At(snapshot_id=question.snapshot_id)
    pinned = await state.reads.pin(table, at)
    position = cursor or Cursor(asked, pinned.version, (), 0)

    async def data() -> Data:
        return await _data(request, pinned, ticks, position)

    return await cached(request, (pinned,), json.dumps((asked, position.key, position.offset)), data)


async def _data(request: Request, pinned: Pinned, ticks: Ticks, position: Cursor) -> Data:
    state = backend(request)
    total = position.total if position.total is not None else await state.reads.count(pinned, ticks)
    page = await state.reads.page(pinned, ticks, position.key or None)
    seen = position.offset + len(page.rows)
    following = None
    if page.next_key is not None:
        following = state.cursors.seal(Cursor(position.question, pinned.version, page.next_key, seen, total))
    assert ticks.limit is not None, "a batch has an end"
    batch = {
        "batch_number": position.offset // ticks.limit + 1,
        "batch_size": len(page.rows),
        "total_records": total,
        "progress_percent": round(100 * seen / total, 2) if total else 100.0,
    }
    return Data(page.rows, {"cursor": following, "batch_info": batch})


def _question(table: Table, ticks: Ticks) -> str:
    """Digest of the replay: its batches are numbered, so their size may not change on the way."""
    return digest("replay", table.name, repr(ticks))
