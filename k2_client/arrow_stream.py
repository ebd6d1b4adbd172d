"""An Arrow stream read as its bytes arrive, and checked at its end.

K2 ends a stream with an empty batch that counts the rows before it and has the SHA-256 of their bytes: a stream without
it was cut off, one that differs from it was changed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

import pyarrow as pa

from k2_client.errors import Broken

_PREFIX = 8
"""Bytes before a message: the mark FFFFFFFF, then the length of its metadata."""
_MARK = 0xFFFFFFFF
_BODY_LENGTH_FIELD = 3
"""Place of bodyLength among the fields of Message in Arrow's Message.fbs."""
MESSAGE_BYTES_MAX = 1 << 30
"""No batch of K2 is a hundredth of it: a longer one is not from K2."""


class ArrowStream:
    """Bytes in, record batches out."""

    def __init__(self) -> None:
        self.is_complete = False
        self.rows = 0
        self._waiting = bytearray()
        self._schema = b""
        self._sha256 = hashlib.sha256()

    @property
    def columns(self) -> pa.Schema | None:
        """Names and types; None while they have not come."""
        return pa.ipc.read_schema(pa.BufferReader(self._schema)) if self._schema else None

    def feed(self, piece: bytes) -> Iterator[pa.RecordBatch]:
        """The batches a piece completes. Raises Broken."""
        self._waiting += piece
        while (message := self._message()) is not None:
            batch = self._read(message)
            if batch is not None:
                yield batch

    def _message(self) -> bytes | None:
        """The next whole message, taken out of what waits; None while it is not whole, or at the end."""
        if self.is_complete or len(self._waiting) < _PREFIX:
            return None
        mark, metadata = struct.unpack_from("<II", self._waiting)
        if mark != _MARK or metadata > MESSAGE_BYTES_MAX:
            raise Broken("the answer is no Arrow stream")
        if len(self._waiting) < _PREFIX + metadata:
            return None
        length = _PREFIX + metadata + (self._body_length(metadata) if metadata else 0)
        if len(self._waiting) < length:
            return None
        message = bytes(self._waiting[:length])
        del self._waiting[:length]
        return message

    def _body_length(self, metadata: int) -> int:
        try:
            length = _field_of(bytes(self._waiting[_PREFIX : _PREFIX + metadata]), _BODY_LENGTH_FIELD)
        except struct.error:
            raise Broken("a message of the stream cannot be read") from None
        if not 0 <= length <= MESSAGE_BYTES_MAX:
            raise Broken("a message of the stream has an impossible length")
        return length

    def _read(self, message: bytes) -> pa.RecordBatch | None:
        if len(message) == _PREFIX:
            raise Broken("the stream ended without its count and digest")
        if not self._schema:
            self._schema = message
            return None
        try:
            batch, told = pa.ipc.open_stream(self._schema + message).read_next_batch_with_custom_metadata()
        except (pa.ArrowException, StopIteration, OSError) as error:
            raise Broken(f"a message of the stream cannot be read: {error}") from None
        if told is not None and b"k2.sha256" in told:
            self._check(int(told[b"k2.rows"]), told[b"k2.sha256"].decode())
            return None
        if not self.rows:
            self._sha256.update(self._schema)  # Arrow's writer writes it with the first batch: without one, at the end
        self.rows += batch.num_rows
        self._sha256.update(message)
        return batch

    def _check(self, rows: int, sha256: str) -> None:
        if (rows, sha256) != (self.rows, self._sha256.hexdigest()):
            raise Broken(f"the stream has {self.rows:,} rows and should have {rows:,}, or its bytes were changed")
        self.is_complete = True


def _field_of(flatbuffer: bytes, field: int) -> int:
    """An int64 field of the root table of a flatbuffer; 0 where it is left out."""
    (table,) = struct.unpack_from("<I", flatbuffer)
    (back,) = struct.unpack_from("<i", flatbuffer, table)
    vtable = table - back
    (size,) = struct.unpack_from("<H", flatbuffer, vtable)
    entry = 4 + 2 * field
    if entry >= size:
        return 0
    (offset,) = struct.unpack_from("<H", flatbuffer, vtable + entry)
    return int(struct.unpack_from("<q", flatbuffer, table + offset)[0]) if offset else 0
