"""Binance's REST as K2 asks it: within its weights, obeying 429 and 418, trying again what may pass.

Rules as documented by the exchange: 6,000 weight a minute and address, told in X-MBX-USED-WEIGHT-1M; 429 means wait for
Retry-After, 418 that who did not is banned until then.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2 as httpx
import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from k2_core.errors import BadInput, Misconfigured, Unreachable
from k2_resources.binance.weights import WeightBudget

BASE_URL = "https://api.binance.com"
WEIGHT_PER_MINUTE = 6_000
TRADES_MAX = 1_000
"""Trades of one answer at most; the exchange takes no larger limit."""
TRADES_WEIGHT, AGG_TRADES_WEIGHT, EXCHANGE_INFO_WEIGHT, TIME_WEIGHT = 25, 4, 20, 1
"""Weights of the requests, as documented since 2023-08; one answer costs the same however many trades it holds."""
ATTEMPTS_MAX = 6
"""Of one request: with the pauses below half a minute, longer than a restart of a gateway."""
PAUSE_SECONDS_FIRST, PAUSE_SECONDS_MAX = 0.5, 15.0
WAIT_SECONDS_MAX = 300.0
"""A longer ban is for the caller to hear of, not to sit out: bans last from two minutes to three days."""
ANSWER_BYTES_MAX = 64 << 20
"""exchangeInfo of every symbol is some 20 MB; more is no answer of an exchange."""
_SAID_CHARACTERS_MAX = 200
_UNSAID_SECONDS = {HTTPStatus.TOO_MANY_REQUESTS: 60.0, HTTPStatus.IM_A_TEAPOT: 120.0}
"""Where Retry-After is missing: a minute refills the weight, and no ban is shorter than two."""
_PASSING_CODES = frozenset({-1000, -1001, -1007, -1008})
"""The exchange's own troubles: unknown, disconnected, timeout, overload."""
_PASSING_STATUSES = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY})
_MICROSECONDS = {"X-MBX-TIME-UNIT": "MICROSECOND"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Answer:
    """What the exchange said, and the proof of it. asked: path and query; sha256: of the bytes of the body."""

    asked: str
    status: int
    sha256: str
    document: Any


class BinanceRest:
    """One address of Binance's REST. A context manager; safe to share between threads, which then take turns.

    wait: how to pass seconds of waiting, so that who stops can cut them short by raising.
    """

    def __init__(
        self,
        base_url: str = BASE_URL,
        *,
        weight_per_minute: int = WEIGHT_PER_MINUTE,
        timeout_seconds: float = 10.0,
        attempts_max: int = ATTEMPTS_MAX,
        wait_seconds_max: float = WAIT_SECONDS_MAX,
        pause_seconds_first: float = PAUSE_SECONDS_FIRST,
        ca_file: Path | None = None,
        proxy: str | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises Misconfigured for an address, a proxy or a certificate file that is none."""
        self.base_url = base_url.rstrip("/")
        self.budget = WeightBudget(weight_per_minute)
        self._attempts_max = attempts_max
        self._wait_seconds_max = wait_seconds_max
        self._pause = wait_exponential_jitter(multiplier=pause_seconds_first, max=PAUSE_SECONDS_MAX)
        self._wait = wait
        self._silent_until = float("-inf")
        self._turn = threading.Lock()
        try:
            url = httpx.URL(self.base_url)
            if url.scheme not in ("http", "https") or not url.host:
                raise ValueError("expected http:// or https:// and a host")
            verify = ssl.create_default_context(cafile=ca_file) if ca_file else True
            self._client = httpx.Client(base_url=self.base_url, timeout=timeout_seconds, verify=verify, proxy=proxy)
        except (OSError, ValueError, httpx.InvalidURL) as error:
            raise Misconfigured(f"{base_url}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def trades(self, symbol: str, from_id: int, limit: int = TRADES_MAX) -> Answer:
        """Ask for trades from an id on, ascending, as the exchange wrote them: id, price, qty, time, isBuyerMaker.

        Raises BadInput (an unknown symbol), Unreachable.
        """
        query = {"symbol": symbol, "fromId": from_id, "limit": limit}
        return self._listed("/api/v3/historicalTrades", query, TRADES_WEIGHT)

    def agg_trades(self, symbol: str, start_ms: int | None = None, limit: int = TRADES_MAX) -> Answer:
        """Ask for aggregates from a time on, ascending; the newest ones without a time.

        T is the time of one, f and l the first and the last id of its trades. Raises BadInput, Unreachable.
        """
        query = {"symbol": symbol, "limit": limit} | ({} if start_ms is None else {"startTime": start_ms})
        return self._listed("/api/v3/aggTrades", query, AGG_TRADES_WEIGHT)

    def exchange_info(self, symbols: Sequence[str] = ()) -> dict[str, Any]:
        """Ask what the exchange lists; of all symbols with none named. Raises BadInput, Unreachable."""
        query = {"symbols": json.dumps(list(symbols), separators=(",", ":"), ensure_ascii=False)} if symbols else {}
        found: dict[str, Any] = self._ask("/api/v3/exchangeInfo", query, EXCHANGE_INFO_WEIGHT, dict).document
        return found

    def server_time_ms(self) -> int:
        """Ask the exchange's clock: ms since 1970. Raises Unreachable."""
        found = self._ask("/api/v3/time", {}, TIME_WEIGHT, dict).document.get("serverTime")
        if type(found) is not int:
            raise Unreachable(f"{self.base_url}/api/v3/time: its serverTime is {found!r}, expected milliseconds")
        return found

    def _listed(self, path: str, query: Mapping[str, Any], weight: int) -> Answer:
        answer = self._ask(path, query, weight, list, _MICROSECONDS)
        if not all(isinstance(entry, dict) for entry in answer.document):
            raise Unreachable(f"{self.base_url}{answer.asked}: expected a list of objects")
        return answer

    def _ask(
        self, path: str, query: Mapping[str, Any], weight: int, expected: type, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask until there is an answer of the expected kind, or none is to be had."""
        request = self._client.build_request("GET", path, params=dict(query), headers=dict(headers or {}))
        retrying = Retrying(
            retry=retry_if_exception_type(_Passing),
            stop=stop_after_attempt(self._attempts_max),
            wait=self._pause_after,
            sleep=self._wait,
            reraise=True,
        )
        with self._turn:
            try:
                return retrying(self._once, request, weight, expected)
            except _Passing as trouble:
                tried = f"{self._attempts_max} times"
                raise Unreachable(f"{self.base_url}{_asked(request)}: {trouble}; tried {tried}") from trouble

    def _once(self, request: httpx.Request, weight: int, expected: type) -> Answer:
        """Ask once, when the weight allows it. Raises _Passing where another try may help."""
        self._wait_until_allowed(weight)
        told = None
        try:
            response, body = self._receive(request)
            told = _whole(response.headers.get("X-MBX-USED-WEIGHT-1M"))
        except httpx.HTTPError as error:
            raise _Passing(f"{error or type(error).__name__}") from error
        finally:
            self.budget.note(weight, told)
        if response.status_code != HTTPStatus.OK:
            raise self._refusal(request, response, body)
        document = _json(body)
        if not isinstance(document, expected):
            raise _Passing(f"HTTP 200, but not an answer of the exchange: {_said(body)}")
        return Answer(_asked(request), response.status_code, hashlib.sha256(body).hexdigest(), document)

    def _receive(self, request: httpx.Request) -> tuple[httpx.Response, bytes]:
        """Read an answer, but no more of it than an exchange would send."""
        body = bytearray()
        response = self._client.send(request, stream=True)
        try:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    raise Unreachable(f"{self.base_url}{_asked(request)}: more than {ANSWER_BYTES_MAX:,} bytes")
        finally:
            response.close()
        return response, bytes(body)

    def _wait_until_allowed(self, weight: int) -> None:
        """Wait for weight, and until the exchange wants to hear of us again. Raises Unreachable when that is long."""
        while (seconds := max(self._silent_until - time.monotonic(), self.budget.seconds_until(weight))) > 0:
            if seconds > self._wait_seconds_max:
                raise Unreachable(f"{self.base_url}: asks for silence for another {seconds:.0f} s; try again then")
            if seconds > 1:
                log.info("waiting for the exchange", seconds=round(seconds, 1), weight_used=self.budget.used)
            self._wait(seconds)

    def _refusal(self, request: httpx.Request, response: httpx.Response, body: bytes) -> Exception:
        """What an answer other than 200 means."""
        status, document = response.status_code, _json(body)
        code = document.get("code") if isinstance(document, dict) else None
        words = f"{code}: {document.get('msg')}"[:_SAID_CHARACTERS_MAX] if code is not None else _said(body)
        said = f"HTTP {status}, {words}"
        if status in _UNSAID_SECONDS:
            seconds = _seconds(response.headers.get("Retry-After"), _UNSAID_SECONDS[HTTPStatus(status)])
            self._silent_until = max(self._silent_until, time.monotonic() + seconds)
            log.warning("the exchange asks for silence", status=status, seconds=seconds, words=words)
            return _Passing(said, pause_seconds=0.0)  # the next try waits for its end anyway
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING_STATUSES or code in _PASSING_CODES:
            return _Passing(said)
        error = Unreachable if status == HTTPStatus.FORBIDDEN or status < HTTPStatus.BAD_REQUEST else BadInput
        return error(f"{self.base_url}{_asked(request)}: {said}")

    def _pause_after(self, state: RetryCallState) -> float:
        trouble = state.outcome.exception() if state.outcome else None
        stated = trouble.pause_seconds if isinstance(trouble, _Passing) else None
        return self._pause(state) if stated is None else stated


class _Passing(Exception):
    """A trouble that may pass."""

    def __init__(self, words: str, pause_seconds: float | None = None) -> None:
        super().__init__(words)
        self.pause_seconds = pause_seconds


def _asked(request: httpx.Request) -> str:
    """Path and query, as sent."""
    return request.url.raw_path.decode("ascii")


def _json(body: bytes) -> Any:
    """The document of a body, numbers exact; None where it is none."""
    try:
        return json.loads(body, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError):
        return None


def _said(body: bytes) -> str:
    text = body[:_SAID_CHARACTERS_MAX].decode("utf-8", "backslashreplace")
    return "an empty body" if not text else repr(text)


def _whole(text: str | None) -> int | None:
    """A header that counts something; None where it does not."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 12 else None


def _seconds(text: str | None, otherwise: float) -> float:
    found = _whole(text)
    return otherwise if found is None else float(found)
