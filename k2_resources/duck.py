"""DuckDB: a fixed pool of threads that reads Parquet files, each query admitted, under a deadline, and stoppable.

Belongs here and in duck_queries.py: everything that imports duckdb. Which files to read and what the rows mean is the
caller's; the SQL texts are k2_core/sql. Values reach a statement as bound parameters only.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from typing import Any

import duckdb
import pyarrow as pa

from k2_resources.duck_queries import (
    INTERRUPT_EVERY_SECONDS,
    Cursor,
    Query,
    QueryRefused,
    QueryStopped,
    QueryTimeout,
    QueryTooLarge,
    Result,
    Statement,
    Stream,
    fetching,
    stop,
    stop_and_wait,
)

__all__ = [
    "Duck",
    "QueryRefused",
    "QueryStopped",
    "QueryTimeout",
    "QueryTooLarge",
    "Statement",
    "parquet_paths",
    "statement",
]

_CONFIG: dict[str, str | int | float | list[str]] = {
    "threads": 1,  # per cursor: the pool is the parallelism; two threads per query cost a fifth of the throughput
    "temp_directory": "",  # no spill files: a query beyond the memory limit is refused
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # a name in SQL never reads a Python variable
}
_PARAMETER = re.compile(r"\$([a-z_]+)")
_GLOB = re.compile(r"([\[*?])")
_ADMITTED: ContextVar[bool] = ContextVar("admitted", default=False)
"""Whether the task had a query let in already: a request that was begun is not refused halfway."""


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
    """A pool of DuckDB cursors. Safe to share between threads and event loops.

    threads: queries that run at the same time. queue_max: queries that may wait for one of them.
    """

    def __init__(
        self, *, threads: int = 2, memory: str = "2GB", seconds_max: float = 30.0, queue_max: int = 100
    ) -> None:
        self.seconds_max = seconds_max
        self._unfinished_max = threads + queue_max
        self._unfinished = 0
        self._counting = threading.Lock()
        self._database = duckdb.connect(config={**_CONFIG, "memory_limit": memory})
        self._local = threading.local()
        self._running: set[Query[Any]] = set()
        self._streams: set[Stream] = set()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="duck", initializer=self._keep_cursor)

    async def query(self, sql: Statement, values: Mapping[str, Any], *, seconds: float | None = None) -> pa.Table:
        """Run one statement without blocking the event loop; cancelling the caller stops the query.

        Raises QueryTimeout after `seconds` (waiting for a cursor included), QueryTooLarge, Damaged, and QueryRefused
        when the queue is full; a task whose first query was let in is never refused one.
        """
        self._admit()
        query = Query(fetching(sql, values))
        return await self._answer(query, self._submit(query, self._own_cursor), seconds)

    async def stream(
        self, sql: Statement, values: Mapping[str, Any], *, seconds: float | None = None
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """Run one statement and yield its rows as they are computed, at most one batch ahead of the reader.

        A reader that pauses pauses the query, and holds no thread meanwhile; closing the generator stops it. seconds:
        bounds the wait for each batch, not the pauses of the reader. Raises as query does; it is never refused: who
        streams bounds how many streams there are.
        """
        stream = Stream(self._open_cursor, sql, values)
        self._streams.add(stream)
        query, ahead = self._advance(stream)
        try:
            while (batch := await self._answer(query, ahead, seconds)) is not None:
                query, ahead = self._advance(stream)
                yield batch
        finally:
            query.interrupt()
            ahead.add_done_callback(lambda _: self._forget(stream))
            stop(query, ahead, asyncio.get_running_loop())

    def fetch(self, sql: Statement, values: Mapping[str, Any], *, seconds: float | None = None) -> pa.Table:
        """Run one statement and wait for it. Raises QueryTimeout after `seconds`, QueryTooLarge, Damaged."""
        query = Query(fetching(sql, values))
        future = self._submit(query, self._own_cursor)
        seconds = self.seconds_max if seconds is None else seconds
        try:
            return future.result(seconds)
        except FutureTimeout:
            raise _overrun(seconds) from None
        finally:
            stop_and_wait(query, future)

    def close(self) -> None:
        """Stop what runs and free the memory."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        while self._running:
            for query in tuple(self._running):
                query.interrupt()
            time.sleep(INTERRUPT_EVERY_SECONDS)
        self._pool.shutdown(wait=True)
        for stream in tuple(self._streams):
            self._forget(stream)
        self._database.close()

    def _admit(self) -> None:
        if _ADMITTED.get():
            return
        if self._unfinished >= self._unfinished_max:
            raise QueryRefused(f"{self._unfinished} queries run or wait already; come back later")
        _ADMITTED.set(True)

    async def _answer(self, query: Query[Result], future: Future[Result], seconds: float | None) -> Result:
        seconds = self.seconds_max if seconds is None else seconds
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError:
            raise _overrun(seconds) from None
        finally:
            stop(query, future, asyncio.get_running_loop())

    def _advance(self, stream: Stream) -> tuple[Query[pa.RecordBatch | None], Future[pa.RecordBatch | None]]:
        query = Query(stream.next)
        return query, self._submit(query, stream.cursor)

    def _forget(self, stream: Stream) -> None:
        self._streams.discard(stream)
        stream.close()

    def _open_cursor(self) -> Cursor:
        cursor = self._database.cursor()
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.execute("SET parquet_metadata_cache = true")
        return cursor

    def _keep_cursor(self) -> None:
        self._local.cursor = self._open_cursor()

    def _own_cursor(self) -> Cursor:
        cursor: Cursor = self._local.cursor
        return cursor

    def _submit(self, query: Query[Result], cursor: Callable[[], Cursor]) -> Future[Result]:
        self._count(1)
        try:
            future = self._pool.submit(self._run, query, cursor)
        except RuntimeError:
            self._count(-1)
            raise QueryStopped("the server is stopping") from None
        future.add_done_callback(lambda _: self._count(-1))
        return future

    def _count(self, change: int) -> None:
        with self._counting:
            self._unfinished += change

    def _run(self, query: Query[Result], cursor: Callable[[], Cursor]) -> Result:
        self._running.add(query)
        try:
            return query.run(cursor())
        finally:
            self._running.discard(query)


def _overrun(seconds: float) -> QueryTimeout:
    return QueryTimeout(f"the query ran for {seconds:g} s, its deadline, and was stopped; ask for a shorter range")


def _text(name: str) -> str:
    return (files("k2_core") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
