"""What GET and POST ask of ticks, put to the one call that answers both."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams

from k2_api.answers import Asked, answer_live, answer_ticks
from k2_api.formats import FORMATS, JSON, negotiated
from k2_api.responses import backend, unless_gone
from k2_api.tail import Tail
from k2_api.tick_models import QuotesQuery, QuotesQuestion, TradesQuery, TradesQuestion

JSON_ROWS = 100
"""Rows of a JSON page of a GET that names no limit: what old clients expect."""
QUERIES_KEPT = 2_000
"""Query strings whose meaning is remembered: reading one anew costs more than sending an answer that is kept."""
QUERY_BYTES_KEPT_MAX = 1_000
"""A longer one is read each time, so that two megabytes hold them all."""


def written(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entry of rows in every format. model: the envelope of JSON."""
    schemas = {f.media_type: {"schema": {"type": "string", "format": "binary"}} for f in FORMATS.values() if f != JSON}
    return {200: {"model": model, "content": schemas}}


def parameters(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI parameters of a question in a query string, one per field."""
    listed = model.model_json_schema()["properties"].items()
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema, "description": schema["description"]}
            for name, schema in listed
        ]
    }


async def ranged(request: Request, model: type[TradesQuestion | QuotesQuestion]) -> Response:
    """Answer a GET: a page, or all rows where a format other than JSON is wanted of the lake without a limit."""
    query = request.scope["query_string"]
    reading = _read_again if len(query) <= QUERY_BYTES_KEPT_MAX else _read
    asked, is_live = reading(model, query, request.headers.get("Accept", ""))
    return await (unless_gone(request, _live(request, asked)) if is_live else answer_ticks(request, asked))


async def queried(request: Request, query: TradesQuery | QuotesQuery) -> Response:
    """Answer a POST query: JSON, or a file to be saved."""
    asked = _asked(query, request.headers.get("Accept", ""))
    return await answer_ticks(request, replace(asked, is_file=asked.format is not JSON))


async def _live(request: Request, asked: Asked) -> Response:
    tail: Tail = request.app.state.tail
    paired = await tail.pair(backend(request).reads, asked.table)
    return await answer_live(request, asked, paired.pinned, {"K2-Version": paired.pinned.version, **paired.headers()})


def _read(model: type[TradesQuestion | QuotesQuestion], query: bytes, accept: str) -> tuple[Asked, bool]:
    """What a query string asks, and whether of this moment. Raises RequestValidationError, as FastAPI's own reading."""
    sent = QueryParams(query)
    lists = _lists(model)
    given = {n: sent.getlist(n) if n in lists else sent[n] for n in model.model_fields if n in sent}
    try:
        question = model.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise RequestValidationError([{**one, "loc": ("query", *one["loc"])} for one in found]) from None
    asked, is_live = _asked(question, accept), question.source == "lake+tail"
    if asked.ticks.limit is None and (asked.format is JSON or is_live):
        asked = replace(asked, ticks=replace(asked.ticks, limit=JSON_ROWS))
    return asked, is_live


_read_again = lru_cache(maxsize=QUERIES_KEPT)(_read)


@cache
def _lists(model: type[BaseModel]) -> frozenset[str]:
    """The fields that may be named more than once; of another the last counts."""
    properties = model.model_json_schema()["properties"].items()
    kinds = {name: [schema, *schema.get("anyOf", ())] for name, schema in properties}
    return frozenset(name for name, schemas in kinds.items() if any(s.get("type") == "array" for s in schemas))


def _asked(question: TradesQuestion | QuotesQuestion | TradesQuery | QuotesQuery, accept: str) -> Asked:
    return Asked(
        table=question.table,
        ticks=question.ticks(),
        at=question.at(),
        format=negotiated(accept, question.format),
        cursor=question.cursor,
        count=question.count,
        offset=question.offset,
    )
