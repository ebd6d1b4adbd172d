"""A producer that outlives its broker: what was not acknowledged is sent again, until it is or nobody wants to wait.

Sending again may give a record twice; its key is the same, so the judge counts it as the duplicate it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

import structlog

from k2_core.errors import K2Error, Misconfigured, SchemaUnavailable, Unreachable
from k2_feeds.backlog import Waiting
from k2_feeds.outcomes import Row
from k2_feeds.producer import FLUSH_SECONDS_MAX, FeedProducer

ROWS_MAX = 5_000
"""Rows on their way at once: what may be sent again, and what memory holds of them."""
_SLICE_SECONDS = 1.0
"""How often a flush looks whether anybody still waits for it."""
_PAUSE_SECONDS = 1.0
"""Between two tries to find a broker."""
_TRUST_SECONDS = 15.0
"""Without any acknowledgement for so long a broker is given up and looked for anew: it may have moved. A second one in
a row gets twice the time, and so on: a slow broker must not be buried under repetitions."""
_CLOSE_SECONDS_MAX = 0.5
"""A lost broker gets no more time: everything is sent again."""
_TROUBLES = (Unreachable, SchemaUnavailable, Misconfigured)
"""What may pass: a stack that restarts has no address for a moment, which is Misconfigured."""

Connect = Callable[[Callable[[Waiting], None]], FeedProducer]
"""Makes a producer, given whom it tells that it waits for the lake."""

log = structlog.get_logger(__name__)


class SteadyProducer:
    """Stands before producers, one at a time. A context manager; entering raises what the first of them raises.

    connect: makes a producer that waits without end while the lake is behind. abandoned: set by another thread when
    nobody waits any more; from then on a lost broker is not looked for: rows are only kept, and `flush` raises.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        abandoned: threading.Event,
        feed: str = "binance-live",
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._connect = connect
        self._abandoned = abandoned
        self._pause_seconds = pause_seconds
        self._log = log.bind(feed=feed)
        self._open_producer = ExitStack()
        self._producer: FeedProducer
        self._is_lost = False
        self._trust_seconds = _TRUST_SECONDS
        self.unacknowledged: list[tuple[Row, str]] = []
        """Rows on their way, with their exchange, oldest first."""
        self.acknowledged = 0
        self.lost_brokers = 0
        """How often a producer had to be given up."""

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # what it did not deliver is known here, so it need not say so
        self._close(error or Unreachable("given up"))

    def send(self, row: Row, exchange: str) -> None:
        """Queue one row, waiting while too many are on their way. Raises Unreachable when nobody waits any more."""
        if len(self.unacknowledged) >= ROWS_MAX:
            self.flush()
        self.unacknowledged.append((row, exchange))
        if self._is_lost:
            return
        try:
            self._producer.send(row, exchange)
        except _TROUBLES as trouble:
            self._again(trouble)

    def flush(self, seconds_max: float = FLUSH_SECONDS_MAX) -> None:
        """Wait until every row is acknowledged, however long that takes. Raises Unreachable when nobody waits.

        seconds_max: after so long at most a broker that does not answer is given up and looked for anew.
        """
        while self.unacknowledged:
            if self._is_lost:
                raise self._given_up("the broker is lost")
            trouble = self._flushed(min(seconds_max, self._trust_seconds))
            if trouble is None:
                self._trust_seconds = _TRUST_SECONDS
                self.acknowledged += len(self.unacknowledged)
                self.unacknowledged.clear()
                return
            self._again(trouble)

    def _flushed(self, seconds_max: float) -> Exception | None:
        """What stands in the way of a flush; None when there is nothing. The time begins anew with every answer."""
        answered, deadline = -1, 0.0
        while True:
            started = time.monotonic()
            if self._producer.acknowledged > answered:
                answered, deadline = self._producer.acknowledged, started + seconds_max
            try:
                self._producer.flush(_SLICE_SECONDS)
                return None
            except _TROUBLES as trouble:
                now = time.monotonic()
                # a flush that gives up at once has nothing left to wait for: what is missing has failed
                if self._abandoned.is_set() or now >= deadline or now - started < _SLICE_SECONDS / 2:
                    return trouble

    def _again(self, trouble: Exception) -> None:
        """Find a broker and send it everything that is on its way. Raises Unreachable when nobody waits any more."""
        self.lost_brokers += 1
        self._trust_seconds *= 2
        self._log.warning("the broker is lost; sending again", rows=len(self.unacknowledged), reason=str(trouble))
        while not self._abandoned.is_set():
            self._close(trouble)
            self._abandoned.wait(self._pause_seconds)
            try:
                self._open()
                for row, exchange in self.unacknowledged:
                    self._producer.send(row, exchange)
            except _TROUBLES as still:
                trouble = still
            else:
                return
        self._is_lost = True
        raise self._given_up(str(trouble))

    def _given_up(self, why: str) -> Unreachable:
        return Unreachable(
            f"{len(self.unacknowledged):,} rows are not acknowledged; what they were made of is sent first when the "
            f"feed is started again. {why}"
        )

    def _waiting(self, waiting: Waiting) -> None:
        if self._abandoned.is_set():
            raise Unreachable(f"{waiting.topic}: {waiting.records:,} records wait to be ingested")

    def _open(self) -> None:
        self._open_producer = ExitStack()
        self._producer = self._open_producer.enter_context(self._connect(self._waiting))

    def _close(self, error: BaseException) -> None:
        self._producer.writer.exit_seconds_max = _CLOSE_SECONDS_MAX
        with suppress(K2Error):
            self._open_producer.__exit__(type(error), error, None)
        self._open_producer = ExitStack()
