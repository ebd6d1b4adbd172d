"""What there is to ask for."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from k2_api.models import SymbolsAnswer
from k2_api.problems import documented
from k2_api.responses import backend, data_response, not_modified, unless_gone
from k2_core.contracts import QUOTES, TRADES

router = APIRouter(prefix="/v1", tags=["reference"])


@router.get("/symbols", responses={200: {"model": SymbolsAnswer}, **documented(422, 504)})
async def symbols(
    request: Request, exchange: Annotated[str | None, Query(description="Exchange; empty = all.")] = None
) -> Response:
    """Every symbol that has a trade or a quote, sorted."""
    return await unless_gone(request, _symbols(request, exchange))


async def _symbols(request: Request, exchange: str | None) -> Response:
    reads = backend(request).reads
    pinned = (await reads.pin(TRADES), await reads.pin(QUOTES))
    request.state.canonical = json.dumps(exchange)
    if unchanged := not_modified(request, pinned):
        return unchanged
    return data_response(request, pinned, [json.dumps(s) for s in await reads.symbols(pinned, exchange)])
