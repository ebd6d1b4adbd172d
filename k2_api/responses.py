"""Answers: the envelope around rows, the headers that say which state they show, and what happens when nobody waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response

from k2_api.cache import POLICY_DIGEST, AnswerCache, Body
from k2_api.cursors import CursorBox, digest
from k2_api.problems import CLIENT_GONE, Problem, invalid
from k2_api.reads import Pinned, Reads
from k2_api.streams import Places, disconnected
from k2_core.contracts import CONTRACT_VERSION
from k2_core.windows import iso
from k2_resources.clock import now
from k2_resources.duck import QueryTimeout

CACHE_BYTES_MAX = 128 << 20
"""Bytes of answers kept where nobody says otherwise: some 500 pages of 1,000 rows."""
STREAMS_MAX = 16
"""Answers streamed at a time where nobody says otherwise."""
STREAM_SECONDS_MAX = 1800.0
"""How long one may take: half of the time for which files nothing refers to are kept."""
OPENING = b'{"success":true,"data":['
PATIENCE = "K2-Timeout-Seconds"
_NO_PATIENCE = "expected seconds, more than none"
_IMMUTABLE = "private, max-age=31536000, immutable"


@dataclass(frozen=True)
class Backend:
    """What every route reaches: the reads, the cursors, the answers kept, and how long one request may take."""

    reads: Reads
    cursors: CursorBox
    seconds_max: float
    cache: AnswerCache = field(default_factory=lambda: AnswerCache(CACHE_BYTES_MAX))
    places: Places = field(default_factory=lambda: Places(STREAMS_MAX))
    stream_seconds_max: float = STREAM_SECONDS_MAX


@dataclass(frozen=True)
class Data:
    """What an answer says, as JSON texts: rows, and further members of the envelope."""

    rows: list[str]
    members: Mapping[str, Any] = field(default_factory=dict)


def backend(request: Request) -> Backend:
    """The backend of the app a request came to."""
    found: Backend = request.app.state.backend
    return found


def patience_seconds(request: Request) -> float:
    """How long a request may take: as its client wants, but never longer than the server allows. Raises Problem 422."""
    text, longest = request.headers.get(PATIENCE), backend(request).seconds_max
    if text is None:
        return longest
    try:
        wanted = float(text) if text.isascii() else 0.0
    except ValueError:
        wanted = 0.0
    if not wanted > 0:
        finding = {"parameter": PATIENCE, "in": "header", "pointer": f"/header/{PATIENCE}", "detail": _NO_PATIENCE}
        raise invalid([finding])
    return min(wanted, longest)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Do the work of a request, and stop it, queries included, when the client leaves or the deadline passes."""
    try:
        seconds = patience_seconds(request)
    except Problem:
        work.close()
        raise
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnected(request.receive))
    try:
        done, _ = await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        if gone in done:
            raise Problem(CLIENT_GONE, "CLIENT_CLOSED_REQUEST", "the client closed the connection")
        if seconds < backend(request).seconds_max:
            raise Problem(408, "TIMEOUT", f"the answer took longer than {seconds:g} s, the time you gave it")
        raise QueryTimeout(f"the request took longer than {seconds:g} s")
    finally:
        task.cancel()
        gone.cancel()


async def cached(
    request: Request, pinned: tuple[Pinned, ...], canonical: str, make: Callable[[], Awaitable[Data]]
) -> Response:
    """Answer what was asked of some states, made at most once for all who ask, or 304 when the client holds it.

    canonical: everything the answer depends on, beside the path and the states. make: raises Problem where there is
    none; that is not kept.
    """
    request.state.canonical = canonical
    if unchanged := not_modified(request, pinned):
        return unchanged
    headers = state_headers(request, pinned)

    async def body() -> Body:
        data = await make()
        head, tail = enveloped(pinned, data.rows, data.members)
        return Body(head, tail, len(data.rows))

    is_kept = all(p.commit_time is not None for p in pinned)  # what a lake without a commit says has the time of asking
    key = digest(POLICY_DIGEST, request.method, headers["ETag"])
    found = await (backend(request).cache.get(key, body) if is_kept else body())
    headers["K2-Row-Count"] = str(found.rows)
    return Response(found.of(request.state.correlation_id), 200, headers, "application/json")


def data_response(request: Request, pinned: tuple[Pinned, ...], rows: list[str], **members: Any) -> Response:
    """Wrap rows, already JSON, in the envelope: success, data, the given members, meta."""
    head, tail = enveloped(pinned, rows, members)
    headers = {**state_headers(request, pinned), "K2-Row-Count": str(len(rows))}
    body = Body(head, tail).of(request.state.correlation_id)
    return Response(body, 200, headers, "application/json")


def object_response(request: Request, pinned: tuple[Pinned, ...], text: str) -> Response:
    """Wrap one object instead of rows. text: its JSON."""
    head, tail = enveloped(pinned, [], {})
    body = Body(head.replace(b'"data":[]', b'"data":' + text.encode(), 1), tail).of(request.state.correlation_id)
    return Response(body, 200, state_headers(request, pinned), "application/json")


def enveloped(pinned: tuple[Pinned, ...], rows: list[str], members: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The envelope around rows, as what stands before and after the correlation id of a request."""
    close, tail = closing(pinned, members)
    return b"".join((OPENING, ",".join(rows).encode(), close)), tail


def closing(pinned: tuple[Pinned, ...], members: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """What stands after the rows in the envelope, as what is before and after the correlation id.

    members: further ones of the envelope; those of a member `meta` join the meta of every answer.
    """
    meta = {"timestamp": commit_text(pinned), **members.get("meta", {})}
    others = _inside({name: value for name, value in members.items() if name != "meta"})
    lead = f"],{others}," if others else "],"
    return f'{lead}"meta":{{"correlation_id":"'.encode(), f'",{_inside(meta)}}}}}'.encode()


def not_modified(request: Request, pinned: tuple[Pinned, ...]) -> Response | None:
    """A 304 when the client holds this answer already, else None; only of a GET there is one to hold.

    The tag names state and question; the one member outside of it is meta.correlation_id.
    """
    headers = state_headers(request, pinned)
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")}
    if request.method != "GET" or not known & {headers["ETag"], "*"}:
        return None
    return Response(None, 304, headers)


def state_headers(request: Request, pinned: tuple[Pinned, ...]) -> dict[str, str]:
    """Which states an answer shows, its tag, and how long it may be kept: for ever where the states were named."""
    snapshots = [str(p.snapshot_id) for p in pinned if p.snapshot_id is not None]
    version = pinned[0].version if len(pinned) == 1 else digest(*(p.version for p in pinned))
    canonical = getattr(request.state, "canonical", "")
    tables = ",".join(p.table.name for p in pinned)
    tag = digest(CONTRACT_VERSION, POLICY_DIGEST, version, tables, request.url.path, canonical)
    headers = {"K2-Version": version, "ETag": f'"{tag}"', "Cache-Control": _kept(request, pinned), "Vary": "Accept"}
    if snapshots:
        headers["K2-Snapshot-Id"] = ",".join(snapshots)
    if any(p.is_provisional for p in pinned):
        headers["K2-Provisional"] = "true"
    return headers


def commit_text(pinned: tuple[Pinned, ...]) -> str:
    """When the newest of some states was committed; now, where none ever was."""
    commits = [p.commit_time for p in pinned if p.commit_time]
    return iso(max(commits, default=now()))


def _kept(request: Request, pinned: tuple[Pinned, ...]) -> str:
    if request.method != "GET":
        return "no-store"
    return _IMMUTABLE if pinned and all(p.is_fixed for p in pinned) else "no-cache"


def _inside(members: Mapping[str, Any]) -> str:
    return json.dumps(members, separators=(",", ":"))[1:-1]


def describe_patience(paths: Mapping[str, Any]) -> None:
    """Add the header to every operation of an OpenAPI document that may take its time."""
    about = {
        "name": PATIENCE,
        "in": "header",
        "required": False,
        "schema": {"type": "number", "exclusiveMinimum": 0},
        "description": "Give up after so many seconds; the server's own deadline stands.",
    }
    for path, operations in paths.items():
        for operation in operations.values() if path.startswith("/v1/") else ():
            operation.setdefault("parameters", []).append(about)
