"""One cell: it parses a statement, runs it over the files it was handed, answers, and is gone."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import resource
import signal
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytz  # noqa: F401 - what Arrow makes instants with; a cell can import nothing
from fsspec import AbstractFileSystem

from k2_core.errors import BadInput
from k2_resources.confinement import Limits, Unconfined, confine
from k2_resources.sql_cell.results import render
from k2_resources.sql_cell.wire import SCHEME, Job, View, receive_descriptors, receive_frame, send_frame

BATCH_ROWS = 2048
"""Rows fetched at a time, so that a result far beyond its limit is never built: one vector of DuckDB's."""

_UNCHANGING = datetime(2000, 1, 1, tzinfo=UTC)
"""When a data file was last changed: they never are."""
_PARAMETER = re.compile(r"\$([a-z_]+)")
_CONFIG: dict[str, str | int | float | list[str]] = {
    "threads": 2,
    "temp_directory": "",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
    "allow_persistent_secrets": False,
}
_STATEMENT_ERRORS = (
    duckdb.ProgrammingError,  # what it names does not exist, or does not fit together
    duckdb.DataError,  # a value it computes does not exist
    duckdb.NotSupportedError,
    duckdb.InternalError,  # the engine fails on it: its defect, and harmless here
)
_LOCK = (
    f"SET allowed_directories = ['{SCHEME}://']",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


def serve(control: socket.socket) -> None:
    """Fork a cell for each socket that arrives, and answer with a descriptor of its process; until the server ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor for each data file
    while True:
        said, descriptors, *_ = socket.recv_fds(control, 4096, 1)
        if not said:
            return
        process_id = os.fork()
        if process_id == 0:
            control.close()
            _live(socket.socket(fileno=descriptors[0]), Limits(**json.loads(said)))
        os.close(descriptors[0])
        try:
            process = os.pidfd_open(process_id)
        except ProcessLookupError:
            control.send(b"p")  # it is gone already
            continue
        socket.send_fds(control, [b"p"], [process])
        os.close(process)


def _live(server: socket.socket, limits: Limits) -> None:
    try:
        confine(limits)
        _answer(server, limits)
    except Unconfined as error:
        _tell(server, "UNCONFINED", str(error))
    except (EOFError, ConnectionError):
        pass  # the server lost interest
    except Exception as error:
        _tell(server, "BROKEN", f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _answer(server: socket.socket, limits: Limits) -> None:
    # half of the address space: the interpreter, its libraries and the answer need the other
    engine = duckdb.connect(config={**_CONFIG, "memory_limit": f"{limits.memory_bytes // 2}B"})
    statement = receive_frame(server).decode()
    send_frame(server, _tree(engine, statement).encode())
    job: Job = pickle.loads(receive_frame(server))  # noqa: S301 - from the server, which started this process
    _prepare(engine, job, receive_descriptors(server, job.descriptors))
    try:
        rows, more = _fetch(engine, statement, job)
        body = render(rows, job.form)
        if len(body) > job.bytes_max:
            raise MemoryError(f"the answer has more than {job.bytes_max:,} bytes")
    except (BadInput, *_STATEMENT_ERRORS) as error:
        return _tell(server, "SQL_ERROR", str(error))
    except (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError) as error:
        return _tell(server, "RESOURCE_LIMIT_EXCEEDED", str(error))
    except duckdb.PermissionException as error:
        return _tell(server, "PERMISSION", str(error))
    except duckdb.IOException as error:
        return _tell(server, "DAMAGED", str(error))
    columns = [[field.name, str(field.type)] for field in rows.schema]
    send_frame(server, json.dumps({"rows": len(rows), "truncated": more, "columns": columns}).encode())
    send_frame(server, body)
    return None


def _tell(server: socket.socket, code: str, detail: str) -> None:
    send_frame(server, json.dumps({"error": code, "detail": detail}).encode())


def _tree(engine: duckdb.DuckDBPyConnection, statement: str) -> str:
    """The statement as the engine that will run it parses it, as JSON."""
    (text,) = engine.execute("SELECT json_serialize_sql($1)", [statement]).fetchone() or ("",)
    return str(text)


def _prepare(engine: duckdb.DuckDBPyConnection, job: Job, descriptors: list[int]) -> None:
    """Make the views and lock everything else."""
    engine.register_filesystem(_Handed(descriptors))
    engine.execute("SET TimeZone = 'UTC'")
    for view in job.views:
        _grant(engine, view)
    for setting in _LOCK:
        engine.execute(setting)


def _grant(engine: duckdb.DuckDBPyConnection, view: View) -> None:
    """Make a view. It takes no parameters: values become variables, which no statement let in can read or set."""
    if not view.text:
        engine.register(view.name, view.columns.empty_table())
        return
    for name, value in view.values.items():
        engine.execute(f"SET VARIABLE {view.name}_{name} = $1", [value])
    text = _PARAMETER.sub(rf"getvariable('{view.name}_\1')", view.text)
    engine.execute(f"CREATE VIEW {view.name} AS {text}")


def _fetch(engine: duckdb.DuckDBPyConnection, statement: str, job: Job) -> tuple[pa.Table, bool]:
    """The first rows of the answer, and whether there are more. Raises MemoryError, duckdb.Error."""
    batches, count, size = [], 0, 0
    reader = engine.sql(statement).to_arrow_reader(BATCH_ROWS)
    for batch in reader:
        batches.append(batch)
        count, size = count + len(batch), size + batch.nbytes
        if size > job.bytes_max:
            raise MemoryError(f"the answer has more than {job.bytes_max:,} bytes")
        if count > job.rows_max:
            break
    rows = pa.Table.from_batches(batches, reader.schema)
    return rows.slice(0, job.rows_max), count > job.rows_max


class _Handed(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The descriptors a cell was handed, as DuckDB's only file system: to be read, and nothing else."""

    protocol = SCHEME
    cachable = False

    def __init__(self, descriptors: Sequence[int]) -> None:
        super().__init__()
        self._descriptors = descriptors

    def open(self, path: str, mode: str = "rb", **_: Any) -> _Descriptor:
        if mode != "rb":
            raise PermissionError(f"{path} is for reading")
        return _Descriptor(self._find(path))

    def glob(self, path: str, **_: Any) -> list[str]:
        return [path]

    def exists(self, path: str, **_: Any) -> bool:
        return True

    def isfile(self, path: str) -> bool:
        return True

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": _size(self._find(path)), "type": "file"}

    def modified(self, path: str) -> datetime:
        return _UNCHANGING

    def _find(self, path: str) -> int:
        return self._descriptors[int(path.rpartition("/")[2].partition(".")[0])]


class _Descriptor(io.RawIOBase):
    """One descriptor, read at a position of its own: several readers of one file do not disturb each other."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0
        self.size = _size(descriptor)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._descriptor, [buffer], self._at)
        self._at += count
        return count


def _size(descriptor: int) -> int:
    """Bytes of a file; fstat is one of the calls that look for files, and find none."""
    return os.lseek(descriptor, 0, os.SEEK_END)
