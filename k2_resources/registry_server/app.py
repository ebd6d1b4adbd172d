"""The HTTP side."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from k2_resources.registry_server.schemas import Refused, valid_text
from k2_resources.registry_server.store import GLOBAL, SchemaStore

HOST = "127.0.0.1"
LEVELS = ("NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE")
_BODY_BYTES_MAX = 1 << 20
"""A schema of a thousand fields has about 100 kB."""
_ID_MAX = 2**31 - 1
"""Four bytes of the wire format, signed as Java reads them."""
_STOP_SECONDS = 2


class Answer(JSONResponse):
    """JSON with the media type clients of a schema registry ask for."""

    media_type = "application/vnd.schemaregistry.v1+json"


async def _document(request: Request) -> dict[str, Any]:
    """The JSON object of a request body."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_BYTES_MAX:
            raise Refused(413, f"Request body is larger than {_BODY_BYTES_MAX} bytes")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"Request body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Refused(400, "Request body must be a JSON object")
    return document


def _store(request: Request) -> SchemaStore:
    store: SchemaStore = request.app.state.store
    return store


def _subject(request: Request) -> str:
    subject = unquote(request.path_params.get("subject", ""), errors="replace")
    if not subject.strip() or not subject.isprintable():
        raise Refused(42208, f"Invalid subject {subject[:100]!r}")
    return subject


def _version(request: Request, versions: list[int]) -> int:
    """The version in the path, one of those that exist: a number, `latest` or -1."""
    said = request.path_params["version"]
    if said in ("latest", "-1"):
        return versions[-1]
    if not (said.isascii() and said.isdigit() and 1 <= int(said[:11]) <= _ID_MAX):
        raise Refused(42202, f"The specified version '{said[:50]}' is not a valid version id. Allowed values are "
                             'between [1, 2^31-1] and the string "latest"')  # fmt: skip
    if int(said) not in versions:
        raise Refused(40402, f"Version {said} not found.")
    return int(said)


def _schema_id(request: Request) -> int:
    said = request.path_params["id"]
    if not (said.isascii() and said.isdigit() and int(said[:11]) <= _ID_MAX):
        raise Refused(40403, f"Schema {said[:50]} not found")
    return int(said)


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() == "true"


async def register(request: Request) -> Any:
    subject, document = _subject(request), await _document(request)
    if document.get("id") not in (None, -1, 0):
        raise Refused(42205, f"Subject '{subject}' is not in import mode: ids are given by the registry")
    return {"id": _store(request).register(subject, valid_text(document))}


async def lookup(request: Request) -> Any:
    return _store(request).lookup(_subject(request), valid_text(await _document(request)))


async def subjects(request: Request) -> Any:
    prefix = request.query_params.get("subjectPrefix", "")
    return [subject for subject in _store(request).subjects() if subject.startswith(prefix)]


async def versions(request: Request) -> Any:
    return _store(request).existing_versions(_subject(request))


async def version(request: Request) -> Any:
    store, subject = _store(request), _subject(request)
    return store.version(subject, _version(request, store.existing_versions(subject)))


async def version_schema(request: Request) -> Any:
    return json.loads((await version(request))["schema"])


async def schema_by_id(request: Request) -> Any:
    answer: dict[str, Any] = {"schema": _store(request).text(_schema_id(request))}
    return {**answer, "maxId": _store(request).id_max()} if _flag(request, "fetchMaxId") else answer


async def schema_text(request: Request) -> Any:
    return json.loads(_store(request).text(_schema_id(request)))


async def schema_subjects(request: Request) -> Any:
    return sorted({use["subject"] for use in _store(request).uses(_schema_id(request))})


async def schema_versions(request: Request) -> Any:
    return _store(request).uses(_schema_id(request))


async def compatibility(request: Request) -> Any:
    store, subject = _store(request), _subject(request)
    text = valid_text(await _document(request))
    compared = store.versions(subject)
    if request.path_params.get("version", "latest") not in ("latest", "-1"):
        compared = [_version(request, store.existing_versions(subject))]
    elif "version" in request.path_params:
        compared = compared[-1:]
    reasons = store.conflicts(subject, text, compared)
    answer: dict[str, Any] = {"is_compatible": not reasons}
    return {**answer, "messages": reasons} if _flag(request, "verbose") else answer


async def get_level(request: Request) -> Any:
    return {"compatibilityLevel": _store(request).level()}


async def get_subject_level(request: Request) -> Any:
    store, subject = _store(request), _subject(request)
    level = store.level(subject) if _flag(request, "defaultToGlobal") else store.own_level(subject)
    if level is None:
        raise Refused(40408, f"Subject '{subject}' does not have subject-level compatibility configured")
    return {"compatibilityLevel": level}


async def set_level(request: Request) -> Any:
    subject = _subject(request) if "subject" in request.path_params else GLOBAL
    level = (await _document(request)).get("compatibility")
    if not isinstance(level, str) or level.upper() not in LEVELS:
        raise Refused(42203, f"Invalid compatibility level {str(level)[:50]!r}. Valid values are {', '.join(LEVELS)}")
    _store(request).set_level(subject, level.upper())
    return {"compatibility": level.upper()}


async def set_mode(request: Request) -> Any:
    mode = (await _document(request)).get("mode")
    if mode != "READWRITE":
        raise Refused(42204, f"Invalid mode {str(mode)[:50]!r}: this registry is always READWRITE")
    return {"mode": mode}


def _always(answer: Any) -> Callable[[Request], Awaitable[Any]]:
    async def endpoint(_request: Request) -> Any:
        return answer

    return endpoint


async def never_deleted(_request: Request) -> Any:
    raise Refused(405, "Nothing is deleted here: stored records name their schema ids for ever")


_ENDPOINTS: tuple[tuple[str, str, Callable[[Request], Awaitable[Any]]], ...] = (
    ("GET", "/", _always({})),
    ("GET", "/subjects", subjects),
    ("POST", "/subjects/{subject}", lookup),
    ("GET", "/subjects/{subject}/versions", versions),
    ("POST", "/subjects/{subject}/versions", register),
    ("GET", "/subjects/{subject}/versions/{version}", version),
    ("GET", "/subjects/{subject}/versions/{version}/schema", version_schema),
    ("GET", "/subjects/{subject}/versions/{version}/referencedby", _always([])),
    ("GET", "/schemas/types", _always(["AVRO"])),
    ("GET", "/schemas/ids/{id}", schema_by_id),
    ("GET", "/schemas/ids/{id}/schema", schema_text),
    ("GET", "/schemas/ids/{id}/subjects", schema_subjects),
    ("GET", "/schemas/ids/{id}/versions", schema_versions),
    ("POST", "/compatibility/subjects/{subject}/versions", compatibility),
    ("POST", "/compatibility/subjects/{subject}/versions/{version}", compatibility),
    ("GET", "/config", get_level),
    ("PUT", "/config", set_level),
    ("GET", "/config/{subject}", get_subject_level),
    ("PUT", "/config/{subject}", set_level),
    ("GET", "/mode", _always({"mode": "READWRITE"})),
    ("PUT", "/mode", set_mode),
    ("GET", "/mode/{subject}", _always({"mode": "READWRITE"})),
    ("GET", "/contexts", _always(["."])),
    ("DELETE", "/subjects/{subject}", never_deleted),
    ("DELETE", "/subjects/{subject}/versions/{version}", never_deleted),
    ("DELETE", "/config", never_deleted),
    ("DELETE", "/config/{subject}", never_deleted),
    ("DELETE", "/mode/{subject}", never_deleted),
)


def app(file: Path) -> ASGIApp:
    """Build the registry over one SQLite file."""
    routes = [Route(path, _answering(endpoint), methods=[method]) for method, path, endpoint in _ENDPOINTS]
    starlette = Starlette(routes=routes, exception_handlers={Refused: _refused, HTTPException: _http_refused})
    starlette.state.store = SchemaStore(file)

    async def undecoded(scope: Scope, receive: Receive, send: Send) -> None:
        # a subject may contain an encoded slash: routes match the path as it was sent, names are decoded after
        if scope["type"] == "http":
            scope = {**scope, "path": scope["raw_path"].decode("latin-1").partition("?")[0]}
        await starlette(scope, receive, send)

    return undecoded


def _answering(endpoint: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Answer]]:
    async def respond(request: Request) -> Answer:
        return Answer(await endpoint(request))

    return respond


async def _refused(_request: Request, error: Exception) -> Answer:
    code = error.code if isinstance(error, Refused) else 500
    return Answer({"error_code": code, "message": str(error)}, status_code=int(str(code)[:3]))


async def _http_refused(_request: Request, error: Exception) -> Answer:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return Answer(
        {"error_code": status, "message": f"HTTP {status} {getattr(error, 'detail', error)}"}, status_code=status
    )


def serve(home: Path, port: int) -> None:
    """Serve the registry of a home on loopback until SIGTERM or SIGINT."""
    uvicorn.run(
        app(home / "registry.db"),
        host=HOST,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
