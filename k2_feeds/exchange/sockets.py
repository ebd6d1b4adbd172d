"""The WebSocket side: who may connect, what a connection may ask, how long it lives."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from http import HTTPStatus
from typing import cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from k2_feeds.exchange.budget import Window
from k2_feeds.exchange.controls import Malformed, obey, read_url
from k2_feeds.exchange.faults import Fault, Faults, Kind
from k2_feeds.exchange.frames import frame_bytes
from k2_feeds.exchange.hub import Hub
from k2_feeds.exchange.session import Session
from k2_feeds.exchange.settings import Limits

_CLOSE_SECONDS_MAX = 1.0
"""Patience with a client that does not take part in the closing handshake."""
_REQUEST_BYTES_MAX = 1 << 17
"""A request for 1,024 streams of the longest names fits."""
_TORN = frame_bytes('{"e":"trade","E":0,"s":"TORN"}')
"""Never arrives whole."""


class Sockets:
    """Connections of one exchange. now_us: the exchange's clock, for what it stamps."""

    def __init__(self, limits: Limits, hub: Hub, faults: Faults, now_us: Callable[[], int]) -> None:
        self._limits, self._hub, self._faults, self._now_us = limits, hub, faults, now_us
        self._attempts: dict[str, Window] = defaultdict(
            lambda: Window(limits.attempts_max, limits.attempts_window_seconds)
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self.attempts = 0
        self.refused = 0

    def listening(self, listener: socket.socket) -> AbstractAsyncContextManager[Server]:
        """Serve on a bound socket as long as the context lasts."""
        return serve(
            self._converse,
            sock=listener,
            process_request=self._admit,
            create_connection=Session,
            compression=None,
            ping_interval=None,  # pings are sent here: the library's do not wait a minute for the payload
            close_timeout=_CLOSE_SECONDS_MAX,
            max_size=_REQUEST_BYTES_MAX,
            server_header=None,
        )

    def strike(self, fault: Fault) -> None:
        """Let a fault of connections happen now, to as many as it says, the oldest first."""
        live = [session for session in self._hub.sessions if session.is_live]
        for session in live[: fault.count or None]:
            if fault.kind is Kind.HALF_OPEN:
                session.freeze()
            elif fault.kind is Kind.TEAR:
                session.tear(_TORN)
            elif fault.kind is Kind.CUT:
                session.cut()
            else:
                notice = self._limits.shutdown_notice_seconds if fault.seconds is None else fault.seconds
                self._hub.announce_shutdown(session, self._now_us())
                self._later(notice, session)

    def abandon(self) -> None:
        """End what cannot be closed in an orderly way, before the server closes the rest."""
        for task in self._tasks:
            task.cancel()
        for session in list(self._hub.sessions):
            if session.is_frozen:
                session.cut()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Let a handshake pass, or answer it with an HTTP error."""
        session = cast(Session, connection)
        self.attempts += 1
        address = str((session.remote_address or ("",))[0])
        if not self._attempts[address].admit(time.monotonic()):
            return self._refuse(session, HTTPStatus.TOO_MANY_REQUESTS, -1003, "Too many connection attempts.")
        if self._faults.strike(Kind.REFUSE):
            return self._refuse(session, HTTPStatus.SERVICE_UNAVAILABLE, -1008, "Server is currently overloaded.")
        try:
            subscriptions = read_url(request.path, self._limits.streams_max)
        except Malformed as refusal:
            return self._refuse(session, HTTPStatus.BAD_REQUEST, refusal.code, str(refusal))
        if subscriptions is None:
            return self._refuse(session, HTTPStatus.NOT_FOUND, -1000, "Not found.")
        session.open(subscriptions, Window(self._limits.messages_per_second_max, 1.0))
        return None

    def _refuse(self, session: Session, status: HTTPStatus, code: int, message: str) -> Response:
        self.refused += 1
        response = session.respond(status, json.dumps({"code": code, "msg": message}))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json;charset=UTF-8"
        if status is HTTPStatus.TOO_MANY_REQUESTS:
            response.headers["Retry-After"] = str(math.ceil(self._limits.attempts_window_seconds))
        return response

    async def _converse(self, connection: ServerConnection) -> None:
        session = cast(Session, connection)
        self._hub.join(session)
        tasks = [asyncio.create_task(watch(session)) for watch in (self._keep_alive, self._end_excess)]
        try:
            async for message in session:
                self._hub.answer(session, obey(message, session.subscriptions, self._limits.streams_max))
                self._hub.listen(session)
        except ConnectionClosed:
            pass  # who went away without a word has gone all the same
        finally:
            for task in tasks:
                task.cancel()
            self._hub.leave(session)

    async def _keep_alive(self, session: Session) -> None:
        """Ping, end a connection that does not answer, and any when its day is over."""
        ends = time.monotonic() + self._limits.connection_seconds_max
        with suppress(ConnectionClosed):
            while session.is_live:
                await asyncio.sleep(min(self._limits.ping_seconds, max(0.0, ends - time.monotonic())))
                if session.is_frozen:
                    return
                if time.monotonic() >= ends:
                    await session.close(CloseCode.GOING_AWAY, "24 hours are over")
                elif session.unanswered_seconds() > self._limits.pong_seconds_max:
                    await session.close(CloseCode.POLICY_VIOLATION, "Pong timeout")
                elif session.is_live:
                    session.send_ping()

    async def _end_excess(self, session: Session) -> None:
        await session.is_over_limit.wait()
        await session.close(CloseCode.POLICY_VIOLATION, "Too many requests")

    def _later(self, seconds: float, session: Session) -> None:
        async def close() -> None:
            await asyncio.sleep(seconds)
            if not session.is_frozen:
                await session.close(CloseCode.SERVICE_RESTART, "Server shutdown")

        task = asyncio.create_task(close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
