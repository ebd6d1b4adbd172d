"""Files that survive a power cut: written, synced, their directory synced, before the catalog is told of them."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from k2_core.errors import Unwritable
from k2_resources.failpoints import reach, reach_file

ROW_GROUP_ROWS = 16_384
"""Rows of a row group: point reads are 5.4 times faster than with pyiceberg's million."""
ZSTD_LEVEL = 1
"""Higher levels buy 2 % of bytes for up to three times the CPU."""
DICTIONARY_COLUMNS = (
    "symbol",
    "exchange",
    "asset_class",
    "currency",
    "side",
    "kafka_topic",
    "trade_conditions.list.element",
)
"""Low-cardinality columns; a dictionary of ids would be larger than the ids."""

_made: set[Path] = set()
"""Directories that this process knows to be durable."""


class DurableStream(io.RawIOBase, OutputStream):
    """A local file whose close means: the bytes and their directory entry are on disk.

    It hashes what passes, so that `sha256` is of the bytes written and not of a second read. Raises Unwritable.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._hash = hashlib.sha256()
        with _named(path):
            make_directory(Path(path).parent)
            self._file = open(path, "wb")  # noqa: SIM115  # closed by close()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, b: Any) -> int:
        self._hash.update(b)
        with _named(self._path):
            return self._file.write(b)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        """Leave buffering to the file; durability comes with close."""

    def close(self) -> None:
        if "_file" not in vars(self) or self._file.closed:  # closed by the interpreter, too, even if it never opened
            return
        with _named(self._path):
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self._file.close()
            sync_directory(Path(self._path).parent)
        super().close()
        reach_file(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DurableFile(PyArrowFile):
    """An Iceberg file that is created durably."""

    def create(self, overwrite: bool = False) -> OutputStream:
        if not overwrite and self.exists():
            raise FileExistsError(f"Cannot create file, already exists: {self.location}")
        return DurableStream(self._path)


class DurableFileIO(PyArrowFileIO):
    """pyiceberg's FileIO with local writes made durable: pyiceberg itself never syncs a manifest or metadata file."""

    def new_output(self, location: str) -> PyArrowFile:
        scheme, netloc, path = self.parse_location(location, self.properties)
        if scheme != "file":
            return super().new_output(location)
        return DurableFile(location, path, self.fs_by_scheme(scheme, netloc))


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn what the operating system says of a write into an error with a code, the file and the way out."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: str, error: OSError) -> Unwritable:
    return Unwritable(
        f"{path}: {error.strerror}. Nothing was committed; make room or mend the disk, and the next run goes on."
    )


def make_directory(directory: Path) -> None:
    """Make a directory, and durable that it is there: a file is only as safe as the way to it.

    The two above are synced even when it exists: another process may have made it just now and not come to that yet.
    Those further up hold the table, which its first commit made durable. Once a process and directory.
    """
    if directory in _made and directory.is_dir():
        return
    missing = [d for d in (directory, *directory.parents) if not d.is_dir()]
    directory.mkdir(parents=True, exist_ok=True)
    for above in sorted({directory.parent, directory.parent.parent, *(d.parent for d in missing)}):
        sync_directory(above)
    _made.add(directory)


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: str, content: bytes | pa.Buffer) -> str:
    """Write a new file durably and return its SHA-256."""
    with DurableStream(path) as stream:
        stream.write(content)
    return stream.sha256


@dataclass(frozen=True)
class Written:
    """A Parquet file as it was written: what a receipt and a manifest say of it."""

    path: str
    rows: int
    size_bytes: int
    sha256: str
    metadata: pq.FileMetaData


def write_parquet(path: str, rows: pa.Table, bounded: Sequence[str] | bool = True) -> Written:
    """Write a new Parquet file durably. Field ids come from the schema of rows. bounded: columns with statistics."""
    dictionary = [c for c in DICTIONARY_COLUMNS if c.split(".")[0] in rows.column_names]
    encoded = pa.BufferOutputStream()  # pages are small and many: hashed and written one by one they cost a tenth more
    with pq.ParquetWriter(
        encoded,
        rows.schema,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=dictionary or False,
        write_statistics=bounded,
    ) as writer:
        writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
    content = encoded.getvalue()
    return Written(path, len(rows), content.size, write_bytes(path, content), writer.writer.metadata)


def delete(paths: Iterable[str]) -> None:
    """Delete files; one that is gone already is no error. Not synced: a file that comes back is swept later."""
    for path in paths:
        Path(path).unlink(missing_ok=True)
        reach("file_deleted")


def sha256_of(path: str) -> str:
    """SHA-256 of a stored file. Raises FileNotFoundError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
