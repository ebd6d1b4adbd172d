"""Replay."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from k2_api.models import ReplayAnswer
from k2_api.problems import documented
from k2_api.replays import replayed
from k2_api.tick_models import ReplayQuestion

router = APIRouter(prefix="/v1", tags=["replay"])


@router.post("/replay", responses={200: {"model": ReplayAnswer}, **documented(400, 404, 410, 413, 422, 504)})
async def replay(request: Request, question: ReplayQuestion) -> Response:
    """A range in chronological order, batch by batch: all of one version, whatever is committed meanwhile."""
    return await replayed(request, question)
