"""The Confluent frame: which writer schema a record names, and where its body lies in one buffer.

All records of a slice are joined once; everything after that is positions in the joined bytes. Nothing here loops over
good records in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2_core.quality import Reason

MAGIC = 0
"""First byte of the Confluent wire format; four bytes of schema id follow, big-endian."""
HEADER_BYTES = 5
PAD_BYTES = 64
"""Zero bytes behind the last record: an eight-byte read at its end stays inside, and stray cursors rest there."""
_HEADER = np.uint64((1 << 8 * HEADER_BYTES) - 1)
_ID_BITS = np.uint64(0xFFFFFFFF)
_IDS_END = 1 << 31
"""Schema ids are positive int32."""

Longs = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Frames:
    """Some byte strings inside one buffer. data: shape (m,), PAD_BYTES zeros at its end; starts, ends: [start, end)."""

    data: Bytes
    starts: Longs
    ends: Longs

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> Frames:
        """Join values; a missing one is empty."""
        joined = pa.array([*values, bytes(PAD_BYTES)], pa.large_binary())
        offsets = np.frombuffer(joined.buffers()[1], np.int64, len(values) + 1)
        data = np.frombuffer(joined.buffers()[2], np.uint8, int(offsets[-1]) + PAD_BYTES)
        return cls(data, offsets[:-1], offsets[1:])

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, at: int) -> bytes:
        return self.data[self.starts[at] : self.ends[at]].tobytes()

    def some(self, at: Longs) -> Frames:
        """Those at the given places, in that order, in the same buffer."""
        return Frames(self.data, self.starts[at], self.ends[at])


@dataclass(frozen=True)
class Unframed:
    """Why one record has no readable frame. index: its place among the values given."""

    index: int
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Framed:
    """Values split by the writer schema they name.

    bodies: what follows the header, of every value. by_schema: schema id -> places of its values, ascending.
    """

    bodies: Frames
    by_schema: dict[int, Longs]
    bad: tuple[Unframed, ...]


def unframe(frames: Frames, values: Sequence[bytes | None]) -> Framed:
    """Read the header of every value. frames: the values joined."""
    bodies = Frames(frames.data, frames.starts + HEADER_BYTES, frames.ends)
    if not len(frames):
        return Framed(bodies, {}, ())
    headers = words_of(frames.data)[frames.starts] & _HEADER
    whole = bool((bodies.starts <= bodies.ends).all())
    if whole and (headers == headers[0]).all() and (first := schema_id_of(frames[0])) is not None:
        return Framed(bodies, {first: np.arange(len(frames))}, ())
    ids = (headers.byteswap() >> np.uint64(24) & _ID_BITS).astype(np.int64)
    good = (bodies.starts <= bodies.ends) & (headers & np.uint64(0xFF) == MAGIC) & (ids < _IDS_END)
    bad = tuple(_why(i, values[i]) for i in np.flatnonzero(~good).tolist())
    by_schema = {int(i): np.flatnonzero(good & (ids == i)) for i in np.unique(ids[good])}
    return Framed(bodies, by_schema, bad)


def words_of(data: Bytes) -> npt.NDArray[np.uint64]:
    """Every eight neighbouring bytes as one little-endian number, at any byte; no copy."""
    return np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))


def schema_id_of(value: bytes | None) -> int | None:
    """The writer schema id a frame names; None where there is no frame, or no id a registry could give."""
    if value is None or len(value) < HEADER_BYTES or value[0] != MAGIC or value[1] & 0x80:
        return None
    return int.from_bytes(value[1:HEADER_BYTES], "big")


def _why(index: int, value: bytes | None) -> Unframed:
    if value is None:
        return Unframed(index, Reason.NULL_VALUE, "a tombstone; this topic holds events, nothing is deleted by key")
    if not value:
        return Unframed(index, Reason.EMPTY, "no bytes; expected a Confluent frame")
    if value[0] != MAGIC:
        return Unframed(index, Reason.BAD_MAGIC, f"first byte {value[0]:#04x}; expected {MAGIC:#04x}")
    if len(value) < HEADER_BYTES:
        return Unframed(index, Reason.TRUNCATED, f"{len(value)} bytes; the frame alone has {HEADER_BYTES}")
    found = value[1:HEADER_BYTES].hex()
    return Unframed(index, Reason.UNKNOWN_SCHEMA, f"schema id 0x{found} is negative; ids are positive int32")
