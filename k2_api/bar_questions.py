"""What is asked of bars, in the engine's own words: whatever route it came by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from k2_core.windows import FIRST_US, LAST_US, MINUTE_US, TIMEFRAMES, Timeframe

BarView = Literal["raw", "eligible"]


@dataclass(frozen=True)
class BarsAsked:
    """Bars of one symbol whose windows begin in [start, end), µs since the epoch.

    exchange: None = each there is. view: raw = every print moves everything. is_regular: only prints of trading hours.
    """

    symbol: str
    exchange: str | None = None
    timeframe: Timeframe = TIMEFRAMES["1d"]
    start_us: int = FIRST_US
    end_us: int = LAST_US
    view: BarView = "eligible"
    is_regular: bool = False

    @property
    def unit_us(self) -> int:
        """Length of the bars that prints are turned into first."""
        return min(self.timeframe.width_us or MINUTE_US, MINUTE_US)

    @property
    def is_daily(self) -> bool:
        return self.timeframe.width_us is None

    @property
    def may_be_stored(self) -> bool:
        """Whether stored bars can tell it."""
        is_regular = self.is_regular or self.timeframe.is_regular
        return self.view == "eligible" and not is_regular and self.unit_us == MINUTE_US

    def between(self, start_us: int, end_us: int) -> BarsAsked:
        """The same of other windows."""
        return replace(self, start_us=start_us, end_us=end_us)
