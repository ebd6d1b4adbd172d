"""What a request passes before any route sees it: its key, its price, and its body, read whole within bounds.

A request that is refused here has cost no query, no parsing and no thread; one without a key not even its body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from k2_api.keys import Key, KeyRing
from k2_api.problems import CLIENT_GONE, Problem, documented, problem_response
from k2_api.rates import Rates, Standing, price

DISCARDED_BYTES_MAX = 32 << 20
DISCARD_SECONDS_MAX = 2.0
"""How much of a refused body is read past, and how long: many clients read no answer before they have sent it all."""
PROBED = ("/health", "/ready")
"""Open paths that look at other servers: whoever may ask without a key may not ask without end."""
_MIB = 1 << 20


@dataclass(frozen=True)
class Bounds:
    """What one request may be, and how many there may be. Rates: units a minute of a key, of an address; 0 = any."""

    body_bytes_max: int
    body_seconds_max: float
    rate_per_minute: int
    probes_per_minute: int


class Guard:
    """Middleware that lets a request pass with its key in `scope["state"]`, or answers it with a problem."""

    def __init__(self, app: ASGIApp, keys: KeyRing, rates: Rates, bounds: Bounds) -> None:
        self.app = app
        self._keys, self._rates, self._bounds = keys, rates, bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        try:
            self._straighten(scope)
            standing = self._admit(scope, headers)
            heard = await self._heard(headers, receive)
        except Problem as problem:
            if _announces_body(headers):
                await _discard(headers, receive)
                problem.headers = {**problem.headers, "Connection": "close"}
            await problem_response(problem, scope["path"], scope["state"]["correlation_id"])(scope, receive, send)
            return
        await self._passed(scope, heard, send, standing)

    async def _passed(self, scope: Scope, receive: Receive, send: Send, standing: Standing | None) -> None:
        if standing is None:
            await self.app(scope, receive, send)
            return
        told, sent = standing.headers(), 0

        async def counting(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *told]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, counting)
        finally:
            if key := scope["state"].get("key"):
                self._rates.charge_bytes(key.holder, sent, standing.limit)

    def _straighten(self, scope: Scope) -> None:
        """Refuse what two servers could read differently, and serve a path with a slash at its end as itself.

        The framework would redirect the latter to whatever host the request names.
        """
        if scope["http_version"] not in ("1.0", "1.1"):
            raise Problem(505, "HTTP_VERSION_NOT_SUPPORTED", "HTTP/1.1 is spoken here")
        hosts = sum(name == b"host" for name, _ in scope["headers"])
        if hosts > 1 or (hosts == 0 and scope["http_version"] == "1.1"):
            raise Problem(400, "INVALID_HOST", f"the request has {hosts} Host headers, expected one")
        if scope["path"].endswith("/"):
            scope["path"] = scope["path"].rstrip("/") or "/"

    def _admit(self, scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> Standing | None:
        """Find the key of a request and spend its price. Raises Problem 401, 403 or 429."""
        path: str = scope["path"]
        address = (scope["client"] or ("unknown",))[0]
        if path != "/v1" and not path.startswith("/v1/"):
            return self._spend(f"probe {address}", 1, self._bounds.probes_per_minute) if path in PROBED else None
        secret = presented(headers)
        key = self._keys.find(secret) if secret else None
        if key is None:
            self._spend(f"refused {address}", 1, self._bounds.rate_per_minute)
            raise unauthorized() if not secret else Problem(403, "FORBIDDEN", "the API key is not valid")
        scope["state"]["key"] = key
        return self._spend(key.holder, price(path), self._limit(key))

    def _limit(self, key: Key) -> int:
        return key.rate_per_minute or self._bounds.rate_per_minute

    def _spend(self, caller: str, units: int, limit: int) -> Standing | None:
        if limit == 0:
            return None
        standing = self._rates.take(caller, units, limit)
        if standing.is_granted:
            return standing
        detail = f"more than {limit} units in {standing.window_seconds} s; most requests cost one"
        told = {name.decode(): value.decode() for name, value in standing.headers()}
        raise Problem(429, "RATE_LIMIT_EXCEEDED", detail, headers={**told, "Retry-After": str(standing.reset_seconds)})

    async def _heard(self, headers: list[tuple[bytes, bytes]], receive: Receive) -> Receive:
        """Read the body whole. Raises Problem 400, 408, 413, 415 or 499."""
        if not _announces_body(headers):
            return receive
        self._expect_readable(headers)
        try:
            async with asyncio.timeout(self._bounds.body_seconds_max):
                body: bytes | None = await self._read(receive)
        except TimeoutError:
            seconds = self._bounds.body_seconds_max
            raise Problem(408, "REQUEST_TIMEOUT", f"the body did not arrive within {seconds:g} s") from None

        async def again() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            whole, body = body, None
            return {"type": "http.request", "body": whole, "more_body": False}

        return again

    def _expect_readable(self, headers: list[tuple[bytes, bytes]]) -> None:
        lengths = [value for name, value in headers if name == b"content-length"]
        is_chunked = any(name == b"transfer-encoding" for name, _ in headers)
        if len(lengths) + is_chunked > 1 or any(not length.isdigit() for length in lengths):
            raise Problem(400, "INVALID_CONTENT_LENGTH", "the length of the body is not told as one whole number")
        if lengths and int(lengths[0][:20]) > self._bounds.body_bytes_max:
            raise self._too_large(int(lengths[0][:20]))
        encodings = {value.strip().lower() for name, value in headers if name == b"content-encoding"}
        if encodings - {b"identity", b""}:
            answer = {"Accept-Encoding": "identity"}
            raise Problem(415, "UNSUPPORTED_CONTENT_ENCODING", "compressed bodies are not read", headers=answer)

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem(CLIENT_GONE, "CLIENT_CLOSED_REQUEST", "the client closed the connection")
            body += message.get("body", b"")
            if len(body) > self._bounds.body_bytes_max:
                raise self._too_large(len(body))
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self, size: int) -> Problem:
        limit = self._bounds.body_bytes_max
        sizes = {"size_mb": round(size / _MIB, 2), "limit_mb": round(limit / _MIB, 2)}
        return Problem(413, "PAYLOAD_TOO_LARGE", f"a body has at most {limit} bytes", members=sizes)


def presented(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The secret a request brings: X-API-Key, or else Authorization: Bearer. None without one."""
    secret = bearer = b""
    for name, value in headers:
        if name == b"x-api-key":
            secret = secret or value
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            bearer = value[7:].strip()
    return (secret or bearer).decode("utf-8", "surrogateescape") or None


def describe_refusals(paths: dict[str, Any]) -> None:
    """Add to operations of an OpenAPI document what the guard may answer before they are asked."""
    for path, operations in paths.items():
        for operation in operations.values():
            told: tuple[int, ...] = (408, 413, 415) if "requestBody" in operation else ()
            told += (429,) if path in PROBED else ()
            for status, response in ((status, documented(status)[status]) for status in told):
                operation["responses"].setdefault(str(status), response)


def unauthorized() -> Problem:
    """What a request without a key is told."""
    detail = "no key: send it as X-API-Key, or as Authorization: Bearer"
    return Problem(401, "UNAUTHORIZED", detail, headers={"WWW-Authenticate": 'Bearer realm="k2", ApiKey realm="k2"'})


def _announces_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


async def _discard(headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> None:
    """Read past a body that is refused, unless the client waits to be asked for it."""
    if any(name == b"expect" for name, _ in headers):
        return
    left = DISCARDED_BYTES_MAX
    try:
        async with asyncio.timeout(DISCARD_SECONDS_MAX):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
