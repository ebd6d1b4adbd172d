"""A small real HTTP server with Binance's REST: trades that a test chose, and answers no sane exchange would give."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

START_MS = 1_735_689_600_000
"""2025-01-01: trade n of a symbol is n seconds later."""
WEIGHTS = {"historicalTrades": 25, "aggTrades": 4, "exchangeInfo": 20, "time": 1}


@dataclass(frozen=True)
class Reply:
    """An answer instead of the true one."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def rest_trade(number: int, **changes: Any) -> dict[str, Any]:
    """One trade as REST tells it; everything follows from its id, unless changed."""
    return {
        "id": number,
        "price": f"{100 + number}.50000000",
        "qty": "0.25000000",
        "quoteQty": "25.12500000",
        "time": START_MS + number * 1_000,
        "isBuyerMaker": number % 2 == 0,
        "isBestMatch": True,
        **changes,
    }


@dataclass
class SmallExchange:
    """What it has and what it was asked. replies: given one after the other before it tells the truth again."""

    trades: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    replies: deque[Reply] = field(default_factory=deque)
    asked: list[tuple[float, str]] = field(default_factory=list)
    used_weight: int | None = None
    seconds_per_answer: float = 0.0
    url: str = ""

    def begin_anew(self) -> None:
        """Have nothing, and be asked nothing yet."""
        self.trades.clear()
        self.replies.clear()
        self.asked.clear()
        self.used_weight = None

    def lists(self, symbol: str, numbers: Any, **changes: Any) -> None:
        """Have these trades of a symbol."""
        self.trades.setdefault(symbol, {}).update({n: rest_trade(n, **changes) for n in numbers})

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [path for _, path in self.asked]

    def answer(self, request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        self.asked.append((time.monotonic(), f"{name}?{request.url.query}"))
        time.sleep(self.seconds_per_answer)
        used = {} if self.used_weight is None else {"X-MBX-USED-WEIGHT-1M": str(self.used_weight)}
        if self.replies:
            reply = self.replies.popleft()
            return Response(reply.body, reply.status, {**used, **reply.headers})
        query = request.query_params
        if name in ("time", "exchangeInfo"):
            document: Any = {"serverTime": START_MS} if name == "time" else {"symbols": query.get("symbols")}
        elif query["symbol"] not in self.trades:
            return Response(b'{"code":-1121,"msg":"Invalid symbol."}', 400, used)
        else:
            document = (self._trades if name == "historicalTrades" else self._aggregates)(query)
        return Response(json.dumps(document), headers=used)

    def _trades(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        listed = self.trades[query["symbol"]]
        return [listed[n] for n in sorted(listed) if n >= int(query["fromId"])][: int(query["limit"])]

    def _aggregates(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        listed = sorted(self.trades[query["symbol"]].values(), key=lambda trade: trade["id"])
        if "startTime" in query:
            found = [t for t in listed if t["time"] >= int(query["startTime"])][: int(query["limit"])]
        else:
            found = listed[-int(query["limit"]) :]
        return [{"a": t["id"], "f": t["id"], "l": t["id"], "T": t["time"]} for t in found]


@contextmanager
def small_exchange() -> Iterator[SmallExchange]:
    """Serve one on loopback."""
    here = SmallExchange()
    app = Starlette(routes=[Route("/{path:path}", here.answer)])
    listener = socket.create_server(("127.0.0.1", 0))
    here.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield here
    finally:
        server.should_exit = True
        thread.join()
