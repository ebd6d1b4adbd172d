"""DuckDB: a fixed pool of cursors that reads Parquet files, each query under a deadline and stoppable.

Belongs here: everything that imports duckdb. Which files to read and what the rows mean is the caller's; the SQL
texts are k2_core/sql. Values reach a statement as bound parameters only.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import duckdb
import pyarrow as pa

from k2_core.errors import Damaged, K2Error

INTERRUPT_EVERY_SECONDS = 0.005
"""An interrupt that arrives before a query runs is dropped, so it is repeated until the query has ended."""

_CONFIG: dict[str, str | int | float | list[str]] = {
    "threads": 1,  # per cursor: the pool is the parallelism; two threads per query cost a fifth of the throughput
    "temp_directory": "",  # no spill files: a query beyond the memory limit is refused
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # a name in SQL never reads a Python variable
}
_PARAMETER = re.compile(r"\$([a-z_]+)")
_GLOB = re.compile(r"([\[*?])")


class QueryTimeout(K2Error):
    """Raised when a query did not end before its deadline; it has been stopped."""

    code = "TIMEOUT"


class QueryTooLarge(K2Error):
    """Raised when a query needs more memory than DuckDB may use."""

    code = "RESOURCE_LIMIT_EXCEEDED"


class QueryStopped(K2Error):
    """Raised when a query was abandoned by its caller, or the pool was closed."""

    code = "STOPPED"


@dataclass(frozen=True)
class Statement:
    """A SQL text and the names of the parameters it binds."""

    text: str
    parameters: frozenset[str]

    def bind(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values this text uses, of those given. Raises KeyError for one that is missing."""
        return {name: values[name] for name in self.parameters}


@cache
def statement(name: str, **steps: str) -> Statement:
    """Load k2_core/sql/{name}.sql behind named steps: `rows="newest_rows"` puts newest_rows.sql before it as `rows`."""
    ctes = [f"{step} AS (\n{_text(file)})" for step, file in steps.items()]
    text = ("WITH " + ",\n".join(ctes) + "\n" if ctes else "") + _text(name)
    return Statement(text, frozenset(_PARAMETER.findall(text)))


def parquet_paths(locations: Iterable[str]) -> list[str]:
    """Data file locations as DuckDB takes them: plain paths in which `[`, `*` and `?` are just letters."""
    return [_GLOB.sub(r"[\1]", location.removeprefix("file://")) for location in locations]


class Duck:
    """A pool of DuckDB cursors. Safe to share between threads and event loops."""

    def __init__(self, *, threads: int = 2, memory: str = "2GB", seconds_max: float = 30.0) -> None:
        self.seconds_max = seconds_max
        self._database = duckdb.connect(config={**_CONFIG, "memory_limit": memory})
        self._local = threading.local()
        self._running: set[_Query] = set()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="duck", initializer=self._open_cursor)

    async def query(self, sql: Statement, values: Mapping[str, Any], *, seconds: float | None = None) -> pa.Table:
        """Run one statement without blocking the event loop; cancelling the caller stops the query.

        Raises QueryTimeout after `seconds` (waiting for a cursor included), QueryTooLarge, Damaged.
        """
        query, future = self._submit(sql, values)
        seconds = self.seconds_max if seconds is None else seconds
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError:
            raise _overrun(seconds) from None
        finally:
            _stop(query, future, asyncio.get_running_loop())

    def fetch(self, sql: Statement, values: Mapping[str, Any], *, seconds: float | None = None) -> pa.Table:
        """Run one statement and wait for it. Raises QueryTimeout after `seconds`, QueryTooLarge, Damaged."""
        query, future = self._submit(sql, values)
        seconds = self.seconds_max if seconds is None else seconds
        try:
            return future.result(seconds)
        except FutureTimeout:
            raise _overrun(seconds) from None
        finally:
            _stop_and_wait(query, future)

    def close(self) -> None:
        """Stop what runs and free the memory."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        while self._running:
            for query in tuple(self._running):
                query.interrupt()
            time.sleep(INTERRUPT_EVERY_SECONDS)
        self._pool.shutdown(wait=True)
        self._database.close()

    def _open_cursor(self) -> None:
        cursor = self._database.cursor()
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.execute("SET parquet_metadata_cache = true")
        self._local.cursor = cursor

    def _submit(self, sql: Statement, values: Mapping[str, Any]) -> tuple[_Query, Future[pa.Table]]:
        query = _Query(sql, sql.bind(values))
        return query, self._pool.submit(self._run, query)

    def _run(self, query: _Query) -> pa.Table:
        self._running.add(query)
        try:
            return query.run(self._local.cursor)
        finally:
            self._running.discard(query)


class _Query:
    """One statement on its way through the pool; only the cursor that runs it is interrupted, only while it does."""

    def __init__(self, sql: Statement, values: dict[str, Any]) -> None:
        self._sql = sql
        self._values = values
        self._lock = threading.Lock()
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._abandoned = False

    def run(self, cursor: duckdb.DuckDBPyConnection) -> pa.Table:
        with self._lock:
            if self._abandoned:
                raise QueryStopped("the query was abandoned before it began")
            self._cursor = cursor
        try:
            return cursor.sql(self._sql.text, params=self._values).to_arrow_table()
        except duckdb.InterruptException:
            raise QueryStopped("the query was abandoned by its caller") from None
        except duckdb.OutOfMemoryException as error:
            raise QueryTooLarge(f"the query needs more memory than DuckDB may use: {error}") from error
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            raise Damaged(f"a data file of the lake cannot be read: {error}") from error
        finally:
            with self._lock:
                self._cursor = None

    def interrupt(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._cursor is not None:
                self._cursor.interrupt()


def _stop(query: _Query, future: Future[pa.Table], loop: asyncio.AbstractEventLoop) -> None:
    if not future.done():
        query.interrupt()
        loop.call_later(INTERRUPT_EVERY_SECONDS, _stop, query, future, loop)


def _stop_and_wait(query: _Query, future: Future[pa.Table]) -> None:
    while not future.done():
        query.interrupt()
        time.sleep(INTERRUPT_EVERY_SECONDS)


def _overrun(seconds: float) -> QueryTimeout:
    return QueryTimeout(f"the query ran for {seconds:g} s, its deadline, and was stopped; ask for a shorter range")


def _text(name: str) -> str:
    return (files("k2_core") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
