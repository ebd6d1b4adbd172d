"""Zip archives of others: one CSV each, proven before a row of it is used, read as a stream, never unpacked to disk.

What an archive says of itself is not believed: its directory is bounded before it is read, its content while it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from k2_feeds.lines import Damage
from k2_feeds.outcomes import Refusal, Unusable

CHECKSUM_SUFFIX = ".CHECKSUM"
ENTRY_BYTES_MAX = 64 << 30
"""Uncompressed; the largest month a spot symbol ever had is below 30 GB."""
RATIO_MAX = 100
"""Uncompressed over compressed: trades come to 4 to 8, deflate could do 1,032."""
_SMALL_BYTES = 1 << 20
"""An entry below this harms nobody, however well it was compressed."""
READ_BYTES = 1 << 18
"""Uncompressed bytes taken at once."""
_CHECKSUM_BYTES_MAX = 4096
"""A digest and a file name; a longer file is another one."""
_CHECKSUM = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(\S.*?)\s*", re.ASCII)
_DIRECTORY_BYTES_MAX = 1 << 16
"""A directory of one entry has a hundred bytes; zipfile reads all of it into memory."""
_END = struct.Struct("<4s4H2LH")
"""End of a zip: signature, disk, disk, entries here, entries, directory size, its offset, comment length."""
_END_64 = struct.Struct("<4sQ2H2L4Q")
"""The same for large archives: signature, size, versions, disks, entries here, entries, directory size, its offset."""
_LOCATOR_64_BYTES = 20
_ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flag bits: encrypted, strongly encrypted, directory encrypted."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Others need memory that the archive chooses."""
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)
"""What zipfile raises about bytes that are no zip."""


@dataclass(frozen=True)
class Archive:
    """An open archive whose only entry is what it is expected to be; it may be read several times."""

    path: Path
    digest: str
    _file: BinaryIO
    _zip: zipfile.ZipFile
    _entry: zipfile.ZipInfo
    _seen: tuple[int, int]

    def pieces(self) -> Iterator[bytes | Damage]:
        """The content of the entry, then where it is damaged: also when the file was changed while it was read."""
        try:
            with self._zip.open(self._entry) as content:
                while piece := content.read(READ_BYTES):
                    yield piece
        except _BROKEN as error:
            yield Damage(f"the entry cannot be read on: {error!s:.200}")
        if _identity(self._file) != self._seen:
            yield Damage("the archive was changed while it was read")


def stated_digest(path: Path) -> str:
    """SHA-256 that the .CHECKSUM file beside an archive states, lower case. Raises Unusable."""
    beside = path.with_name(path.name + CHECKSUM_SUFFIX)
    try:
        with beside.open("rb") as file:
            text = file.read(_CHECKSUM_BYTES_MAX + 1).decode("utf-8", "replace")
    except OSError as error:
        raise Unusable(Refusal.CHECKSUM_MISMATCH, f"{beside.name}: {error.strerror or error}") from None
    stated = _CHECKSUM.fullmatch(text)
    if stated is None or len(text) > _CHECKSUM_BYTES_MAX:
        raise Unusable(Refusal.CHECKSUM_MISMATCH, f"{beside.name} is not a SHA-256, blanks and a file name")
    if stated[2] != path.name:
        raise Unusable(Refusal.CHECKSUM_MISMATCH, f"{beside.name} is about {stated[2]!r:.100}")
    return stated[1].lower()


@contextmanager
def open_archive(path: Path, entry: str, digest: str | None) -> Iterator[Archive]:
    """Open an archive that must hold one file of a given name.

    digest: the SHA-256 it must have; None asks for none. Raises Unusable naming what is wrong with it.
    """
    with ExitStack() as opened:
        try:
            file = opened.enter_context(path.open("rb"))
            seen = _identity(file)
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if digest not in (None, found):
                raise Unusable(Refusal.CHECKSUM_MISMATCH, f"its SHA-256 is {found}, expected {digest}")
            _expect_small_directory(file)
            container = opened.enter_context(zipfile.ZipFile(file))
        except _BROKEN as error:
            raise Unusable(Refusal.NOT_AN_ARCHIVE, f"no readable zip: {error!s:.200}") from None
        yield Archive(path, found, file, container, _only_entry(container, entry), seen)


def _identity(file: BinaryIO) -> tuple[int, int]:
    """Size and time of the last change."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _expect_small_directory(file: BinaryIO) -> None:
    """Refuse a directory of many entries before zipfile takes it into memory. Raises Unusable."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size - _LOCATOR_64_BYTES - _END_64.size))
    tail = file.read()
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\x05\x06":
        raise Unusable(Refusal.NOT_AN_ARCHIVE, "it does not end as a zip does: truncated, or something follows")
    _, _, _, _, entries, directory_bytes, _, _ = _END.unpack(tail[-_END.size :])
    if len(tail) == _END.size + _LOCATOR_64_BYTES + _END_64.size and tail.startswith(b"PK\x06\x06"):
        *_, entries, directory_bytes, _ = _END_64.unpack(tail[: _END_64.size])
    if entries != 1 or directory_bytes > _DIRECTORY_BYTES_MAX:
        raise Unusable(Refusal.SEVERAL_ENTRIES, f"{entries:,} entries in {directory_bytes:,} bytes, expected one entry")


def _only_entry(container: zipfile.ZipFile, expected: str) -> zipfile.ZipInfo:
    entries = container.infolist()
    if len(entries) != 1:
        raise Unusable(Refusal.SEVERAL_ENTRIES, f"{len(entries):,} entries, expected one")
    entry = entries[0]
    if entry.orig_filename != expected:
        raise Unusable(Refusal.WRONG_NAME, f"its entry is named {entry.orig_filename!r:.200}, expected {expected!r}")
    if entry.flag_bits & _ENCRYPTED:
        raise Unusable(Refusal.ENCRYPTED, "its entry is encrypted")
    if entry.compress_type not in _METHODS:
        raise Unusable(Refusal.NOT_AN_ARCHIVE, f"compression method {entry.compress_type}, expected deflate or none")
    if entry.file_size > ENTRY_BYTES_MAX:
        raise Unusable(Refusal.ZIP_BOMB, f"{entry.file_size:,} bytes uncompressed, at most {ENTRY_BYTES_MAX:,}")
    if entry.file_size > max(_SMALL_BYTES, RATIO_MAX * entry.compress_size):
        told = f"{entry.compress_size:,} bytes would become {entry.file_size:,}, at most {RATIO_MAX} times as many"
        raise Unusable(Refusal.ZIP_BOMB, told)
    return entry
