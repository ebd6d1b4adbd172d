"""What was produced, and how much of it is certainly in the lake: the ledger that answers are held against."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType

from k2_core.windows import from_us
from k2_resources import clock
from k2_resources.kafka import LogWriter
from k2_tests.stacks import Stack
from k2_tests.ticks import FEEDS, encoded, trade

SYMBOLS = tuple(f"TAPE{n}USDT" for n in range(5))
FEED = FEEDS["binance-trades"]
_PULSE_SECONDS = 0.05
_CATCH_UP_EVERY_SECONDS = 2.0
_SETTLE_SECONDS_MAX = 120.0


@dataclass
class Book:
    """Trades of one symbol by id, from 1. Only appended to; `in_lake` of them, and more, are in the lake."""

    at_us: list[int] = field(default_factory=list)
    prices: list[Decimal] = field(default_factory=list)
    in_lake: int = 0

    def first_at(self, instant_us: int) -> int:
        """Id of the first trade at or after an instant."""
        return bisect_left(self.at_us, instant_us) + 1


class Tape:
    """A producer of trades with ids without holes, and instants that rise by symbol."""

    def __init__(self, running: Stack, rate: float, seed: int) -> None:
        self.books = {symbol: Book() for symbol in SYMBOLS}
        self._running = running
        self._rate = rate
        self._chance = random.Random(seed)
        self._ended = threading.Event()
        self._delivered = dict.fromkeys(SYMBOLS, 0)
        self._producer = threading.Thread(target=self._produce, daemon=True)

    def __enter__(self) -> Tape:
        self._producer.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        self._producer.join()

    def settle(self) -> None:
        """Wait until every symbol has trades in the lake."""
        deadline = time.monotonic() + _SETTLE_SECONDS_MAX
        while not all(book.in_lake for book in self.books.values()):
            assert time.monotonic() < deadline, "nothing came into the lake"
            time.sleep(_PULSE_SECONDS)

    @contextmanager
    def following(self, ingest: subprocess.Popen[str]) -> Iterator[None]:
        """Keep asking an ingesting process to catch up; what was delivered before it was asked is in when it says so."""
        follower = threading.Thread(target=self._follow, args=(ingest,), daemon=True)
        follower.start()
        yield
        self._ended.set()
        follower.join()

    def _follow(self, ingest: subprocess.Popen[str]) -> None:
        assert ingest.stdin is not None
        assert ingest.stdout is not None
        while not self._ended.is_set():
            delivered = dict(self._delivered)
            ingest.stdin.write("go\n")
            ingest.stdin.flush()
            if not any(line == "in\n" for line in ingest.stdout):  # its log is between the words
                return  # it ended; `settle` or the readers will tell
            for symbol, count in delivered.items():
                self.books[symbol].in_lake = count
            self._ended.wait(_CATCH_UP_EVERY_SECONDS)

    def _produce(self) -> None:
        schema_id = self._running.register(FEED)
        with LogWriter(self._running.settings.bootstrap()) as writer:
            while not self._ended.wait(_PULSE_SECONDS):
                for _ in range(round(self._rate * _PULSE_SECONDS)):
                    self._send(writer, schema_id)
                lengths = {symbol: len(book.at_us) for symbol, book in self.books.items()}
                writer.flush(30)
                self._delivered = lengths

    def _send(self, writer: LogWriter, schema_id: int) -> None:
        symbol = self._chance.choice(SYMBOLS)
        book = self.books[symbol]
        now_us = round(clock.now().timestamp() * 1_000_000)
        at_us = max(now_us, book.at_us[-1] if book.at_us else 0)
        price = Decimal(self._chance.randrange(1, 10**12)).scaleb(-8)
        # the ledger first: an answer may show a record before its producer hears that it was written
        book.prices.append(price)
        book.at_us.append(at_us)
        record = trade(len(book.at_us), symbol=symbol, timestamp=from_us(at_us), price=price)
        record["ingestion_timestamp"] = from_us(now_us)
        writer.send(FEED.topic, f"BINANCE.{symbol}".encode(), encoded(record, FEED.table, schema_id))
