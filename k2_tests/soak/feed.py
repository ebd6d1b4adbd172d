"""A live feed through everything an exchange can do to it: `python -m k2_tests.soak.feed [--minutes N] [--kills N]`.

A simulated exchange trades at 60 times the clock; the real `k2 feed binance-live` collects it, dies by kill -9 at random
moments and starts again; every fault comes in its turn; an engine ingests all along. In the end the lake must equal the
exchange's own ledger, and what the exchange itself does not have must be on the ledger of gaps.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k2_assets.engine import Engine, ingest_until_caught_up, open_engine
from k2_core.contracts import COVERAGE, INGESTED, TRADES
from k2_feeds.exchange import ExchangeSettings, Kind, Limits, SimulatedExchange, exchange
from k2_resources.lake.verify import verify
from k2_resources.settings import Settings
from k2_tests.conftest import free_port, start_registry, stop
from k2_tests.soak.books import Balance, balance
from k2_tests.soak.collector import Collector
from k2_tests.stacks import stack

SPEED = 60.0
TRADES_PER_SECOND = 1.0
"""Of event time: 60 a second of the wall, more in bursts; a soak looks for losses, not for speed."""
LIMITS = Limits(
    connection_seconds_max=20.0,
    shutdown_notice_seconds=2.0,
    ping_seconds=2.0,
    pong_seconds_max=6.0,
    attempts_max=10_000,
)
"""A day of a connection passes in twenty seconds, so that it is cut many times in an hour of event time."""
FAULTS: tuple[tuple[Kind, dict[str, Any]], ...] = (
    (Kind.DROP, {"count": 20, "one_in": 3}),
    (Kind.ABSENT, {"count": 7, "one_in": 5}),
    (Kind.DUPLICATE, {"count": 30}),
    (Kind.REORDER, {"count": 20, "one_in": 2}),
    (Kind.DELAY, {"count": 10, "one_in": 3, "seconds": 0.7}),
    (Kind.TRUNCATE, {"count": 5, "one_in": 4}),
    (Kind.GARBAGE, {"count": 10}),
    (Kind.CLOCK_SKEW, {"seconds": 1.5}),
    (Kind.HALF_OPEN, {}),
    (Kind.TEAR, {}),
    (Kind.CUT, {}),
    (Kind.SERVER_SHUTDOWN, {"seconds": 1.0}),
    (Kind.REFUSE, {"count": 2}),
    (Kind.REST_429, {"count": 2, "seconds": 0.5}),
    (Kind.REST_418, {"count": 1, "seconds": 1.0}),
    (Kind.REST_5XX, {"count": 3}),
    (Kind.ID_RESET, {"first_id": 1, "seconds": 4_000.0}),
)
"""In their turn, round after round. Refused requests meet the repairs of the faults before them."""
ONCE = (Kind.REST_418, Kind.ID_RESET)
"""Each ban is twice as long as the one before; each new numbering comes after more than an hour without a trade."""
WITH_LOSSES = (Kind.REST_429, Kind.REST_418, Kind.REST_5XX)
"""Faults of REST, which need something to be asked for."""
_SETTLE_SECONDS_MAX = 120.0
_TRADING_SECONDS = 2.0
"""Every symbol trades in so much of the wall, which is two minutes."""
_INGEST_EVERY_SECONDS, _INGEST_EVERY_SECONDS_MAX = 0.5, 5.0
"""Between two ingestions: a sixtieth of the soak within these bounds; commits cost more than what they hold here."""


@dataclass
class Soak:
    """One soak. seconds: of the wall; kills: of the feed, at random moments spread over them."""

    home: Path
    seconds: float
    kills: int
    seed: int
    done: list[str] = field(default_factory=list)

    def run(self) -> Balance:
        """Run to the end and compare."""
        market = ExchangeSettings(
            seed=self.seed, speed=SPEED, trades_per_second=TRADES_PER_SECOND, limits=LIMITS, awaits_client=True
        )
        with exchange(market) as running, _servers(self.home) as settings:
            collector = Collector(settings, running.symbols, running.ws_url, running.rest_url)

            def settle() -> None:
                """Let everything there is arrive. Only a trade that follows tells a feed that it missed some."""
                running.faults.clear()
                collector.settle(lambda: running.stats()["connections"] > 0, _SETTLE_SECONDS_MAX)
                time.sleep(_TRADING_SECONDS)
                running.pause()
                collector.settle(lambda: balance(settings, running, collector).is_settled, _SETTLE_SECONDS_MAX)

            with _ingesting(settings, self.seconds / 60) as ingest:
                with collector:
                    self._trouble(running, collector, settle)
                    self._crash(running)
                    settle()
                ingest()
                found = balance(settings, running, collector)
            with open_engine(settings) as engine:
                proofs = [verify(engine.lake, table) for table in (TRADES, COVERAGE)]
        assert [proof.findings for proof in proofs] == [(), ()], proofs
        return found

    def _trouble(self, running: SimulatedExchange, collector: Collector, settle: Callable[[], None]) -> None:
        """Faults in their turn, the kills between them."""
        chance = random.Random(self.seed)
        end = time.monotonic() + self.seconds
        deaths = sorted(chance.uniform(0.05, 0.9) * self.seconds for _ in range(self.kills))
        began, turn = time.monotonic(), 0
        pause = max(0.5, self.seconds / (len(FAULTS) * max(1, round(self.seconds / 60))))
        while (now := time.monotonic()) < end or turn < len(FAULTS) or deaths:
            if deaths and now - began >= deaths[0]:
                deaths.pop(0)
                collector.kill()
            if now - began >= turn * pause:
                kind, options = FAULTS[turn % len(FAULTS)]
                if kind is Kind.ID_RESET and turn < len(FAULTS):
                    settle()
                    self._strike(running, kind, options)
                    running.resume()
                elif kind not in ONCE or turn < len(FAULTS):
                    self._strike(running, kind, options)
                turn += 1
            collector.look()
            time.sleep(0.05)

    def _strike(self, running: SimulatedExchange, kind: Kind, options: dict[str, Any]) -> None:
        running.faults.clear(Kind.CLOCK_SKEW)
        if kind in WITH_LOSSES:
            running.faults.inject(Kind.DROP, count=3)
        running.faults.inject(kind, **options)
        self.done.append(kind)

    def _crash(self, running: SimulatedExchange) -> None:
        running.crash()
        time.sleep(min(5.0, self.seconds / 10))


@contextmanager
def _servers(home: Path) -> Iterator[Settings]:
    """A broker and a registry for one home."""
    port = free_port()
    registry = start_registry(home / "registry", port)
    try:
        with stack(home / "k2", f"http://127.0.0.1:{port}") as here:
            yield here.settings
    finally:
        stop(registry)


@contextmanager
def _ingesting(settings: Settings, every_seconds: float) -> Iterator[Any]:
    """Ingest again and again in a thread; gives what ingests once more, when the thread has ended."""
    over, failed = threading.Event(), []
    pause_seconds = min(max(every_seconds, _INGEST_EVERY_SECONDS), _INGEST_EVERY_SECONDS_MAX)

    def ingest() -> None:
        with open_engine(settings) as engine:
            ingest_until_caught_up(engine)

    def again_and_again() -> None:
        with open_engine(settings) as engine:
            while not over.wait(pause_seconds):
                try:
                    ingest_once(engine)
                except Exception as error:
                    failed.append(error)
                    return

    thread = threading.Thread(target=again_and_again, name="ingest")
    thread.start()

    def last() -> None:
        over.set()
        thread.join()
        if failed:
            raise failed[0]
        ingest()

    try:
        yield last
    finally:
        over.set()
        thread.join()


def ingest_once(engine: Engine) -> None:
    """What waits now, table by table: a feed that goes on sending is never caught up with."""
    for table in INGESTED:
        engine.collect(table)
        for _ in engine.execute(table, engine.plan(table).ranges, "soak"):
            pass


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m k2_tests.soak.feed", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="k2-soak-") as home:
        soak = Soak(Path(home), asked.minutes * 60, asked.kills, asked.seed)
        found = soak.run()
    print(f"{found.line()}, {len(soak.done)} faults, seed {asked.seed}")
    return 0 if found.is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
