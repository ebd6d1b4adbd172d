"""Records that wait on disk, in order, for a reader that fell behind; they outlive the process that wrote them.

A folder of segments, numbered in order. A record is its length, a CRC-32 of length and content, and the content. Bytes
go straight to the operating system, so a process that is killed leaves at most one torn record, at the very end.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from k2_core.errors import AlreadyRunning, Damaged, K2Error, Unwritable

SEGMENT_BYTES = 8 << 20
"""A segment is deleted as a whole, so this is also the most that is read again after a crash."""
RECORD_BYTES_MAX = 16 << 20
"""A length beyond it is no length but damage."""
_READ_BYTES = 1 << 20
"""Taken from a segment at once, unless a record is longer."""
_FIRST_NUMBER = 1_000_000_000
"""Room for a billion segments before the first: what came earlier may have to be put there."""
_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_SUFFIX = ".spill"
_DAMAGED_SUFFIX = ".damaged"


class SpillFull(K2Error):
    """Raised when a record fits neither into memory nor onto the disk; going on would lose it."""

    code = "SPILL_FULL"


@dataclass
class _Segment:
    """One file. bytes_written: whole records. bytes_read: how far it was handed out."""

    path: Path
    bytes_written: int
    bytes_read: int = 0

    @property
    def is_read(self) -> bool:
        return self.bytes_read >= self.bytes_written


@dataclass(frozen=True)
class Found:
    """What an earlier process left: records that are whole, bytes of the torn one, segments that were damaged inside.

    A damaged segment is kept beside the others under another name, up to its damage its records are in `records`.
    """

    records: int = 0
    torn_bytes: int = 0
    damaged: tuple[str, ...] = ()


@dataclass
class Spill:
    """A queue on disk. One process at a time; not to be shared between threads without a lock.

    folder: made when it does not exist. bytes_max: of all segments together. Raises AlreadyRunning, Unwritable.
    """

    folder: Path
    bytes_max: int
    segment_bytes: int = SEGMENT_BYTES
    found: Found = field(init=False, default_factory=Found)
    bytes_held: int = field(init=False, default=0)
    """Bytes on disk, those handed out and not yet released included."""
    _segments: list[_Segment] = field(init=False, default_factory=list)
    _reading: int = field(init=False, default=0)
    _writer: int | None = field(init=False, default=None)
    _lock: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise Unwritable(f"{self.folder}: {error.strerror}; expected a folder to spill to") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise AlreadyRunning(f"{self.folder} belongs to a running feed; give this one another name") from None
        self._recover()

    @property
    def is_empty(self) -> bool:
        """Whether every record was handed out."""
        return all(segment.is_read for segment in self._segments)

    def append(self, record: bytes) -> None:
        """Write one record behind all others. Raises SpillFull, also when the disk is."""
        framed = _framed(record)
        if self.bytes_held + len(framed) > self.bytes_max:
            raise SpillFull(
                f"{self.folder}: {self.bytes_held:,} bytes wait, at most {self.bytes_max:,} may; no more is taken. Is "
                "the broker running? What waits is sent first when the feed is started again"
            )
        if self._writer is None or self._segments[-1].bytes_written >= self.segment_bytes:
            self._roll()
        self._write(framed)

    def prepend(self, records: Sequence[bytes]) -> None:
        """Write records before all others: they were taken earlier and came back. Raises SpillFull."""
        if not records:
            return
        first = min((_number(segment.path) for segment in self._segments), default=_FIRST_NUMBER) - 1
        path, content = self._path(first), b"".join(map(_framed, records))
        try:
            path.write_bytes(content)
        except OSError as error:
            raise _no_room(path, error) from error
        for segment in self._segments:
            segment.bytes_read = 0  # whatever was handed out and not released comes again, behind these
        self._segments.insert(0, _Segment(path, len(content)))
        self.bytes_held += len(content)
        self._reading = 0

    def read(self, records_max: int) -> list[bytes]:
        """Hand out the next records in order; fewer at the end of a segment, none when all were."""
        while self._reading < len(self._segments):
            segment = self._segments[self._reading]
            if not segment.is_read:
                return self._read(segment, records_max)
            if segment is self._segments[-1]:
                return []
            self._reading += 1
        return []

    def release(self) -> None:
        """Forget what was handed out: it is safe elsewhere. Whole segments go, and the last one once it is read."""
        while self._segments and self._segments[0].is_read:
            segment = self._segments.pop(0)
            if not self._segments:
                self._close_writer()
            with suppress(FileNotFoundError):
                segment.path.unlink()
            self.bytes_held -= segment.bytes_written
            self._reading = max(0, self._reading - 1)

    def close(self) -> None:
        """Let go of the folder; what was not released stays."""
        self._close_writer()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _recover(self) -> None:
        records, torn, damaged = 0, 0, []
        paths = sorted(self.folder.glob(f"*{_SUFFIX}"), key=_number)
        for path in paths:
            content = path.read_bytes()
            lengths = [len(record) for record in _records(content)]
            whole = sum(lengths) + _HEAD.size * len(lengths)
            records += len(lengths)
            if whole < len(content):
                if path is paths[-1]:
                    torn = len(content) - whole
                else:
                    path.with_suffix(_DAMAGED_SUFFIX).write_bytes(content)
                    damaged.append(path.with_suffix(_DAMAGED_SUFFIX).name)
                os.truncate(path, whole)
            self._segments.append(_Segment(path, whole))
            self.bytes_held += whole
        self.found = Found(records, torn, tuple(damaged))
        self.release()

    def _read(self, segment: _Segment, records_max: int) -> list[bytes]:
        with segment.path.open("rb") as file:
            file.seek(segment.bytes_read)
            content = file.read(_READ_BYTES)
            found = list(islice(_records(content), records_max)) or list(islice(_records(content + file.read()), 1))
        if not found:
            raise Damaged(f"{segment.path}: the record at byte {segment.bytes_read} is not what was written there")
        segment.bytes_read += sum(_HEAD.size + len(record) for record in found)
        return found

    def _write(self, framed: bytes) -> None:
        assert self._writer is not None, "a segment is open"
        segment = self._segments[-1]
        try:
            written = os.write(self._writer, framed)
            if written < len(framed):
                raise OSError(0, "the disk took a part of a record only")
        except OSError as error:
            os.ftruncate(self._writer, segment.bytes_written)
            os.lseek(self._writer, segment.bytes_written, os.SEEK_SET)
            raise _no_room(segment.path, error) from error
        segment.bytes_written += len(framed)
        self.bytes_held += len(framed)

    def _roll(self) -> None:
        self._close_writer()
        number = _number(self._segments[-1].path) + 1 if self._segments else _FIRST_NUMBER
        path = self._path(number)
        try:
            self._writer = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _no_room(path, error) from error
        self._segments.append(_Segment(path, 0))

    def _close_writer(self) -> None:
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012d}{_SUFFIX}"


def _framed(record: bytes) -> bytes:
    return _HEAD.pack(len(record), _checksum(record)) + record


def _checksum(record: bytes) -> int:
    """Over length and content: a stretch of zeros must not look like empty records."""
    return zlib.crc32(record, zlib.crc32(_LENGTH.pack(len(record))))


def _records(content: bytes) -> Iterator[bytes]:
    """Whole records from the beginning, up to the end or the first damage."""
    at = 0
    while at + _HEAD.size <= len(content):
        length, checksum = _HEAD.unpack_from(content, at)
        record = content[at + _HEAD.size : at + _HEAD.size + length]
        if length > RECORD_BYTES_MAX or len(record) < length or _checksum(record) != checksum:
            return
        yield record
        at += _HEAD.size + length


def _number(path: Path) -> int:
    return int(path.stem)


def _no_room(path: Path, error: OSError) -> SpillFull:
    return SpillFull(f"{path}: {error.strerror}; nothing more is taken. Make room, then start the feed again")
