"""A simulated exchange as it runs: one event loop in one thread, two ports, one ledger."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import uvicorn
from starlette.applications import Starlette

from k2_core.errors import Misconfigured
from k2_feeds.exchange.control_endpoint import ControlEndpoint
from k2_feeds.exchange.faults import Faults, Kind
from k2_feeds.exchange.hub import Hub
from k2_feeds.exchange.ledger import Ledger
from k2_feeds.exchange.market import Market
from k2_feeds.exchange.pace import MarketClock
from k2_feeds.exchange.publisher import Publisher
from k2_feeds.exchange.recorded import recorded, recorded_symbols
from k2_feeds.exchange.rest import Rest
from k2_feeds.exchange.settings import ExchangeSettings
from k2_feeds.exchange.sockets import Sockets
from k2_feeds.exchange.ticks import Tick
from k2_resources import clock

HOST = "127.0.0.1"
_TICK_SECONDS = 0.005
"""How often the exchange looks at its clock: finer than any latency of a real one."""
_STOP_SECONDS = 1
"""Patience with requests under way when the exchange ends."""
_START_POLL_SECONDS = 0.005


class SimulatedExchange:
    """One exchange, started. Everything here may be used from any thread.

    ws_url, rest_url: what a client is pointed at. is_over: set when a finite market has published everything.
    """

    def __init__(self, settings: ExchangeSettings) -> None:
        """Open both ports and the source. Raises BadInput, Misconfigured when a port is taken."""
        self._market, source, self.symbols, start_us = _source(settings)
        self.ledger, self.faults, self._hub = Ledger(), Faults(), Hub()
        self._clock = MarketClock(start_us, settings.speed)
        self._publisher = Publisher(
            source,
            clock=self._clock,
            ledger=self.ledger,
            faults=self.faults,
            hub=self._hub,
            trades_max=settings.trades_max,
        )
        now_us = self._publisher.stamp_us
        self._sockets = Sockets(settings.limits, self._hub, self.faults, now_us)
        self._rest = Rest(settings.limits, self.ledger, self.faults, self.symbols, now_us)
        for fault in settings.faults:
            self.faults.add(fault)
        self._listeners = _listeners(settings.port, settings.rest_port)
        ws_port, rest_port = (listener.getsockname()[1] for listener in self._listeners)
        self.ws_url, self.rest_url = f"ws://{HOST}:{ws_port}", f"http://{HOST}:{rest_port}"
        self.is_over = threading.Event()
        self._stopping = threading.Event()
        self._turns = 0
        self._awaits_client = settings.awaits_client
        if self._awaits_client:
            self._clock.hold()

    def pause(self) -> None:
        """Stop trading; when it returns, what the ledger has is all there will be. Connections and REST go on."""
        self.hold_market(is_held=True)
        turn = self._turns
        while self._turns < turn + 2 and not self._stopping.is_set():
            time.sleep(_START_POLL_SECONDS)

    def resume(self) -> None:
        """Go on trading, from the event time at which it stopped; a market that awaits a client begins."""
        self.hold_market(is_held=False)

    def hold_market(self, *, is_held: bool) -> None:
        """Stop or go on trading, without waiting for the turn under way."""
        self._awaits_client = False  # whoever says so overrules what the settings wait for
        if is_held:
            self._clock.hold()
        else:
            self._clock.release()

    def crash(self) -> None:
        """Let a flash crash begin now, in event time. A recorded market does what it did."""
        if self._market:
            self._market.weather.crash(self._clock.now_us())

    @property
    def is_alive(self) -> bool:
        """Whether it runs: false once it was asked to stop or has failed."""
        return not self._stopping.is_set()

    def stop(self) -> None:
        """Ask the exchange to end."""
        self._stopping.set()

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and what there is now. behind_seconds: of event time, where it cannot keep up."""
        live = [session for session in list(self._hub.sessions) if session.is_live]
        return {
            "event_time_us": self._clock.now_us(),
            "paused": self._clock.is_held,
            "over": self._publisher.is_over,
            "held_trades": self._publisher.held_count,
            "behind_seconds": self._publisher.behind_seconds,
            "trades": self.ledger.trade_count(),
            "connections": len(live),
            "streams": sum(len(session.subscriptions.streams) for session in live),
            "connection_attempts": self._sockets.attempts,
            "connections_refused": self._sockets.refused,
            "frames_sent": self._hub.frames_sent,
            "rest_requests": self._rest.requests,
            "rest_refused": self._rest.refused,
            "rest_used_weight": self._rest.used_weight(),
            "faults": dict(self.faults.counts),
        }

    async def serve(self, ready: Future[None]) -> None:
        """Run until asked to stop. ready: resolved when both ports answer."""
        streams, rest = self._listeners
        app = Starlette(routes=[*self._rest.routes(), *ControlEndpoint(self).routes()])
        config = uvicorn.Config(
            app, log_config=None, access_log=False, ws="none", lifespan="off", timeout_graceful_shutdown=_STOP_SECONDS
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[rest]))
        try:
            async with self._sockets.listening(streams):
                while not server.started and not serving.done():
                    await asyncio.sleep(_START_POLL_SECONDS)
                ready.set_result(None)
                await self._trade()
                self._sockets.abandon()
        finally:
            self._stopping.set()
            server.should_exit = True
            await serving

    async def _trade(self) -> None:
        while not self._stopping.is_set():
            if self._awaits_client and self._hub.is_heard:
                self.resume()
            self._obey_faults()
            self._publisher.publish_due()
            self._publisher.release_held()
            self._hub.flush()
            if self._publisher.is_over and not self._publisher.held_count:
                self.is_over.set()
            self._turns += 1
            await asyncio.sleep(0 if self._is_busy() else _TICK_SECONDS)

    def _is_busy(self) -> bool:
        is_unlimited = self._clock.is_unlimited and not self._clock.is_held and not self._publisher.is_over
        return self._publisher.behind_seconds > 0 or (is_unlimited and self._hub.is_heard)

    def _obey_faults(self) -> None:
        for fault in self.faults.take_due():
            if fault.kind is Kind.ID_RESET:
                self._publisher.reset_ids(fault, self.symbols)
            else:
                self._sockets.strike(fault)


@contextmanager
def exchange(settings: ExchangeSettings | None = None) -> Iterator[SimulatedExchange]:
    """Run an exchange beside the caller, as long as the context lasts. Raises BadInput, Misconfigured."""
    running, ready = SimulatedExchange(settings or ExchangeSettings()), Future[None]()
    with ThreadPoolExecutor(1, "exchange") as threads:
        served = threads.submit(lambda: asyncio.run(running.serve(ready)))
        served.add_done_callback(lambda _served: ready.cancel())
        try:
            if not _is_ready(ready):
                served.result()
            yield running
        finally:
            running.stop()
        served.result()


def _is_ready(ready: Future[None]) -> bool:
    """Wait for the ports; false when the exchange ended before."""
    try:
        ready.result()
    except CancelledError:
        return False
    return True


def _source(settings: ExchangeSettings) -> tuple[Market | None, Iterator[Tick], tuple[str, ...], int]:
    """The market, its ticks, its symbols, and the event time it begins at."""
    if settings.capture:
        symbols = recorded_symbols(settings.capture)
        return None, recorded(settings.capture), symbols, _first_us(recorded(settings.capture))
    start_us = _start_us(settings)
    market = Market(settings.seed, settings.symbols, start_us, settings.trades_per_second, settings.crash_after_seconds)
    return market, market.ticks(), settings.symbols, start_us


def _first_us(ticks: Iterator[Tick]) -> int:
    first = next(ticks, None)
    return first.at_us if first else 0


def _start_us(settings: ExchangeSettings) -> int:
    start = settings.start or _default_start(clock.now(), settings.speed)
    return int(start.timestamp()) * 1_000_000 + start.microsecond


def _default_start(now: datetime, speed: float) -> datetime:
    if speed == 1:
        return now
    return now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)


def _listeners(port: int, rest_port: int) -> tuple[socket.socket, socket.socket]:
    streams = _listen(port)
    try:
        return streams, _listen(rest_port)
    except Misconfigured:
        streams.close()
        raise


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise Misconfigured(f"port {port} of {HOST} cannot be listened on: {error.strerror or error}") from error
