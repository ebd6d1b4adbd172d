"""Frames between the sockets and the producer: in memory while that is enough, then on disk, in the order they came.

A frame stays in here until what became of it is acknowledged. So a process that is asked to end keeps for its next
start whatever the broker did not take.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from dataclasses import dataclass, field

from k2_core.errors import K2Error
from k2_resources.spill import Spill

_RECEIVED = struct.Struct("<q")
_OVERHEAD_BYTES = 160
"""What the interpreter keeps around one frame: two objects and their places in a deque."""


@dataclass(frozen=True, slots=True)
class Received:
    """One frame as the socket gave it. received_us: when, µs UTC."""

    received_us: int
    content: bytes

    def pack(self) -> bytes:
        """As a record of the spill file."""
        return _RECEIVED.pack(self.received_us) + self.content

    @classmethod
    def unpack(cls, record: bytes) -> Received:
        """Read a record back; the inverse of `pack`."""
        return cls(_RECEIVED.unpack_from(record)[0], record[_RECEIVED.size :])


@dataclass
class Buffer:
    """A queue with one writer thread and one reader thread. bytes_max: of memory; the spill has its own limit."""

    spill: Spill
    bytes_max: int
    bytes_held: int = field(init=False, default=0)
    spilled: int = field(init=False, default=0)
    """Frames that had to go to disk since the start."""
    _memory: deque[Received] = field(init=False, default_factory=deque)
    _in_hand: list[Received] = field(init=False, default_factory=list)
    _ready: threading.Condition = field(init=False, default_factory=threading.Condition)
    _ended: bool = field(init=False, default=False)
    _error: BaseException | None = field(init=False, default=None)

    @property
    def frames_held(self) -> int:
        """Frames in memory that nobody took yet."""
        return len(self._memory)

    def put(self, frame: Received) -> None:
        """Take one frame, never waiting. Raises SpillFull, and so does the reader from then on."""
        with self._ready:
            if self._error is not None:
                raise self._error
            # once something waits on disk, what is newer has to queue behind it
            if self.spill.is_empty and self.bytes_held + _cost(frame) <= self.bytes_max:
                self._memory.append(frame)
                self.bytes_held += _cost(frame)
            else:
                self._to_disk(frame)
            self._ready.notify()

    def take(self, frames_max: int, seconds_max: float) -> list[Received] | None:
        """Hand out the next frames in order; empty when none came in time, None after the last.

        They count as held until `release`. Raises what ended the queue early.
        """
        with self._ready:
            if not self._has_some() and not self._ended:
                self._ready.wait(seconds_max)
            if self._error is not None:
                raise self._error
            if not self._has_some():
                return None if self._ended else []
            return self._from_memory(frames_max) or [Received.unpack(r) for r in self.spill.read(frames_max)]

    def release(self) -> None:
        """Let go of everything handed out: it is acknowledged."""
        with self._ready:
            self.bytes_held -= sum(map(_cost, self._in_hand))
            self._in_hand.clear()
            self.spill.release()

    def end(self, error: BaseException | None = None) -> None:
        """Say that no more comes, or why none can be taken."""
        with self._ready:
            self._ended = True
            self._error = self._error or error
            self._ready.notify_all()

    def keep(self) -> int:
        """Put what memory holds, handed out or not, onto disk for the next start. Returns how many frames.

        It goes before everything on disk, which is newer, but for frames from there that were on their way.
        """
        with self._ready:
            frames = [*self._in_hand, *self._memory]
            self.spill.prepend([frame.pack() for frame in frames])
            self._in_hand.clear()
            self._memory.clear()
            self.bytes_held = 0
            return len(frames)

    def _has_some(self) -> bool:
        return bool(self._memory) or not self.spill.is_empty

    def _from_memory(self, frames_max: int) -> list[Received]:
        taken = [self._memory.popleft() for _ in range(min(frames_max, len(self._memory)))]
        self._in_hand += taken
        return taken

    def _to_disk(self, frame: Received) -> None:
        try:
            self.spill.append(frame.pack())
        except K2Error as error:
            self._error, self._ended = error, True
            self._ready.notify_all()
            raise
        self.spilled += 1


def _cost(frame: Received) -> int:
    return len(frame.content) + _OVERHEAD_BYTES
