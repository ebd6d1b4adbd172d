"""What a simulated exchange is started with: its market, its ports, and the limits it holds clients to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from k2_core.errors import BadInput
from k2_core.identity import symbol_problem
from k2_feeds.exchange.faults import Fault

SYMBOLS = ("SIMBTCUSDT", "SIMETHUSDT", "SIMSOLUSDT", "SIMXRPUSDT", "SIMETHBTC")
"""Most traded first. They begin with SIM so that no simulated row is ever taken for a real one."""
_TRADES_PER_SECOND_MAX = 100_000.0
"""A thousandth of what a flash crash makes of it still fits between two ids of the numbering."""


@dataclass(frozen=True)
class Limits:
    """What Binance allows, in seconds of the wall; the defaults are its own of July 2026."""

    connection_seconds_max: float = 86_400.0
    """A connection is cut after a day."""
    shutdown_notice_seconds: float = 600.0
    """From `serverShutdown` to the cut."""
    ping_seconds: float = 20.0
    pong_seconds_max: float = 60.0
    """A ping whose payload has not come back for so long ends the connection."""
    streams_max: int = 1_024
    """Per connection."""
    messages_per_second_max: int = 5
    """From a client: pings, pongs and controls together."""
    attempts_max: int = 300
    attempts_window_seconds: float = 300.0
    """Connection attempts of one address, failed ones included."""
    weight_max: int = 6_000
    weight_window_seconds: float = 60.0
    refusals_max: int = 5
    """Requests sent although a 429 said to wait; one more and the address is banned."""
    ban_seconds: float = 120.0
    """The first ban; each further one is twice as long."""

    def __post_init__(self) -> None:
        if any(value <= 0 for value in vars(self).values()):
            raise BadInput(f"{self}: expected every limit above zero")

    def hurried(self, factor: float) -> Limits:
        """Let a connection's day, and the notice before a shutdown, pass so many times faster."""
        if factor <= 0:
            raise BadInput(f"time factor {factor}: expected more than 0")
        day, notice = self.connection_seconds_max / factor, self.shutdown_notice_seconds / factor
        return replace(self, connection_seconds_max=day, shutdown_notice_seconds=notice)


@dataclass(frozen=True)
class ExchangeSettings:
    """One simulated exchange. Raises BadInput for what makes no market.

    symbols: most active first; with a capture they are those it has. speed: seconds of event time per second of the
    wall; infinity publishes as fast as the clients read. start: event time of the first trade; None is now at speed 1
    and yesterday's midnight at any other, so that no event is in the future for a day. trades_per_second: of all
    symbols together, in event time, in calm. crash_after_seconds: event time from the start to the flash crash.
    awaits_client: publish nothing before the first subscription. trades_max: the market closes after so many.
    """

    seed: int = 1
    symbols: tuple[str, ...] = SYMBOLS
    speed: float = 1.0
    start: datetime | None = None
    trades_per_second: float = 20.0
    crash_after_seconds: float | None = None
    capture: Path | None = None
    awaits_client: bool = False
    trades_max: int | None = None
    port: int = 0
    rest_port: int = 0
    limits: Limits = field(default_factory=Limits)
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        problem = next(filter(None, map(symbol_problem, self.symbols)), None)
        if problem or not self.symbols or len(set(self.symbols)) != len(self.symbols):
            raise BadInput(problem or f"symbols {self.symbols}: expected at least one, and each once")
        if not self.speed > 0:
            raise BadInput(f"speed {self.speed}: expected more than 0")
        if not 0 < self.trades_per_second <= _TRADES_PER_SECOND_MAX:
            raise BadInput(f"{self.trades_per_second} trades a second: expected up to {_TRADES_PER_SECOND_MAX:,.0f}")
        if self.start is not None and self.start.tzinfo is None:
            raise BadInput(f"start {self.start} has no time zone")
