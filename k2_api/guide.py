"""A guide to the API in plain text, made from its own description, so that it cannot say anything else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_INTRODUCTION = """\
# K2

> Trades, quotes and bars out of an Iceberg lake over HTTP. Every answer names the state it shows.

- Every path under /v1 wants a key: header `X-API-Key`, or `Authorization: Bearer`. Start with GET /v1/datasets and
  GET /v1/symbols.
- Ranges are [start_time, end_time) of event time. Times are ISO 8601; without an offset they are UTC.
- Answers are `{"success": true, "data": ..., "pagination": ..., "meta": ...}`. Prices and quantities are strings with
  all eight digits; `decimals=number` makes them numbers.
- A page ends with `pagination.next_cursor`; send it back as `cursor` with the same filters for the next one.
- `K2-Version` names the state an answer shows; send it as `version` to ask about the same state again, for ever.
- Errors are application/problem+json. Match on `code`, show `detail`, quote `request_id`.
- GET /v1/days says how complete a day is, GET /v1/gaps which ids are missing. An answer does not hide a hole.
"""


def guide(document: Mapping[str, Any]) -> str:
    """Render the guide. document: the OpenAPI description."""
    return "\n".join([_INTRODUCTION, "## Routes", "", *_routes(document), ""])


def _routes(document: Mapping[str, Any]) -> Iterator[str]:
    for path, operations in sorted(document["paths"].items()):
        for method, operation in operations.items():
            said = str(operation.get("description") or operation.get("summary") or "").split("\n\n")[0]
            names = [p["name"] + ("*" if p.get("required") else "") for p in operation.get("parameters", ())]
            yield f"- {method.upper()} {path}: {' '.join(said.split())}"
            if names:
                yield f"  Parameters: {', '.join(names)}."
            if body := _body(document, operation):
                yield f"  Body: {', '.join(body)}."


def _body(document: Mapping[str, Any], operation: Mapping[str, Any]) -> list[str]:
    """The members of the JSON body of a route, those it cannot do without marked."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    schema = document["components"]["schemas"].get(name, {})
    required = schema.get("required", ())
    return [member + ("*" if member in required else "") for member in schema.get("properties", ())]
