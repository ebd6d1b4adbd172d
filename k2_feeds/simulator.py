"""A seeded market: the same seed gives the same bytes, and the truth about them is known.

What it makes are the lines of captures and files; they go through the same parsers as real ones. Its symbols begin
with SIM unless others are asked for, so that no simulated row is ever taken for a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import chain, pairwise
from pathlib import Path

from k2_core.errors import BadInput
from k2_core.exchange_dates import FIRST_DATE
from k2_core.identity import symbol_problem
from k2_feeds.asx import QUOTES_FEED as ASX_QUOTES
from k2_feeds.asx import TRADES_FEED as ASX_TRADES
from k2_feeds.asx import Kind, Part, read_parts
from k2_feeds.binance_capture import parse_capture
from k2_feeds.binance_frames import QUOTES_FEED as BINANCE_QUOTES
from k2_feeds.binance_frames import TRADES_FEED as BINANCE_TRADES
from k2_feeds.lines import Line, lines_of
from k2_feeds.outcomes import Outcomes, Rejected
from k2_feeds.simulated_asx import company_lines, quote_lines, trade_lines, trading_days
from k2_feeds.simulated_binance import Faults, Frame, capture, crypto_days

PAIRS = ("SIMBTCUSDT", "SIMETHUSDT", "SIMETHBTC")
EQUITIES = ("ASIM", "NSIM")
FEEDS = (BINANCE_TRADES, BINANCE_QUOTES, ASX_TRADES, ASX_QUOTES)
START = date(2025, 3, 11)
"""A Tuesday, in Sydney's summer time and in the years of the staggered open."""
NO_FAULTS = Faults()
DAYS_MAX = 366
_FIRST_COMPANY = 9_001
_FOLDERS: dict[Kind, str] = {"trade": "trades", "quote": "quotes"}


@dataclass(frozen=True)
class Truth:
    """What must come out for one feed and symbol. rows: distinct keys; gaps: first and last missing id, inclusive."""

    feed: str
    symbol: str
    rows: int
    duplicates: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    out_of_order: int = 0


@dataclass(frozen=True)
class Simulation:
    """One simulated market. days: trading days from start on; rows_per_day: trades, and states of an ASX book.

    auctions: whether the ASX files hold the prints of auctions.
    Raises BadInput for a size or a symbol that makes no market.
    """

    seed: int = 1
    start: date = START
    days: int = 2
    pairs: tuple[str, ...] = PAIRS
    equities: tuple[str, ...] = EQUITIES
    rows_per_day: int = 1_000
    faults: Faults = NO_FAULTS
    auctions: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.days <= DAYS_MAX or self.rows_per_day < 1 or self.start < FIRST_DATE:
            raise BadInput(
                f"{self.days} days of {self.rows_per_day} rows from {self.start}: expected 1 to {DAYS_MAX} days of at "
                f"least one row, from {FIRST_DATE} on"
            )
        symbols = [*self.pairs, *self.equities]
        problem = next(filter(None, map(symbol_problem, symbols)), None)
        if problem or len(set(symbols)) != len(symbols) or not self.pairs:
            raise BadInput(problem or f"symbols {symbols}: expected at least one pair, and each symbol once")

    @property
    def last_day(self) -> date:
        return max(trading_days(self.start, self.days)[-1], crypto_days(self.start, self.days)[-1])

    def frames(self) -> Iterator[Frame]:
        """Binance frames in the order of receipt."""
        days = crypto_days(self.start, self.days)
        return capture(self.seed, self.pairs, days, self.rows_per_day, self.faults)

    def parts(self) -> tuple[Part, ...]:
        """ASX files as a load that no disk has seen."""
        return tuple(self._part(kind, company, symbol) for company, symbol in self._companies() for kind in _FOLDERS)

    def outcomes(self, now_us: Callable[[], int]) -> Outcomes:
        """Every line through the parsers of real files. now_us: the clock of receipt of the ASX files."""
        lines = lines_of("simulated/capture", (frame.line for frame in self.frames()))
        return chain(parse_capture("simulated/capture", lines), read_parts(self.parts(), None, now_us))

    def truth(self) -> tuple[Truth, ...]:
        """What must be in the lake afterwards, per feed and symbol."""
        expected = self.days * self.rows_per_day
        crypto = [Truth(feed, pair, rows * expected) for feed, rows in _PER_TRADE for pair in self.pairs]
        at = crypto.index(Truth(BINANCE_TRADES, self.pairs[0], expected))
        crypto[at] = self._faulty(crypto[at])
        feeds = {"trade": ASX_TRADES, "quote": ASX_QUOTES}
        return (*crypto, *(Truth(feeds[p.kind], next(iter(p.symbols)), len(list(p.lines()))) for p in self.parts()))

    def write(self, folder: Path) -> list[Path]:
        """Write capture.txt, company_info.csv, trades/*.csv and quotes/*.csv. Returns their paths in that order."""
        contents: dict[Path, Iterator[bytes]] = {
            folder / "capture.txt": (frame.line for frame in self.frames()),
            folder / "company_info.csv": company_lines(self._companies()),
        }
        for kind, name in _FOLDERS.items():
            for company, symbol in self._companies():
                contents[folder / name / f"{company}.csv"] = self._lines(kind, symbol)
        for path, lines in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.writelines(lines)
        return list(contents)

    def _companies(self) -> list[tuple[str, str]]:
        return [(str(_FIRST_COMPANY + i), symbol) for i, symbol in enumerate(self.equities)]

    def _lines(self, kind: Kind, symbol: str) -> Iterator[bytes]:
        days = trading_days(self.start, self.days)
        if kind == "trade":
            return trade_lines(self.seed, symbol, days, self.rows_per_day, auctions=self.auctions)
        return quote_lines(self.seed, symbol, days, self.rows_per_day)

    def _part(self, kind: Kind, company: str, symbol: str) -> Part:
        name = f"simulated/{_FOLDERS[kind]}/{company}.csv"

        def lines() -> Iterator[Line | Rejected]:
            return lines_of(name, self._lines(kind, symbol))

        return Part(name, kind, company, frozenset({symbol}), lines)

    def _faulty(self, whole: Truth) -> Truth:
        """What the injected faults leave of the first pair's trades."""
        days = crypto_days(self.start, self.days)
        frames = capture(self.seed, self.pairs[:1], days, self.rows_per_day, self.faults)
        ids = sorted({frame.trade_id for frame in frames if frame.trade_id is not None})
        gaps = tuple((a + 1, b - 1) for a, b in pairwise(ids) if b > a + 1)
        return Truth(whole.feed, whole.symbol, len(ids), self.faults.duplicates, gaps, self.faults.out_of_order)


_PER_TRADE = ((BINANCE_TRADES, 1), (BINANCE_QUOTES, 2))
"""Rows of each Binance feed for one trade."""
