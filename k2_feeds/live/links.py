"""A set of streams that never stops flowing: one connection, two while one replaces the other, a new one when it dies.

Make before break: the old connection is let go only after the new one has confirmed every stream and both have run
side by side for a while. What comes twice is told by its id, later.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from k2_core.errors import Unreachable
from k2_feeds.live.admission import BACKOFF_SECONDS, BACKOFF_SECONDS_MAX, Admission, backoff
from k2_resources.binance.stream import Endpoint, Refused, Stream

Reason = Literal["ended", "planned", "server_shutdown", "silence"]
"""Why a connection is replaced. ended: it was lost. planned: its time was up. The other two were noticed on it."""
REASONS: tuple[Reason, ...] = ("ended", "planned", "server_shutdown", "silence")
Sink = Callable[[bytes], None]

_SHUTDOWN = b"serverShutdown"
_SHUTDOWN_CHARACTERS_MAX = 200
"""The announcement of a cut is a short frame; what is longer is not searched for it."""
_ROTATION_JITTER = 0.1
"""Connections opened together are not replaced together: each goes up to a tenth sooner."""
_SILENCE_SECONDS_MAX = 3_600.0
"""Patience with a silent connection doubles while its successors are silent, too: nothing may be traded at all."""
_CLOSE_SECONDS_MAX = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Timing:
    """When connections are replaced. All in seconds.

    rotate: age at which one is replaced; the exchange cuts at 24 h. overlap: how long old and new run side by side.
    silence: without any frame for so long a connection counts as dead. stable: one that ends sooner counts as failed.
    """

    rotate: float = 14_400.0
    overlap: float = 5.0
    silence: float = 60.0
    stable: float = 10.0
    backoff: float = BACKOFF_SECONDS
    backoff_max: float = BACKOFF_SECONDS_MAX


@dataclass
class Counts:
    """What happened to the connections of a feed so far. open: how many carry streams now."""

    attempts: int = 0
    failures: int = 0
    open: int = 0
    replaced: Counter[Reason] = field(default_factory=Counter)


@dataclass(eq=False)
class Session:
    """One connection and the task that reads it. Times are of the steady clock."""

    stream: Stream
    sink: Sink
    opened: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    frames: int = 0
    shutdown: asyncio.Event = field(default_factory=asyncio.Event)
    reader: asyncio.Task[str] = field(init=False)

    def __post_init__(self) -> None:
        self.reader = asyncio.create_task(self.stream.read(self._on_frame))

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return round(time.monotonic() - self.opened, 1)

    def raise_what_the_sink_raised(self) -> None:
        """Go on only if the connection itself ended, or did not."""
        if self.reader.done() and not self.reader.cancelled() and (error := self.reader.exception()):
            raise error

    async def close(self) -> None:
        """Let go of the connection, reading on until the other side said goodbye."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS_MAX):
                await self.stream.close()
        _, pending = await asyncio.wait({self.reader}, timeout=_CLOSE_SECONDS_MAX)
        for task in pending:
            task.cancel()

    def _on_frame(self, frame: bytes) -> None:
        self.heard = time.monotonic()
        self.frames += 1
        if len(frame) < _SHUTDOWN_CHARACTERS_MAX and _SHUTDOWN in frame:
            self.shutdown.set()
        self.sink(frame)


@dataclass
class Link:
    """Keeps one set of streams flowing into a sink. name: what logs and metrics call it."""

    name: str
    streams: Sequence[str]
    endpoint: Endpoint
    admission: Admission
    sink: Sink
    timing: Timing
    counts: Counts
    feed: str = "binance-live"
    _failures: int = 0
    _open: set[Session] = field(default_factory=set)
    _patience: float = field(init=False)
    _log: Any = field(init=False)

    def __post_init__(self) -> None:
        self._patience = self.timing.silence
        self._log = log.bind(feed=self.feed, connection=self.name)

    async def keep(self) -> None:
        """Run until cancelled. Raises what the sink raises, and Misconfigured."""
        try:
            session = await self._connected()
            while True:
                reason = await self._until_due(session)
                self.counts.replaced[reason] += 1
                if reason == "planned":  # however short the plan, it lived as long as it should
                    self._proved()
                session = await (self._after(session) if reason == "ended" else self._replaced(session, reason))
        finally:
            await asyncio.gather(*map(self._let_go, list(self._open)))

    async def _after(self, ended: Session) -> Session:
        """Take note of a connection that was lost, and make another.

        One that hardly lived is a failed one: whoever accepts and cuts at once must not be hammered.
        """
        self._log.warning("the connection ended", how=ended.reader.result(), lived_seconds=ended.age)
        if ended.age < self.timing.stable:
            self._failures += 1
            self.admission.failed()
        await self._let_go(ended)
        return await self._connected()

    async def _replaced(self, old: Session, reason: Reason) -> Session:
        """Make the successor, let both run side by side, break the old one. Returns who goes on."""
        self._log.info("replacing the connection", reason=reason, age_seconds=old.age)
        self._patience = min(2 * self._patience, _SILENCE_SECONDS_MAX) if reason == "silence" else self.timing.silence
        new = await self._connected()
        await asyncio.wait({old.reader, new.reader}, timeout=self.timing.overlap)
        if new.reader.done() and not old.reader.done():
            self._failures += 1
            new, old = old, new
        await self._let_go(old)
        return new

    async def _let_go(self, session: Session) -> None:
        self._open.discard(session)
        self.counts.open -= 1
        await session.close()
        session.raise_what_the_sink_raised()

    async def _until_due(self, session: Session) -> Reason:
        """Wait until a connection has to be replaced, and say why."""
        rotate = session.opened + self.timing.rotate * (1 - _ROTATION_JITTER * random.random())  # noqa: S311
        announced = asyncio.create_task(session.shutdown.wait())
        proof = asyncio.get_running_loop().call_later(self.timing.stable - session.age, self._proved)
        try:
            while True:
                due = min(rotate, session.heard + self._patience) - time.monotonic()
                await asyncio.wait(
                    {session.reader, announced}, timeout=max(0.0, due), return_when=asyncio.FIRST_COMPLETED
                )
                if session.frames:
                    self._patience = self.timing.silence
                if reason := self._reason(session, rotate):
                    return reason
        finally:
            announced.cancel()
            proof.cancel()

    def _proved(self) -> None:
        self._failures = 0
        self.admission.proved()

    def _reason(self, session: Session, rotate: float) -> Reason | None:
        now = time.monotonic()
        if session.reader.done():
            session.raise_what_the_sink_raised()
            return "ended"
        if session.shutdown.is_set():
            return "server_shutdown"
        if now >= rotate:
            return "planned"
        return "silence" if now >= session.heard + self._patience else None

    async def _connected(self) -> Session:
        """Open a connection and wait until it carries every stream, however often it takes."""
        if self._failures:
            await asyncio.sleep(self._pause())
        while True:
            await self.admission.enter()
            try:
                session = await self._attempt()
            except Unreachable as error:
                self._failures += 1
                self.counts.failures += 1
                self.admission.failed(error.retry_seconds if isinstance(error, Refused) else 0.0)
                pause = self._pause()
                self._log.warning("no connection", reason=str(error), failures=self._failures, pause_seconds=pause)
                await asyncio.sleep(pause)
                continue
            except BaseException:
                self.admission.abandoned()
                raise
            self.admission.succeeded()
            self._open.add(session)
            self.counts.open += 1
            self._log.info("connected", streams=len(self.streams))
            return session

    async def _attempt(self) -> Session:
        self.counts.attempts += 1
        session = Session(await Stream.open(self.endpoint, self.streams), self.sink)
        try:
            await session.stream.confirm()
        except BaseException:
            await session.close()
            session.raise_what_the_sink_raised()
            raise
        return session

    def _pause(self) -> float:
        return round(backoff(self._failures, first=self.timing.backoff, seconds_max=self.timing.backoff_max), 3)
