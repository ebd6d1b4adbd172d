"""The sockets of a live feed in a thread of their own: every frame into the buffer, whatever else goes on."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import structlog

from k2_feeds.live.admission import Admission
from k2_feeds.live.buffer import Buffer, Received
from k2_feeds.live.links import Counts, Link, Timing
from k2_feeds.live.streams import symbol_of
from k2_feeds.live.vitals import Memory, Silence
from k2_resources.binance.stream import Endpoint
from k2_resources.memory import resident_bytes

_LOOK_SECONDS = 1.0
_MEMORY_SECONDS = 15.0
"""Between two samples of memory: 240 in the hour they are judged by."""
_STREAM = b'{"stream":"'
_STREAM_CHARACTERS_MAX = 200

log = structlog.get_logger(__name__)


@dataclass
class Intake:
    """Reads some connections into a buffer until it is stopped.

    connections: the streams of each. now_us: the clock of receipt, µs UTC. on_end: told, in its own thread, why it
    ended; None when it was stopped. A full buffer, or an address that cannot be right, ends it and the buffer.
    """

    connections: Sequence[Sequence[str]]
    endpoint: Endpoint
    buffer: Buffer
    now_us: Callable[[], int]
    timing: Timing
    admission: Admission
    silence: Silence
    on_end: Callable[[BaseException | None], None]
    memory: Memory = field(default_factory=Memory)
    counts: Counts = field(default_factory=Counts)
    _symbols: dict[bytes, str] = field(default_factory=dict)
    _thread: threading.Thread | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _stop: asyncio.Event | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _is_asked_to_stop: bool = False

    def start(self) -> None:
        """Begin to connect."""
        for name in chain.from_iterable(self.connections):
            # JSON may escape what is not ASCII, or not
            for written in (name, json.dumps(name)[1:-1]):
                self._symbols[written.encode()] = symbol_of(name)
        self.silence.expect(self._symbols.values(), time.monotonic())
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="k2-sockets", daemon=True)
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Close every connection and end the buffer. From any thread, at any time, more than once."""
        self._is_asked_to_stop = True
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # closed already
                self._loop.call_soon_threadsafe(self._stop.set)

    def join(self, seconds_max: float) -> None:
        """Wait until the connections are closed."""
        if self._thread is not None:
            self._thread.join(seconds_max)

    async def _run(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        if self._is_asked_to_stop:
            self._stop.set()
        self._ready.set()
        links = [self._link(number, names) for number, names in enumerate(self.connections, start=1)]
        tasks = [asyncio.create_task(work) for work in (*(link.keep() for link in links), self._watch())]
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            error = await _ended([*tasks, stopped])
            self.buffer.end(error)
            self.on_end(error)

    def _link(self, number: int, names: Sequence[str]) -> Link:
        return Link(str(number), names, self.endpoint, self.admission, self._take, self.timing, self.counts)

    def _take(self, frame: bytes) -> None:
        self.buffer.put(Received(self.now_us(), frame))
        symbol = self._symbols.get(_stream_of(frame))
        if symbol is not None:
            self.silence.heard[symbol] = time.monotonic()

    async def _watch(self) -> None:
        """Look after the silence of each symbol and the growth of memory."""
        sampled = float("-inf")
        while True:
            now = time.monotonic()
            if now - sampled >= _MEMORY_SECONDS:
                sampled = now
                self.memory.sample(now, resident_bytes())
            silent, speaking = self.silence.looked(now)
            for symbol in silent:
                log.warning("symbol is silent", feed="binance-live", symbol=symbol, seconds=self.silence.seconds_max)
            for symbol in speaking:
                log.info("symbol speaks again", feed="binance-live", symbol=symbol)
            await asyncio.sleep(_LOOK_SECONDS)


async def _ended(tasks: Iterable[asyncio.Task[Any]]) -> BaseException | None:
    """End every task. Returns what ended one of them early, for the producing thread to raise."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # the transport of an attempt that was cancelled closes in the next turn of the loop
    return next((outcome for outcome in outcomes if isinstance(outcome, Exception)), None)


def _stream_of(frame: bytes) -> bytes:
    """The name of the stream of a combined frame, without reading all of it; empty for any other frame."""
    if not frame.startswith(_STREAM):
        return b""
    end = frame.find(b'"', len(_STREAM), _STREAM_CHARACTERS_MAX)
    return frame[len(_STREAM) : end] if end > 0 else b""
