"""One client's connection: what it counts, what waits to be sent to it, and the ways it can go wrong."""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN

from k2_feeds.exchange.budget import Window
from k2_feeds.exchange.controls import Subscriptions

UNSENT_BYTES_MAX = 64 << 20
"""A client that reads so far behind is cut off, as a real exchange does."""
_MESSAGES = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG})
"""Frames that count as one message each; the pieces of a long one do not."""
NO_SUBSCRIPTIONS = Subscriptions(is_combined=False, is_microseconds=False)


class Session(ServerConnection):
    """A connection whose events are written as bytes made once for all clients.

    Every frame from the client is counted, control frames too, and a pong counts only with the payload of a ping.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.subscriptions = NO_SUBSCRIPTIONS
        self.is_frozen = False
        self.is_over_limit = asyncio.Event()
        self._outbox: list[bytes] = []
        self._messages: Window | None = None
        self._pings: dict[bytes, float] = {}

    def open(self, subscriptions: Subscriptions, messages: Window) -> None:
        """Begin with the streams of the URL."""
        self.subscriptions, self._messages = subscriptions, messages

    @property
    def is_live(self) -> bool:
        """Whether events can be sent: the connection is open, and not one that only seems so."""
        return self.protocol.state is OPEN and not self.is_frozen and not self.transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def process_event(self, event: Any) -> None:
        """Count a frame before the library sees it."""
        if isinstance(event, Frame):
            self._count(event)
        super().process_event(event)

    def queue(self, frame: bytes) -> None:
        """Add a frame to what is sent next."""
        self._outbox.append(frame)

    def flush(self) -> None:
        """Send what waits, in one write."""
        frames, self._outbox = self._outbox, []
        if not frames or not self.is_live:
            return
        self.transport.write(b"".join(frames))
        if self.unsent_bytes > UNSENT_BYTES_MAX:
            self.cut()

    def send_ping(self) -> None:
        """Ping with a payload no other ping of this connection has."""
        now = self.loop.time()
        payload = b"%d" % (now * 1_000_000)
        self._pings[payload] = now
        self.protocol.send_ping(payload)
        self.send_data()

    def unanswered_seconds(self) -> float:
        """Age of the oldest ping whose payload has not come back; 0 without one."""
        oldest = next(iter(self._pings.values()), None)
        return 0.0 if oldest is None else self.loop.time() - oldest

    def freeze(self) -> None:
        """Send and answer nothing more, and keep the connection open: the peer is gone and nobody was told."""
        self.is_frozen = True
        self._outbox.clear()
        self.transport.pause_reading()

    def cut(self) -> None:
        """End the connection without a closing handshake."""
        self.transport.abort()

    def tear(self, frame: bytes) -> None:
        """End the connection in the middle of a frame."""
        self.flush()
        self.transport.write(frame[: len(frame) // 2])
        self.transport.close()

    def _count(self, frame: Frame) -> None:
        if frame.opcode in _MESSAGES and self._messages and not self._messages.admit(self.loop.time()):
            self.is_over_limit.set()
        if frame.opcode is Opcode.PONG and bytes(frame.data) in self._pings:
            self._answered(bytes(frame.data))

    def _answered(self, payload: bytes) -> None:
        """Forget a ping and the ones before it, which the same pong answers."""
        for earlier in list(self._pings):
            del self._pings[earlier]
            if earlier == payload:
                break
