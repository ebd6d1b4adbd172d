"""Who listens to what: an event is written once per way of writing it, and given to everyone who asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from k2_feeds.exchange.frames import SHUTDOWN_STREAM, combined, frame_bytes, shutdown_event
from k2_feeds.exchange.session import Session

Event = Callable[[bool], str]
"""Writes an event, in microseconds or not."""
Spoil = Callable[[str], str]
"""What a fault makes of a frame's text."""


class Hub:
    """The sessions of the exchange, oldest first, and the streams they listen to. Lives in one event loop."""

    def __init__(self) -> None:
        self.sessions: dict[Session, None] = {}
        self._listeners: dict[str, set[Session]] = defaultdict(set)
        self._unflushed: set[Session] = set()
        self.frames_sent = 0

    def join(self, session: Session) -> None:
        """Take a session in, with the streams it has."""
        self.sessions[session] = None
        self.listen(session)

    def leave(self, session: Session) -> None:
        """Forget a session."""
        self.sessions.pop(session, None)
        self._unflushed.discard(session)
        for stream in list(self._listeners):
            self._unlisten(stream, session)

    def listen(self, session: Session) -> None:
        """Follow a change of a session's streams."""
        wanted = session.subscriptions.streams
        for stream, sessions in list(self._listeners.items()):
            if session in sessions and stream not in wanted:
                self._unlisten(stream, session)
        for stream in wanted:
            self._listeners[stream].add(session)

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens to anything."""
        return bool(self._listeners)

    @property
    def unsent_bytes(self) -> int:
        """What the slowest reader has not taken yet."""
        return max((session.unsent_bytes for session in self.sessions if session.is_live), default=0)

    def send(self, stream: str, event: Event, spoil: Spoil | None = None) -> None:
        """Queue an event for everyone who listens to its stream."""
        written: dict[tuple[bool, bool], bytes] = {}
        for session in self._listeners.get(stream, ()):
            how = (session.subscriptions.is_combined, session.subscriptions.is_microseconds)
            frame = written.get(how)
            if frame is None:
                content = combined(stream, event(how[1])) if how[0] else event(how[1])
                frame = written[how] = frame_bytes(spoil(content) if spoil else content)
            self._queue(session, frame)

    def answer(self, session: Session, content: str) -> None:
        """Queue an answer to one session."""
        self._queue(session, frame_bytes(content))

    def announce_shutdown(self, session: Session, now_us: int) -> None:
        """Queue the word that a session will be cut."""
        event = shutdown_event(now_us, microseconds=session.subscriptions.is_microseconds)
        is_combined = session.subscriptions.is_combined
        self.answer(session, combined(SHUTDOWN_STREAM, event) if is_combined else event)

    def flush(self) -> None:
        """Send everything queued."""
        for session in self._unflushed:
            session.flush()
        self._unflushed.clear()

    def _queue(self, session: Session, frame: bytes) -> None:
        if session.is_live:
            session.queue(frame)
            self._unflushed.add(session)
            self.frames_sent += 1

    def _unlisten(self, stream: str, session: Session) -> None:
        self._listeners[stream].discard(session)
        if not self._listeners[stream]:
            del self._listeners[stream]
