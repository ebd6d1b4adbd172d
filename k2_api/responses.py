"""Answers: the envelope around rows, the headers that say which state they show, and what happens when nobody waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request, Response

from k2_api.cursors import Cursor, CursorBox, digest
from k2_api.models import Question
from k2_api.problems import CLIENT_GONE, Problem
from k2_api.reads import Page, Pinned, Reads
from k2_core.contracts import CONTRACT_VERSION, Table
from k2_core.windows import iso
from k2_resources.clock import now
from k2_resources.duck import QueryTimeout

AnyQuestion = TypeVar("AnyQuestion", bound=Question)
Read = Callable[[Pinned, AnyQuestion, tuple[Any, ...] | None], Awaitable[Page]]


@dataclass(frozen=True)
class Backend:
    """What every route reaches: the reads, the cursors, and how long one request may take."""

    reads: Reads
    cursors: CursorBox
    seconds_max: float


def backend(request: Request) -> Backend:
    """The backend of the app a request came to."""
    found: Backend = request.app.state.backend
    return found


async def respond(
    request: Request, table: Table, question: AnyQuestion, read: Read[AnyQuestion], **facts: str
) -> Response:
    """Answer one page of rows with their envelope. facts: further members of the envelope, of the original platform."""
    return await unless_gone(request, _page(request, table, question, read, facts))


async def unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Do the work of a request, and stop it, queries included, when the client leaves or the deadline passes."""
    seconds = backend(request).seconds_max
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        done, _ = await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        if gone in done:
            raise Problem(CLIENT_GONE, "CLIENT_CLOSED_REQUEST", "the client closed the connection")
        raise QueryTimeout(f"the request took longer than {seconds:g} s")
    finally:
        task.cancel()
        gone.cancel()


def data_response(request: Request, pinned: tuple[Pinned, ...], rows: list[str], **members: Any) -> Response:
    """Wrap rows, already JSON, in the envelope: success, data, the given members, meta."""
    meta = {"correlation_id": request.state.correlation_id, "timestamp": _as_of(pinned)}
    tail = json.dumps({**members, "meta": meta}, separators=(",", ":"))
    body = f'{{"success":true,"data":[{",".join(rows)}],{tail[1:]}'
    headers = {**_headers(request, pinned), "K2-Row-Count": str(len(rows))}
    return Response(body.encode(), 200, headers, "application/json")


def not_modified(request: Request, pinned: tuple[Pinned, ...]) -> Response | None:
    """A 304 when the client holds this answer already, else None.

    The tag names state and question; the one member outside of it is meta.correlation_id.
    """
    headers = _headers(request, pinned)
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")}
    return Response(None, 304, headers) if known & {headers["ETag"], "*"} else None


async def _page(
    request: Request, table: Table, question: AnyQuestion, read: Read[AnyQuestion], facts: Mapping[str, str]
) -> Response:
    box, reads = backend(request).cursors, backend(request).reads
    asked = digest(table.name, request.url.path, question.filters())
    cursor = None if question.cursor is None else box.open(question.cursor, asked)
    pinned = await reads.pin(table, cursor.snapshot_id if cursor else None)
    request.state.canonical = question.model_dump_json()
    if unchanged := not_modified(request, (pinned,)):
        return unchanged
    page = await read(pinned, question, cursor.key if cursor else None)
    if facts and not page.rows and cursor is None:
        raise Problem(404, "NOT_FOUND", f"no {facts['timeframe']} bars of {facts['symbol']} in that range")
    offset = cursor.offset if cursor else 0
    following = _following(asked, pinned, page, offset)
    pagination = {
        "limit": question.limit,
        "offset": offset,
        "total": page.total,
        "has_more": following is not None,
        "next_cursor": following and box.seal(following),
    }
    if facts:
        facts = {**facts, "timestamp": _as_of((pinned,))}
    return data_response(request, (pinned,), page.rows, pagination=pagination, **facts)


def _following(asked: str, pinned: Pinned, page: Page, offset: int) -> Cursor | None:
    if page.next_key is None or pinned.state is None or pinned.state.snapshot_id is None:
        return None
    return Cursor(asked, pinned.state.snapshot_id, pinned.version, page.next_key, offset + len(page.rows))


def _headers(request: Request, pinned: tuple[Pinned, ...]) -> dict[str, str]:
    snapshots = [str(p.state.snapshot_id) for p in pinned if p.state and p.state.snapshot_id is not None]
    version = pinned[0].version if len(pinned) == 1 else digest(*(p.version for p in pinned))
    canonical = getattr(request.state, "canonical", "")
    tables = ",".join(p.table.name for p in pinned)
    tag = digest(CONTRACT_VERSION, version, tables, request.url.path, canonical)
    headers = {"K2-Version": version, "ETag": f'"{tag}"', "Cache-Control": "no-cache"}
    return {**headers, "K2-Snapshot-Id": ",".join(snapshots)} if snapshots else headers


def _as_of(pinned: tuple[Pinned, ...]) -> str:
    commits = [p.state.commit_time for p in pinned if p.state and p.state.commit_time]
    return iso(max(commits, default=now()))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
