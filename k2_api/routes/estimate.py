"""What a question would cost, before it is asked."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from k2_api.dataset_models import EstimateAnswer, EstimateQuestion
from k2_api.ledger_pages import told_response
from k2_api.problems import documented
from k2_api.responses import backend, unless_gone
from k2_core.contracts import table_named

router = APIRouter(prefix="/v1", tags=["reference"])


@router.post("/estimate", responses={200: {"model": EstimateAnswer}, **documented(404, 410, 413, 422, 504)})
async def estimate(request: Request, question: EstimateQuestion) -> Response:
    """Rows, bytes and files a question would read, told from the plan: nothing is read for it."""
    return await unless_gone(request, _estimate(request, question))


async def _estimate(request: Request, question: EstimateQuestion) -> Response:
    reads = backend(request).reads
    pinned = await reads.pin(table_named(question.data_type), question.at())
    rows_max, size_bytes, files = reads.estimate(pinned, question.ticks())
    request.state.canonical = question.model_dump_json()
    return told_response(request, (pinned,), {"rows_max": rows_max, "bytes": size_bytes, "files": files})
