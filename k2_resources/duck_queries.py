"""What runs on a DuckDB cursor: one piece of work at a time that can be stopped, and streams made of such pieces."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import duckdb
import pyarrow as pa

from k2_core.errors import Damaged, K2Error

INTERRUPT_EVERY_SECONDS = 0.005
"""An interrupt that arrives before a query runs is dropped, so it is repeated until the query has ended."""
STREAM_ROWS = 16_384
"""Rows of one batch of a stream, about 7 MB of JSON: a stream holds two of them, and others have their turn between."""

_OF_FILES = (duckdb.IOException, duckdb.InvalidInputException)

Result = TypeVar("Result")
Cursor = duckdb.DuckDBPyConnection


class QueryTimeout(K2Error):
    """Raised when a query did not end before its deadline; it has been stopped."""

    code = "TIMEOUT"


class QueryTooLarge(K2Error):
    """Raised when a query needs more memory than DuckDB may use."""

    code = "RESOURCE_LIMIT_EXCEEDED"


class QueryStopped(K2Error):
    """Raised when a query was abandoned by its caller, or the pool was closed."""

    code = "STOPPED"


class QueryRefused(K2Error):
    """Raised when so many queries wait already that another would only wait longer; come back later."""

    code = "OVERLOADED"


@dataclass(frozen=True)
class Statement:
    """A SQL text and the names of the parameters it binds."""

    text: str
    parameters: frozenset[str]

    def bind(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values this text uses, of those given. Raises KeyError for one that is missing."""
        return {name: values[name] for name in self.parameters}


class Query(Generic[Result]):
    """One piece of work on its way through the pool; only its own cursor is interrupted, only while it works."""

    def __init__(self, work: Callable[[Cursor], Result]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._cursor: Cursor | None = None
        self._abandoned = False

    def run(self, cursor: Cursor) -> Result:
        """Do the work on a cursor. Raises QueryStopped, QueryTooLarge, Damaged."""
        with self._lock:
            if self._abandoned:
                raise QueryStopped("the query was abandoned before it began")
            self._cursor = cursor
        try:
            return self._work(cursor)
        except (duckdb.InterruptException, duckdb.OutOfMemoryException, *_OF_FILES, OSError) as error:
            raise _failure(error) from error
        finally:
            with self._lock:
                self._cursor = None

    def interrupt(self) -> None:
        """Stop the work, or never let it begin."""
        with self._lock:
            self._abandoned = True
            if self._cursor is not None:
                self._cursor.interrupt()


class Stream:
    """One statement whose rows are taken batch by batch, on a cursor of its own: an open reader occupies it."""

    def __init__(self, opened: Callable[[], Cursor], sql: Statement, values: Mapping[str, Any]) -> None:
        self._opened = opened
        self._sql = sql
        self._values = sql.bind(values)
        self._cursor: Cursor | None = None
        self._reader: pa.RecordBatchReader | None = None

    def cursor(self) -> Cursor:
        """The cursor of this stream alone, opened by the thread that first works on it."""
        if self._cursor is None:
            self._cursor = self._opened()
        return self._cursor

    def next(self, cursor: Cursor) -> pa.RecordBatch | None:
        """Compute the next batch; None at the end."""
        if self._reader is None:
            self._reader = cursor.sql(self._sql.text, params=self._values).to_arrow_reader(STREAM_ROWS)
        return next(self._reader, None)

    def close(self) -> None:
        """Drop the rest of the rows and what they occupy; not while a batch is computed."""
        reader, cursor = self._reader, self._cursor
        self._reader = self._cursor = None
        if reader is not None:
            reader.close()
        if cursor is not None:
            cursor.close()


def fetching(sql: Statement, values: Mapping[str, Any]) -> Callable[[Cursor], pa.Table]:
    """The work of one statement whose rows are wanted all at once. Raises KeyError for a value that is missing."""
    bound = sql.bind(values)
    return lambda cursor: cursor.sql(sql.text, params=bound).to_arrow_table()


def stop(query: Query[Any], future: Future[Any], loop: asyncio.AbstractEventLoop) -> None:
    """Interrupt a query from its event loop until it has ended; at once when it has."""
    if not future.done():
        query.interrupt()
        loop.call_later(INTERRUPT_EVERY_SECONDS, stop, query, future, loop)


def stop_and_wait(query: Query[Any], future: Future[Any]) -> None:
    """Interrupt a query until it has ended, and wait for that."""
    while not future.done():
        query.interrupt()
        time.sleep(INTERRUPT_EVERY_SECONDS)


def _failure(error: Exception) -> K2Error:
    """What an error of DuckDB means. An Arrow reader has but one kind, an OSError; its text begins with DuckDB's."""
    text = str(error)
    if isinstance(error, duckdb.InterruptException) or text.startswith("INTERRUPT"):
        return QueryStopped("the query was abandoned by its caller")
    if isinstance(error, duckdb.OutOfMemoryException) or text.startswith("Out of Memory"):
        return QueryTooLarge(f"the query needs more memory than DuckDB may use: {text}")
    if isinstance(error, _OF_FILES) or text.startswith(("IO Error", "Invalid Input")):
        return Damaged(f"a data file of the lake cannot be read: {text}")
    return K2Error(f"a statement of ours failed: {text}")
