"""The REST side: Binance's public market data with its weights, its refusals and its words."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from k2_feeds.binance_frames import MICROSECONDS_FROM
from k2_feeds.exchange.budget import ADMITTED, Verdict, WeightBudget
from k2_feeds.exchange.controls import MICROSECOND, MILLISECOND
from k2_feeds.exchange.faults import Faults, Kind
from k2_feeds.exchange.ledger import Aggregate, Ledger
from k2_feeds.exchange.listing import exchange_info, named_symbols
from k2_feeds.exchange.refused import Refused
from k2_feeds.exchange.settings import Limits
from k2_feeds.exchange.ticks import UNIT, Print, text

_LIMIT_DEFAULT, LIMIT_MAX = 500, 1_000
_SYMBOL = re.compile(r"(?:(?![a-z])[\w\-.]){1,50}")
_SYMBOL_RANGE = r"^[\w\-._&&[^a-z]]{1,50}$"
"""How Binance words it; a pattern of Java."""
_NUMBER_RANGE = "^[0-9]{1,20}$"
_BUSY = ((500, -1000, "An unknown error occurred while processing the request."), (502, 0, "Bad Gateway"),
         (503, -1008, "Server is currently overloaded with other requests. Please try again in a few minutes."),
         (504, 0, "Gateway Time-out"))  # fmt: skip
"""What a failing server answers: its own words as JSON, those of what stands before it (502, 504) as HTML."""


class Asked(NamedTuple):
    """One request. unit_us: microseconds in one unit of the times answered."""

    query: Mapping[str, str]
    unit_us: int


class Endpoint(NamedTuple):
    """What one path costs, what it reads, and how it answers."""

    name: str
    weight: int
    parameters: frozenset[str]
    answer: Callable[[Asked], Any]


class Rest:
    """Public endpoints over the ledger. now_us: the exchange's clock, for serverTime."""

    def __init__(
        self, limits: Limits, ledger: Ledger, faults: Faults, symbols: tuple[str, ...], now_us: Callable[[], int]
    ) -> None:
        self._limits, self._ledger, self._faults = limits, ledger, faults
        self._symbols, self._now_us = symbols, now_us
        self._budgets: dict[str, WeightBudget] = defaultdict(lambda: WeightBudget(limits))
        self._failures = cycle(_BUSY)
        self.requests = 0
        self.refused = 0

    def routes(self) -> list[Route]:
        """Routes of /api/v3."""
        return [Route(f"/api/v3/{endpoint.name}", self._serving(endpoint)) for endpoint in self._endpoints()]

    def used_weight(self) -> int:
        """The most that any address has used in its window."""
        return max((budget.used for budget in list(self._budgets.values())), default=0)

    def _endpoints(self) -> tuple[Endpoint, ...]:
        recent, by_id = frozenset({"symbol", "limit"}), frozenset({"symbol", "limit", "fromId"})
        selection = frozenset({"symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"})
        return (
            Endpoint("ping", 1, frozenset(), lambda _asked: {}),
            Endpoint("time", 1, frozenset(), lambda asked: {"serverTime": self._now_us() // asked.unit_us}),
            Endpoint("exchangeInfo", 20, selection, self._exchange_info),
            Endpoint("trades", 25, recent, self._trades),
            Endpoint("historicalTrades", 25, by_id, self._trades),
            Endpoint("aggTrades", 4, by_id | {"startTime", "endTime"}, self._aggregates),
        )

    def _serving(self, endpoint: Endpoint) -> Callable[[Request], Any]:
        async def serve(request: Request) -> Response:
            self.requests += 1
            budget = self._budgets[request.client.host if request.client else ""]
            verdict = self._verdict(budget, endpoint.weight)
            response = self._refusal(verdict) if verdict is not ADMITTED else self._response(endpoint, request)
            self.refused += verdict is not ADMITTED
            response.headers["X-MBX-USED-WEIGHT"] = response.headers["X-MBX-USED-WEIGHT-1M"] = str(budget.used)
            return response

        return serve

    def _verdict(self, budget: WeightBudget, weight: int) -> Verdict:
        now = time.monotonic()
        verdict = budget.ask(weight, now)
        if verdict is ADMITTED and (fault := self._faults.strike(Kind.REST_418)):
            return budget.ban(fault.duration_seconds, now)
        if verdict is ADMITTED and (fault := self._faults.strike(Kind.REST_429)):
            return budget.refuse(fault.duration_seconds, now)
        return verdict

    def _refusal(self, verdict: Verdict) -> Response:
        if verdict.status == 418:
            until_ms = self._now_us() // 1_000 + verdict.retry_seconds * 1_000
            said = f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams for "
            message = f"{said}live updates to avoid bans."
        else:
            said = f"Too much request weight used; current limit is {self._limits.weight_max} request weight per "
            message = f"{said}1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."
        headers = {"Retry-After": str(verdict.retry_seconds)}
        return JSONResponse({"code": -1003, "msg": message}, verdict.status, headers)

    def _response(self, endpoint: Endpoint, request: Request) -> Response:
        if self._faults.strike(Kind.REST_5XX):
            return _failure(*next(self._failures))
        try:
            return JSONResponse(endpoint.answer(_asked(endpoint, request)))
        except Refused as refusal:
            return JSONResponse({"code": refusal.code, "msg": str(refusal)}, 400)

    def _exchange_info(self, asked: Asked) -> Any:
        names = named_symbols(asked.query, self._symbols)
        return exchange_info(names, self._limits, self._now_us() // asked.unit_us)

    def _trades(self, asked: Asked) -> Any:
        symbol, limit = self._symbol(asked), _limit(asked)
        first_id = _number(asked, "fromId")
        if first_id is None:
            found = self._ledger.latest(symbol, limit)
        else:
            found = self._ledger.from_id(symbol, first_id, limit)
        return [_trade(tick, asked.unit_us) for tick in found]

    def _aggregates(self, asked: Asked) -> Any:
        symbol, limit, first_id = self._symbol(asked), _limit(asked), _number(asked, "fromId")
        start_us, end_us = (_time(asked, name) for name in ("startTime", "endTime"))
        if first_id is not None and (start_us, end_us) != (None, None):
            raise Refused(-1128, "Combination of optional parameters invalid.")
        # a bound in milliseconds includes all of its last millisecond
        end_us = None if end_us is None else end_us + (999 if end_us % 1_000 == 0 else 0)
        found = self._ledger.aggregates(symbol, limit, first_id=first_id, start_us=start_us, end_us=end_us)
        return [_aggregate(one, asked.unit_us) for one in found]

    def _symbol(self, asked: Asked) -> str:
        symbol = asked.query.get("symbol", "")
        if not symbol:
            raise Refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        if not _SYMBOL.fullmatch(symbol):
            said = f"Illegal characters found in parameter 'symbol'; legal range is '{_SYMBOL_RANGE}'."
            raise Refused(-1100, said)
        if symbol not in self._symbols:
            raise Refused(-1121, "Invalid symbol.")
        return symbol


def _asked(endpoint: Endpoint, request: Request) -> Asked:
    query = request.query_params
    known = [name for name in query if name in endpoint.parameters]
    if len(known) < len(query):
        said = f"read '{len(known)}' parameter(s) but was sent '{len(query)}'."
        raise Refused(-1104, f"Not all sent parameters were read; {said}")
    unit = request.headers.get("X-MBX-TIME-UNIT", MILLISECOND).upper()
    if unit not in (MICROSECOND, MILLISECOND):
        raise Refused(-1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
    return Asked(query, 1 if unit == MICROSECOND else 1_000)


def _number(asked: Asked, name: str) -> int | None:
    said = asked.query.get(name)
    if said is None:
        return None
    if not (said.isascii() and said.isdigit() and len(said) <= 20):
        raise Refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{_NUMBER_RANGE}'.")
    if int(said) >= 2**63:
        raise Refused(-1108, f"Parameter '{name}' overflowed.")
    return int(said)


def _limit(asked: Asked) -> int:
    limit = _number(asked, "limit")
    if limit == 0:
        raise Refused(-1130, "Data sent for parameter 'limit' is not valid.")
    return _LIMIT_DEFAULT if limit is None else min(limit, LIMIT_MAX)


def _time(asked: Asked, name: str) -> int | None:
    said = _number(asked, name)
    return said if said is None or said >= MICROSECONDS_FROM else said * 1_000


def _trade(tick: Print, unit_us: int) -> dict[str, Any]:
    return {
        "id": tick.trade_id,
        "price": text(tick.price),
        "qty": text(tick.quantity),
        "quoteQty": text(tick.price * tick.quantity // UNIT),
        "time": tick.time_us // unit_us,
        "isBuyerMaker": tick.buyer_is_maker,
        "isBestMatch": True,
    }


def _aggregate(one: Aggregate, unit_us: int) -> dict[str, Any]:
    return {
        "a": one.aggregate_id,
        "p": text(one.first.price),
        "q": text(one.quantity),
        "f": one.first.trade_id,
        "l": one.last_id,
        "T": one.first.time_us // unit_us,
        "m": one.first.buyer_is_maker,
        "M": True,
    }


def _failure(status: int, code: int, message: str) -> Response:
    if code:
        return JSONResponse({"code": code, "msg": message}, status)
    page = f"<html>\r\n<head><title>{status} {message}</title></head>\r\n<body></body>\r\n</html>\r\n"
    return HTMLResponse(page, status)
