"""The store in a few numbers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from k2_api.dataset_models import StatsAnswer
from k2_api.ledger_pages import told_response
from k2_api.problems import documented
from k2_api.reads import Pinned, Reads
from k2_api.responses import backend, not_modified, unless_gone
from k2_core.contracts import QUOTES, TRADES
from k2_core.errors import K2Error
from k2_resources.duck import parquet_paths, statement

router = APIRouter(prefix="/v1", tags=["reference"])


@router.get("/stats", responses={200: {"model": StatsAnswer}, **documented(422, 504)})
async def stats(request: Request) -> Response:
    """How many trades and quotes there are, and where they lie. A store that does not answer is said, not a failure."""
    return await unless_gone(request, _stats(request))


async def _stats(request: Request) -> Response:
    reads, told = backend(request).reads, _about(request)
    try:
        await reads.duck.query(statement("alive"), {})
        told["connection_active"] = True
        pinned = (await reads.pin(TRADES), await reads.pin(QUOTES))
        if unchanged := not_modified(request, pinned):
            return unchanged
        told["trades_count"], told["quotes_count"] = [await messages(reads, at) for at in pinned]
    except K2Error as error:
        answer = told_response(request, (), {**told, "error": error.code})
        answer.headers["Cache-Control"] = "no-store"
        return answer
    return told_response(request, pinned, told)


async def messages(reads: Reads, pinned: Pinned) -> int:
    """How many messages a head holds, each once: files without a revision need no look inside."""
    revised = [file.path for file in pinned.files if file.revised]
    known = sum(file.rows for file in pinned.files if not file.revised)
    if not revised:
        return known
    rows = await reads.duck.query(statement("first_revisions"), {"files": parquet_paths(revised)})
    return known + int(rows["messages"][0].as_py())


def _about(request: Request) -> dict[str, Any]:
    warehouse: str = request.app.state.settings.warehouse_path()
    empty = dict.fromkeys(("trades_count", "quotes_count", "error"))
    return {"s3_endpoint": "", "warehouse_path": warehouse, "connection_active": False, **empty}
