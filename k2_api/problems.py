"""Problems as RFC 9457 documents, with the error words the original platform's clients match on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from k2_core.errors import Damaged, K2Error, NotFound, Unreachable
from k2_resources.duck import QueryRefused, QueryStopped, QueryTimeout, QueryTooLarge

LOG = logging.getLogger("k2.api")
MEDIA_TYPE = "application/problem+json"
CLIENT_GONE = 499
"""The client closed the connection; nobody reads the answer, but the metrics count it."""


@dataclass(eq=False)
class Problem(Exception):
    """What went wrong with one request, in words that name nothing of K2's inside."""

    status: int
    code: str
    detail: str
    errors: tuple[Mapping[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, float] = field(default_factory=dict)
    """Further members of the document, and of the `error` that old clients read."""


class LegacyError(BaseModel):
    """What clients of the original platform read."""

    code: str
    message: str


class ProblemDocument(BaseModel):
    """An RFC 9457 problem."""

    type: str = Field(description="Names the kind of problem: `urn:k2:problem:` and the code in lower case.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable word to match on, e.g. NOT_FOUND.")
    request_id: str = Field(description="The X-Correlation-ID of the request.")
    errors: list[dict[str, str]] = Field(description="Per wrong parameter: where it stands and what is wrong.")
    success: bool = False
    error: LegacyError


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the problems a route may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}}}
    return {
        s: {"description": HTTPStatus(s).phrase, "content": content}
        for s in sorted({400, 401, 403, 408, 422, 429, 503, *statuses})
    }


def install(app: FastAPI) -> None:
    """Answer every failure of the app with a problem document."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(K2Error, _on_k2_error)


def problem_response(problem: Problem, path: str, request_id: str) -> Response:
    """Render a problem."""
    headers = {"Cache-Control": "no-store", **problem.headers}
    return Response(document(problem, path, request_id), problem.status, headers, MEDIA_TYPE)


def document(problem: Problem, path: str, request_id: str) -> str:
    """The text of a problem. Pure ASCII: a hostile parameter in a path must not break the answer."""
    code = problem.code
    body = {
        "type": f"urn:k2:problem:{code.lower()}",
        "title": _title(problem.status),
        "status": problem.status,
        "detail": problem.detail,
        "instance": path,
        "code": code,
        "request_id": request_id,
        "errors": list(problem.errors),
        "success": False,
        "error": {"code": code, "message": problem.detail, **problem.members},
        **problem.members,
    }
    return json.dumps(body)


def internal_error() -> Problem:
    """What a client is told of a defect of ours: nothing but how to ask about it."""
    return Problem(500, "INTERNAL_ERROR", "the server failed; the log has the cause under this request id")


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(error, request.url.path, request.state.correlation_id)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = invalid([_finding(found) for found in error.errors()])
    return problem_response(problem, request.url.path, request.state.correlation_id)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name if error.status_code != 405 else "METHOD_NOT_ALLOWED"
    problem = Problem(error.status_code, code, str(error.detail), headers=error.headers or {})
    return problem_response(problem, request.url.path, request.state.correlation_id)


async def _on_k2_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, K2Error)
    problem = next(problem for kind, problem in _OF_K2_ERROR if isinstance(error, kind))
    if problem.status >= 500:
        level = logging.WARNING if isinstance(error, QueryRefused) else logging.ERROR  # shedding load is no failure
        LOG.log(level, "%s %s: %s: %s", request.state.correlation_id, request.url.path, type(error).__name__, error)
    return problem_response(problem, request.url.path, request.state.correlation_id)


def invalid(errors: Sequence[Mapping[str, str]]) -> Problem:
    """Build the 422 that lists every wrong parameter."""
    detail = "; ".join(f"{e['parameter']}: {e['detail']}" for e in errors)
    return Problem(422, "VALIDATION_ERROR", detail, tuple(errors))


_LATER = {"Retry-After": "1"}
_SHORTER = "ask for a shorter range"
_OF_K2_ERROR: tuple[tuple[type[K2Error], Problem], ...] = (
    (QueryTimeout, Problem(504, "TIMEOUT", f"the query ran into its deadline and was stopped; {_SHORTER}")),
    (QueryTooLarge, Problem(413, "RESOURCE_LIMIT_EXCEEDED", f"the query needs too much memory; {_SHORTER}")),
    (NotFound, Problem(404, "NOT_FOUND", "what was asked for does not exist")),
    (Unreachable, Problem(503, "UNAVAILABLE", "the catalog does not answer", headers=_LATER)),
    (QueryRefused, Problem(503, "OVERLOADED", "too many questions wait already; come back later", headers=_LATER)),
    (QueryStopped, Problem(503, "UNAVAILABLE", "the server is stopping", headers=_LATER)),
    (Damaged, Problem(503, "DAMAGED", "a stored file could not be read; an operator has to look", headers=_LATER)),
    (K2Error, internal_error()),
)


def _finding(found: Mapping[str, Any]) -> dict[str, str]:
    place = [str(part) for part in found["loc"]]
    message = str(found["msg"]).removeprefix("Value error, ")
    return {"parameter": place[-1], "in": place[0], "pointer": "/" + "/".join(place), "detail": message}


def _title(status: int) -> str:
    return "Client Closed Request" if status == CLIENT_GONE else HTTPStatus(status).phrase
