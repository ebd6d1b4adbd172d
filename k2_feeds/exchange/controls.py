"""What a client asks for on a connection: its streams by URL, and SUBSCRIBE and its kin by message."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

MICROSECOND, MILLISECOND = "MICROSECOND", "MILLISECOND"
_TEXT_ID = re.compile(r"[\w-]{1,36}")
_ID_LIMIT = 2**63
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_STREAM = re.compile(r"!?[^\s@/]+(@[^\s/]+)?")


class Malformed(Exception):
    """Raised when a request cannot be served; carries Binance's code and words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Subscriptions:
    """The streams of one connection, in the order asked for, and how its events are written."""

    is_combined: bool
    is_microseconds: bool
    streams: dict[str, None] = field(default_factory=dict)


def read_url(target: str, streams_max: int) -> Subscriptions | None:
    """Read the path and query of a connection; None where no stream is served. Raises Malformed."""
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    unit = query.get("timeUnit", [MILLISECOND])[-1].upper()
    if unit not in (MICROSECOND, MILLISECOND):
        raise Malformed(-1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
    root, _, rest = url.path.lstrip("/").partition("/")
    if root == "ws":
        names = unquote(rest).split("/")
    elif root == "stream" and not rest:
        names = query.get("streams", [""])[-1].split("/")
    else:
        return None
    subscriptions = Subscriptions(root == "stream", unit == MICROSECOND)
    _subscribe(subscriptions, [name for name in names if name], streams_max)
    return subscriptions


def obey(message: str | bytes, subscriptions: Subscriptions, streams_max: int) -> str:
    """Do what a message asks and give the answer. Raises nothing: a bad request is answered with its error."""
    request_id: Any = None
    try:
        request = _request(message)
        request_id = _request_id(request)
        result = _result(request, subscriptions, streams_max)
    except Malformed as refusal:
        error = {"error": {"code": refusal.code, "msg": str(refusal)}, "id": request_id}
        return json.dumps(error, separators=(",", ":"))
    return json.dumps({"result": result, "id": request_id}, separators=(",", ":"), ensure_ascii=False)


def _request(message: str | bytes) -> dict[str, Any]:
    try:
        request = json.loads(message)
    except json.JSONDecodeError as error:
        raise Malformed(3, f"Invalid JSON: expected value at line {error.lineno} column {error.colno}") from None
    except (ValueError, RecursionError):
        raise Malformed(3, "Invalid JSON: expected value at line 1 column 1") from None
    if not isinstance(request, dict):
        raise Malformed(2, "Invalid request: expected an object at line 1 column 1")
    return request


def _request_id(request: dict[str, Any]) -> Any:
    found = request.get("id", ...)
    is_number = type(found) is int and -_ID_LIMIT <= found < _ID_LIMIT
    is_text = isinstance(found, str) and _TEXT_ID.fullmatch(found) is not None
    if not (is_number or is_text or found is None):
        raise Malformed(2, "Invalid request: request ID must be an unsigned integer")
    return found


def _result(request: dict[str, Any], subscriptions: Subscriptions, streams_max: int) -> Any:
    method, params = request.get("method"), request.get("params", [])
    if method is None:
        raise Malformed(2, "Invalid request: missing field `method` at line 1 column 1")
    if method not in _METHODS:
        expected = ", ".join(f"`{name}`" for name in _METHODS)
        raise Malformed(
            2, f"Invalid request: unknown variant `{method}`, expected one of {expected} at line 1 column 1"
        )
    if not isinstance(params, list):
        raise Malformed(2, "Invalid request: params must be an array")
    if method == "LIST_SUBSCRIPTIONS":
        return list(subscriptions.streams)
    if method in ("SET_PROPERTY", "GET_PROPERTY"):
        return _property(method, params, subscriptions)
    if method == "SUBSCRIBE":
        _subscribe(subscriptions, params, streams_max)
    else:
        for name in _stream_names(params):
            subscriptions.streams.pop(name, None)
    return None


def _subscribe(subscriptions: Subscriptions, names: list[Any], streams_max: int) -> None:
    wanted = dict.fromkeys(_stream_names(names))
    if len(subscriptions.streams | wanted) > streams_max:
        raise Malformed(2, f"Invalid request: too many streams, at most {streams_max} on one connection")
    subscriptions.streams |= wanted


def _stream_names(names: list[Any]) -> list[str]:
    for name in names:
        if not isinstance(name, str) or not _STREAM.fullmatch(name):
            raise Malformed(2, "Invalid request: invalid stream")
    return names


def _property(method: str, params: list[Any], subscriptions: Subscriptions) -> Any:
    if len(params) > (2 if method == "SET_PROPERTY" else 1):
        raise Malformed(2, "Invalid request: too many parameters")
    if not params or not isinstance(params[0], str):
        raise Malformed(2, "Invalid request: property name must be a string")
    if params[0] != "combined":
        raise Malformed(0, "Unknown property")
    if method == "GET_PROPERTY":
        return subscriptions.is_combined
    if len(params) < 2 or type(params[1]) is not bool:
        raise Malformed(1, "Invalid value type: expected Boolean")
    subscriptions.is_combined = params[1]
    return None
