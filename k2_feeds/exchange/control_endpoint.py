"""The control endpoint under /k2/, beside REST: faults on and off, the ledger, the market, counters.

No part of Binance; it costs no weight and no fault touches it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from k2_core.errors import BadInput
from k2_feeds.exchange.faults import Fault, Faults, Kind, as_document, read_fault
from k2_feeds.exchange.ledger import Ledger, Published

_ROWS_MAX = 20_000
"""Trades in one answer: as many as can be written without the streams standing still for long."""


class Controlled(Protocol):
    """What the endpoint controls."""

    ledger: Ledger
    faults: Faults

    def stats(self) -> dict[str, Any]:
        """Counters of everything."""

    def hold_market(self, *, is_held: bool) -> None:
        """Stop or go on trading."""

    def crash(self) -> None:
        """Let a flash crash begin now."""


class ControlEndpoint:
    """The handlers of /k2/ over one exchange."""

    def __init__(self, exchange: Controlled) -> None:
        self._exchange, self._faults, self._ledger = exchange, exchange.faults, exchange.ledger

    def routes(self) -> list[Route]:
        endpoints: tuple[tuple[str, str, Callable[[Request], Any]], ...] = (
            ("GET", "/k2/stats", self._stats),
            ("GET", "/k2/faults", self._list_faults),
            ("POST", "/k2/faults", self._inject),
            ("DELETE", "/k2/faults", self._clear),
            ("GET", "/k2/ledger", self._summaries),
            ("GET", "/k2/ledger/{symbol}", self._page),
            ("POST", "/k2/market", self._market),
        )
        return [Route(path, _answering(endpoint), methods=[method]) for method, path, endpoint in endpoints]

    async def _stats(self, _request: Request) -> Any:
        return self._exchange.stats()

    async def _list_faults(self, _request: Request) -> Any:
        return _faults(self._faults)

    async def _inject(self, request: Request) -> Any:
        said = await _body(request)
        found = [_fault(one) for one in (said if isinstance(said, list) else [said])]
        for fault in found:
            self._faults.add(fault)
        return [as_document(fault) for fault in found]

    async def _clear(self, request: Request) -> Any:
        said = request.query_params.get("kind")
        self._faults.clear(None if said is None else _kind(said))
        return _faults(self._faults)

    async def _summaries(self, _request: Request) -> Any:
        return {symbol: _summary(self._ledger, symbol) for symbol in self._ledger.symbols()}

    async def _page(self, request: Request) -> Any:
        return _page(self._ledger, request)

    async def _market(self, request: Request) -> Any:
        said = await _body(request)
        if not isinstance(said, dict) or not said.keys() <= {"paused", "crash"}:
            raise BadInput('expected {"paused": true or false} or {"crash": true}')
        if "paused" in said:
            self._exchange.hold_market(is_held=bool(said["paused"]))
        if said.get("crash"):
            self._exchange.crash()
        return self._exchange.stats()


def _answering(endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def respond(request: Request) -> Response:
        try:
            return JSONResponse(await endpoint(request))
        except BadInput as error:
            return JSONResponse({"code": error.code, "message": str(error)}, 400)

    return respond


async def _body(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the body is not JSON: {error}") from error


def _fault(said: Any) -> Fault:
    if not isinstance(said, dict):
        raise BadInput('expected a fault, e.g. {"kind": "drop", "count": 5}, or a list of them')
    return read_fault(said)


def _kind(said: str) -> Kind:
    try:
        return Kind(said)
    except ValueError as error:
        raise BadInput(f"{error}; kinds: {', '.join(Kind)}") from error


def _faults(faults: Faults) -> dict[str, Any]:
    return {
        "active": [as_document(fault) for fault in faults.active()],
        "counts": dict(faults.counts),
        "hits": [asdict(hit) for hit in faults.hits()],
    }


def _summary(ledger: Ledger, symbol: str) -> dict[str, Any]:
    return {
        "trades": ledger.trade_count(symbol),
        "quotes": ledger.quote_count(symbol),
        "absent": ledger.absent(symbol),
        "withheld": ledger.withheld(symbol),
    }


def _page(ledger: Ledger, request: Request) -> dict[str, Any]:
    symbol, said = request.path_params["symbol"], request.query_params.get("start", "0")
    if not said.isdecimal():
        raise BadInput(f"start={said}: expected the position of a trade")
    start = int(said)
    rows = ledger.trades(symbol, start, start + _ROWS_MAX)
    following = start + len(rows)
    return {
        "symbol": symbol,
        "columns": ["session", "id", "time_us", "price", "quantity", "buyer_is_maker"],
        "trades": [_row(one) for one in rows],
        "next": following if following < ledger.trade_count(symbol) else None,
        "absent": ledger.absent(symbol),
        "withheld": ledger.withheld(symbol),
    }


def _row(one: Published) -> list[Any]:
    return [one.session, one.trade_id, one.time_us, f"{one.price:f}", f"{one.quantity:f}", one.buyer_is_maker]
