"""SQL of strangers: judged by what the engine parsed, run where it can harm nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from k2_api.cursors import digest
from k2_api.formats import FORMATS, Format, negotiated
from k2_api.pinning import Pinned
from k2_api.problems import Problem, documented
from k2_api.questions import At
from k2_api.responses import backend, unless_gone
from k2_api.sql_guard import tables_of
from k2_api.sql_models import SqlAnswered, SqlQuestion
from k2_api.sql_views import GRANTED, grant
from k2_api.sql_worker import SqlAnswer, SqlWorker
from k2_api.tick_answers import written
from k2_core.windows import iso
from k2_resources.clock import now
from k2_resources.settings import Settings
from k2_resources.sql_cell.wire import Job

router = APIRouter(prefix="/v1", tags=["sql"])


@router.post("/sql", responses={**written(SqlAnswered), **documented(404, 410, 413, 422, 429, 504)})
async def sql(request: Request, question: SqlQuestion) -> Response:
    """One SELECT over trades, quotes and instruments, read-only, under limits of time, memory and rows.

    Off unless K2_SQL is set, and for keys with the scope sql only. Functions that depend on more than the tables
    (the clock, random numbers, files) are not there: the same statement over the same versions has the same answer.
    """
    settings: Settings = request.app.state.settings
    if not settings.sql:
        raise Problem(403, "SQL_DISABLED", "statements are not answered here; an operator sets K2_SQL=true")
    if question.limit > settings.sql_rows_max:
        raise Problem(422, "VALIDATION_ERROR", f"limit: at most {settings.sql_rows_max} here")
    return await unless_gone(request, _answer(request, question, settings))


async def _answer(request: Request, question: SqlQuestion, settings: Settings) -> Response:
    worker: SqlWorker = request.app.state.sql
    chosen = negotiated(request.headers.get("Accept", "*/*"), question.format)
    async with worker.cell() as cell:
        named = tables_of(await cell.parse(question.sql), frozenset(GRANTED))
        pinned = await asyncio.gather(*(_pin(request, question, name) for name in sorted(named)))
        granted = grant(pinned, question.span, settings.sql_files_max)
        job = Job(granted.views, chosen.name, question.limit, settings.sql_bytes_max, len(granted.paths))
        answer = await cell.run(job, granted.paths)
    return _response(request, chosen, pinned, answer)


async def _pin(request: Request, question: SqlQuestion, name: str) -> Pinned:
    version = question.versions.get(name)  # type: ignore[call-overload]  # a granted name is one of its literals
    return await backend(request).reads.pin(GRANTED[name], At(version=version, as_of=question.as_of))


def _response(request: Request, chosen: Format, pinned: Sequence[Pinned], answer: SqlAnswer) -> Response:
    versions = {one.table.short_name: one.version for one in pinned}
    body = _envelope(request, pinned, versions, answer) if chosen is FORMATS["json"] else answer.body
    headers = {
        "Cache-Control": "no-store",
        "Content-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:",
        "K2-Row-Count": str(answer.rows),
        "K2-Truncated": str(answer.truncated).lower(),
        "K2-Version": next(iter(versions.values())) if len(versions) == 1 else digest(*versions.values()),
        "K2-Versions": ",".join(f"{name}={version}" for name, version in versions.items()),
    }
    return Response(body, 200, headers, chosen.media_type)


def _envelope(request: Request, pinned: Sequence[Pinned], versions: dict[str, str], answer: SqlAnswer) -> bytes:
    commits = [one.commit_time for one in pinned if one.commit_time]
    tail: dict[str, Any] = {
        "columns": [{"name": name, "type": kind} for name, kind in answer.columns],
        "truncated": answer.truncated,
        "meta": {
            "correlation_id": request.state.correlation_id,
            "timestamp": iso(max(commits, default=now())),
            "versions": versions,
        },
    }
    rest = json.dumps(tail, separators=(",", ":"))
    return b"".join((b'{"success":true,"data":', answer.body, b",", rest[1:].encode()))
