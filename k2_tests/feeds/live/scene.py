"""A live feed between a simulated exchange and a real broker, run in a thread, with everything a test looks at."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from k2_feeds.binance_live import LiveFeed, Plan
from k2_feeds.collection import Collection, Report
from k2_feeds.exchange import SimulatedExchange
from k2_feeds.live.buffer import Buffer
from k2_feeds.live.links import Timing
from k2_feeds.live.mending import waiting_until
from k2_feeds.producer import FeedProducer
from k2_feeds.repair import Repair
from k2_resources.binance.rest import BinanceRest
from k2_resources.binance.stream import Endpoint
from k2_resources.clock import now_us
from k2_resources.settings import Settings
from k2_resources.spill import Spill
from k2_tests.feeds.homes import FEEDS, caught_up, ends, since

TRADES, QUOTES, COVERAGE = FEEDS["binance-trades"], FEEDS["binance-quotes"], FEEDS["coverage"]
PATIENCE_SECONDS = 60.0
QUICK = Timing(rotate=3_600, overlap=0.2, silence=30, stable=0.5, backoff=0.02, backoff_max=0.2)


def until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until a condition holds, and give what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return found


@dataclass
class Run:
    """One run of a live feed. report: once it has ended; error: what it raised instead."""

    live: LiveFeed
    folder: Path
    report: Report | None = None
    error: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.report = self.live.run()
        except BaseException as error:
            self.error = error

    def ended(self) -> Report:
        """Wait for its end and give the report."""
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive(), "the feed did not end"
        if self.error:
            raise self.error
        assert self.report is not None
        return self.report


@dataclass
class Scene:
    """An exchange, a home with a running broker, and the log from here on."""

    running: SimulatedExchange
    settings: Settings
    folder: Path
    broker: str
    before: dict[tuple[str, int], int] = field(init=False)
    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.before = ends(self.broker)

    def start(
        self,
        *,
        repair: bool = True,
        known: Any = lambda _: None,
        memory_bytes_max: int = 8 << 20,
        spill_bytes_max: int = 64 << 20,
        timing: Timing = QUICK,
        symbols: Any = None,
        **plan: Any,
    ) -> Run:
        """Begin to collect."""
        ending = threading.Event()
        endpoint = Endpoint(self.running.ws_url, ping_seconds=plan.pop("ping_seconds", 20.0))
        plan = {"drain_seconds": 10.0, "breaker_seconds": 0.3, "patience_seconds": 0.3, **plan}
        wanted = Plan(tuple(symbols or self.running.symbols), endpoint=endpoint, timing=timing, **plan)
        collection_id = uuid4().hex
        feeds = [TRADES, QUOTES] if wanted.quotes else [TRADES]
        collection = Collection(collection_id, endpoint.url, feeds, self.folder / "rejected" / collection_id, now_us)
        buffer = Buffer(Spill(self.folder / "live", spill_bytes_max, 1 << 16), memory_bytes_max)
        wait = waiting_until(ending)
        rest = self.stack.enter_context(BinanceRest(self.running.rest_url, pause_seconds_first=0.05, wait=wait))

        def connect(on_wait: Any) -> FeedProducer:
            committed = caught_up(self.settings.bootstrap())
            return FeedProducer(self.settings, [*feeds, COVERAGE], committed=committed, on_wait=on_wait)

        live = LiveFeed(
            wanted,
            collection,
            buffer,
            connect,
            repair=Repair(rest, now_us, wait=wait) if repair else None,
            lake_knows=known,
            ending=ending,
        )
        return Run(live, self.folder)

    @contextmanager
    def collecting(self, **options: Any) -> Iterator[Run]:
        """Collect during the block, then stop in order."""
        run = self.start(**options)
        try:
            yield run
        finally:
            run.live.stop()
            run.thread.join(PATIENCE_SECONDS)
            run.live.buffer.spill.close()

    def sent(self, feed: Any = TRADES) -> list[dict[str, Any]]:
        """Records of a feed in the log since the scene began."""
        return [record for _, record in since(self.broker, self.before, feed)]

    def ids(self, symbol: str) -> Counter[int]:
        """Trade ids of a symbol in the log, and how often each is there."""
        return Counter(record["source_sequence"] for record in self.sent() if record["symbol"] == symbol)

    def states(self) -> dict[str, list[dict[str, Any]]]:
        """Coverage statements by their event."""
        found: dict[str, list[dict[str, Any]]] = {}
        for record in self.sent(COVERAGE):
            found.setdefault(record["event"], []).append(record)
        return found

    def truth(self, symbol: str, first: int = 0) -> set[int]:
        """Ids of a symbol the exchange has, from one on."""
        return {trade.trade_id for trade in self.running.ledger.trades(symbol) if trade.trade_id >= first}

    def has_all(self, symbol: str) -> bool:
        """Whether the log has every trade the exchange published since the first of them in the log."""
        ids = self.ids(symbol)
        return bool(ids) and set(ids) == self.truth(symbol, min(ids))


@contextmanager
def stopped(process_id: int) -> Iterator[None]:
    """A process that does nothing during the block, and is there all the same."""
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process_id, signal.SIGCONT)
