"""The live part of the tour: an exchange on loopback that misbehaves a little, and the real live feed against it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from k2_core.contracts import QUOTES, TRADES
from k2_core.errors import K2Error
from k2_core.gap_ids import ABSENT_AT_SOURCE
from k2_feeds.exchange import ExchangeSettings, Kind, SimulatedExchange, exchange
from k2_feeds.exchange.faults import Fault
from k2_resources.lake.catalog import Lake
from k2_resources.lake.scans import unfilled_gaps
from k2_resources.settings import Settings

SYMBOLS = ("SIMLIVEUSDT", "SIMLIVEBTC")
TRADES_MAX = 1_500
SPEED = 300.0
"""Minutes of trading in seconds of the wall."""
DROPPED, ABSENT, REPEATED = 9, 4, 25
"""Trades that never come on the stream, ids the exchange does not have, and frames that come twice."""
_FAULTS = (
    Fault(Kind.DROP, count=DROPPED, one_in=40),
    Fault(Kind.ABSENT, count=ABSENT, one_in=60),
    Fault(Kind.DUPLICATE, count=REPEATED, one_in=10),
)
_SETTLE_SECONDS_MAX = 120.0
_END_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Collected:
    """What the live part must have brought: rows per table and symbol, and ids the exchange does not have."""

    rows: dict[tuple[str, str], int]
    absent: list[tuple[str, int]]
    acknowledged: int


@dataclass(frozen=True)
class LivePart:
    """One run of the live feed against one exchange."""

    settings: Settings
    seed: int

    def run(self, waiting: Callable[[], str]) -> Collected:
        """Trade, collect, repair, end in order. waiting: why ingestion is not done. Raises K2Error."""
        market = ExchangeSettings(
            seed=self.seed, symbols=SYMBOLS, speed=SPEED, trades_max=TRADES_MAX, awaits_client=True, faults=_FAULTS
        )
        with exchange(market) as running:
            click.echo("A simulated exchange trades on a WebSocket of its own; some trades never come, some twice:")
            report = self._collect(running, waiting)
            rows = {(TRADES.name, s): running.ledger.trade_count(s) for s in SYMBOLS}
            rows |= {(QUOTES.name, s): len(running.ledger.quotes(s)) for s in SYMBOLS}
            absent = sorted((symbol, number) for symbol in SYMBOLS for _, number in running.ledger.absent(symbol))
        click.echo(f"    {report['sent']:,} rows sent, {DROPPED} of them asked for again at REST")
        return Collected(rows, absent, int(report["acknowledged"]))

    def _collect(self, running: SimulatedExchange, waiting: Callable[[], str]) -> dict[str, Any]:
        words = ("feed", "binance-live", *SYMBOLS, "--quotes")
        where = ("--url", running.ws_url, "--rest-url", running.rest_url, "--metrics-port", "0")
        click.echo(f"  k2 {' '.join(words)} --url {running.ws_url}")
        command = [sys.executable, "-m", "k2_cli.main", *words, *where, "--json", "--home", str(self.settings.home)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as feed:
            try:
                self._settle(running, feed, waiting)
            finally:
                feed.send_signal(signal.SIGTERM)
                try:
                    told, _ = feed.communicate(timeout=_END_SECONDS_MAX)
                except subprocess.TimeoutExpired:
                    feed.kill()
                    raise
        if feed.returncode:
            raise K2Error(f"`k2 feed binance-live` exited with {feed.returncode}: {told.strip()[-500:]}")
        report: dict[str, Any] = json.loads(told.strip().splitlines()[-1])
        return report

    def _settle(self, running: SimulatedExchange, feed: subprocess.Popen[str], waiting: Callable[[], str]) -> None:
        """Wait until the exchange has traded everything and all of it is in the lake, or told to be nowhere."""
        lake = Lake(self.settings.catalog(), self.settings.warehouse_path())
        deadline = time.monotonic() + _SETTLE_SECONDS_MAX
        while feed.poll() is None and time.monotonic() < deadline:
            if running.is_over.is_set() and not waiting() and self._is_all_there(running, lake):
                return
            time.sleep(_POLL_SECONDS)

    def _is_all_there(self, running: SimulatedExchange, lake: Lake) -> bool:
        symbols = lake.load(TRADES).scan(selected_fields=("symbol",)).to_arrow()["symbol"].to_pylist()
        stored = sum(symbol in SYMBOLS for symbol in symbols)
        absent = sum(len(running.ledger.absent(symbol)) for symbol in SYMBOLS)
        return stored == running.ledger.trade_count() and len(absent_ids(lake)) == absent


def absent_ids(lake: Lake) -> list[tuple[str, int]]:
    """Ids of our symbols that the ledger of gaps says the exchange does not have."""
    gaps = [gap for gap in unfilled_gaps(lake) if gap["scope"] in SYMBOLS and gap["state"] == ABSENT_AT_SOURCE]
    return sorted(
        (str(gap["scope"]), number) for gap in gaps for number in range(gap["first_id"], int(gap["last_id"]) + 1)
    )
