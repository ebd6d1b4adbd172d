"""The lines of a file, gz or plain by its first bytes, with their numbers, up to wherever it is damaged."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from k2_core.errors import BadInput
from k2_feeds.outcomes import Refusal, Rejected

GZIP_MAGIC = b"\x1f\x8b"
READ_BYTES = 1 << 20
"""Compressed bytes taken at once."""
BLOCK_BYTES = 1 << 21
"""Lines read in step: some ten thousand of a market, which with what is made of them stay in the cache."""
LINE_BYTES_MAX = 16 << 20
"""Longer is not a line but a file of another kind; the longest real frame (exchangeInfo) has 3 MB."""
KEPT_BYTES_MAX = 1 << 16
"""What is kept of a line that is too long: enough to see what it is."""
_GZIP_WINDOW = zlib.MAX_WBITS | 16
"""Tells zlib to expect a gzip header and to verify its checksum."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end. number: from 1."""

    number: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring lines with their ends; the last line of a file may have none. number: of the first, from 1."""

    number: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Where and why a file cannot be read on."""

    detail: str


def read_lines(path: Path) -> Iterator[Line | Rejected]:
    """Every line of a file, then where it is damaged, if it is.

    A last line cut short by the damage is part of the damage: half a row may look like a whole one.
    Lines that are too long come as rejections. Raises BadInput when the file cannot be opened.
    """
    return _split(str(path), _content(path))


def read_blocks(path: Path) -> Iterator[Block | Rejected]:
    """The same lines, many at once. One that is too long may be inside a block: `line_of` tells. Raises BadInput."""
    return _blocks(str(path), _content(path))


def blocks_of(file: str, contents: Iterable[bytes | Damage]) -> Iterator[Block | Rejected]:
    """The same of something that is not a file. contents: bytes in any pieces, ended by damage; file: its name."""
    return _blocks(file, iter(contents))


def line_of(file: str, number: int, content: bytes) -> Line | Rejected:
    """One line of a block, or why it is none."""
    return _line(file, number, content, 0)


def lines_of(file: str, contents: Iterable[bytes | Damage]) -> Iterator[Line | Rejected]:
    """The lines of something that is not a file. contents: bytes in any pieces, ended by damage; file: its name."""
    return _split(file, iter(contents))


def content_digest(path: Path) -> str:
    """SHA-256 of what the file holds, the same for a gz and its plain twin. Raises BadInput."""
    digest = hashlib.sha256()
    for piece in _content(path):
        digest.update(piece if isinstance(piece, bytes) else piece.detail.encode())
    return digest.hexdigest()


def _content(path: Path) -> Iterator[bytes | Damage]:
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            start = file.read(READ_BYTES)
            pieces = _chain(start, iter(lambda: file.read(READ_BYTES), b""))
            yield from _inflate(pieces) if start.startswith(GZIP_MAGIC) else pieces
            if damage := _changed(before, os.fstat(file.fileno())):
                yield damage
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}; expected a readable file, gz or plain") from error


def _changed(before: os.stat_result, after: os.stat_result) -> Damage | None:
    """Whether somebody wrote to a file meanwhile: its last line may then be half a row that looks like a whole one."""
    if not stat.S_ISREG(after.st_mode) or (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
        return None
    return Damage(
        f"the file was written to while it was read: {before.st_size} bytes when opened, {after.st_size} at its end. "
        "Read it again when it is whole"
    )


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _inflate(pieces: Iterator[bytes]) -> Iterator[bytes | Damage]:
    """Content of one or more gzip members. Zero bytes after the last are padding, anything else is damage."""
    member, at = zlib.decompressobj(_GZIP_WINDOW), 0
    for piece in pieces:
        rest = piece
        while rest:
            if member.eof:
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                member = zlib.decompressobj(_GZIP_WINDOW)
            before = member.copy()
            try:
                content = member.decompress(rest)
            except zlib.error as error:
                content, offset = _up_to_damage(before, rest)
                yield content
                yield Damage(f"gzip data is damaged at byte {at + len(piece) - len(rest) + offset}: {error}")
                return
            yield content
            rest = member.unused_data if member.eof else b""
        at += len(piece)
    if not member.eof:
        yield Damage(f"gzip data ends at byte {at} in the middle of a member: the file is truncated")


def _up_to_damage(member: zlib._Decompress, piece: bytes) -> tuple[bytes, int]:
    """What can still be decoded of a damaged piece, byte by byte, and how many bytes that took."""
    content = bytearray()
    for offset in range(len(piece)):
        try:
            content += member.decompress(piece[offset : offset + 1])
        except zlib.error:
            return bytes(content), offset
    return bytes(content), len(piece)


def _split(file: str, pieces: Iterator[bytes | Damage] | Iterator[bytes]) -> Iterator[Line | Rejected]:
    number, held, dropped = 0, bytearray(), 0
    for piece in pieces:
        if isinstance(piece, Damage):
            yield _damaged(file, number + 1, piece.detail, bytes(held))
            return
        lines = piece.split(b"\n")
        for content in lines[:-1]:
            number += 1
            yield _line(file, number, bytes(held) + content if held else content, dropped)
            held, dropped = bytearray(), 0
        held += lines[-1]
        if len(held) > LINE_BYTES_MAX:
            dropped += len(held) - KEPT_BYTES_MAX
            del held[KEPT_BYTES_MAX:]
    if held:
        yield _line(file, number + 1, bytes(held), dropped)


def _blocks(file: str, pieces: Iterator[bytes | Damage]) -> Iterator[Block | Rejected]:
    """Whole lines of each piece, the first with what the pieces before it left over."""
    number, held, dropped = 1, bytearray(), 0
    for piece in pieces:
        if isinstance(piece, Damage):
            yield _damaged(file, number, piece.detail, bytes(held))
            return
        if dropped and (end := piece.find(b"\n") + 1):
            yield from _rejected(_line(file, number, bytes(held) + piece[: end - 1], dropped))
            number, held, dropped = number + 1, bytearray(piece[end:]), 0
        else:
            held += piece
        if whole := held.rfind(b"\n") + 1:
            for content in _cut(bytes(held[:whole])):
                yield Block(number, content)
                number += content.count(b"\n")
            del held[:whole]
        if len(held) > LINE_BYTES_MAX:
            dropped += len(held) - KEPT_BYTES_MAX
            del held[KEPT_BYTES_MAX:]
    if dropped:
        yield from _rejected(_line(file, number, bytes(held), dropped))
    elif held:
        yield Block(number, bytes(held))


def _cut(content: bytes) -> Iterator[bytes]:
    """Whole lines in parts of about BLOCK_BYTES."""
    start = 0
    while start < len(content):
        end = content.find(b"\n", start + BLOCK_BYTES) + 1 or len(content)
        yield content[start:end]
        start = end


def _rejected(line: Line | Rejected) -> Iterator[Rejected]:
    if isinstance(line, Rejected):
        yield line


def _line(file: str, number: int, content: bytes, dropped: int) -> Line | Rejected:
    if dropped or len(content) > LINE_BYTES_MAX:
        size = len(content) + dropped
        detail = f"the line has {size} bytes, at most {LINE_BYTES_MAX} are one; kept: the first {KEPT_BYTES_MAX}"
        return Rejected(file, number, Refusal.LINE_TOO_LONG, detail, content[:KEPT_BYTES_MAX])
    return Line(number, content)


def _damaged(file: str, number: int, detail: str, rest: bytes) -> Rejected:
    return Rejected(file, number, Refusal.DAMAGED_FILE, detail, rest[:KEPT_BYTES_MAX], damaged=True)
