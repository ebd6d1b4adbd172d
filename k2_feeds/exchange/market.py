"""A seeded market that never closes: few symbols trade most, trades cluster, books cross, and once it crashes.

The same seed and start give the same ticks, however fast they are published.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random
from typing import NamedTuple

from k2_feeds.exchange.ticks import Print, Quote, Tick
from k2_feeds.seeded import seeded

_SECOND_US = 1_000_000
_CENT = 1_000_000
"""The tick of every symbol, in 1e-8."""
_LOT = 1_000
"""Quantities have five decimals."""
_BASES_CENTS = (5_800_000, 250_000, 31_250, 4_200, 980)
"""Where the price of the first, second... symbol begins; after the last the row begins again."""
_FILL_AGAIN = 0.4
"""Chance that a taker's order meets one more resting order: fills of one order have one time and successive ids."""
_FILLS_MAX = 24
_FILLS_PER_LEVEL = 3
_BURST_EVERY_SECONDS, _BURST_SECONDS, _BURST_FACTOR = 90.0, 5.0, 8.0
"""Trading clusters: on average so often, for so long, at so many times the calm rate."""
CRASH_SECONDS, CRASH_FACTOR = 10.0, 100.0
"""A flash crash: how long it lasts, and how many times the calm volume it trades."""
_CRASH_DEPTH = 0.15
"""Part of the price that is gone at the bottom; at the end it is back."""
_CRASH_SELLS = 0.9
_CROSSED = 1 / 250
"""Part of the book tickers whose bid is above the ask, as happens while two updates are under way."""
_QUOTES_PER_ORDER = 2
_UPDATE_JUMP_MAX = 20
_QUANTITY_MAX = 200_000
"""In lots."""
_NUMBERED_FROM_SECONDS = 1_577_836_800
"""Ids count from 2020, so that an exchange started later never gives an id again that an earlier one gave."""
_IDS_PER_SECOND = 1_000
_IDS_PER_TRADE = 10
"""Room for bursts and a crash above the calm rate."""
_UPDATES_PER_ID = _QUOTES_PER_ORDER * (_UPDATE_JUMP_MAX + 1)
_NEVER = math.inf


class Mood(NamedTuple):
    """depth: part of every price that is gone; sells: part of the orders that sell."""

    depth: float
    sells: float


_CALM = Mood(0.0, 0.5)


class Weather:
    """How busy the market is at an event time: calm, in a burst, or in a flash crash."""

    def __init__(self, rng: Random, start_us: int, crash_after_seconds: float | None) -> None:
        self._rng = rng
        self._burst_us = start_us + self._pause()
        after = _NEVER if crash_after_seconds is None else crash_after_seconds
        self._crash_us = start_us + after * _SECOND_US

    def crash(self, at_us: float) -> None:
        """Let a flash crash begin."""
        self._crash_us = at_us

    def factor(self, now_us: float) -> float:
        """Times the calm rate."""
        while now_us >= self._burst_us + _BURST_SECONDS * _SECOND_US:
            self._burst_us += _BURST_SECONDS * _SECOND_US + self._pause()
        if 0 <= now_us - self._crash_us < CRASH_SECONDS * _SECOND_US:
            return CRASH_FACTOR
        return _BURST_FACTOR if now_us >= self._burst_us else 1.0

    def changes(self, now_us: float) -> float:
        """When the rate is another; after `factor` was asked for the same time."""
        burst_ends, crash_ends = (
            begins + seconds * _SECOND_US
            for begins, seconds in ((self._burst_us, _BURST_SECONDS), (self._crash_us, CRASH_SECONDS))
        )
        return min(t for t in (self._burst_us, burst_ends, self._crash_us, crash_ends, _NEVER) if t > now_us)

    def mood(self, now_us: float) -> Mood:
        """What a crash does to prices now: down in its first half, up again in its second."""
        phase = (now_us - self._crash_us) / (CRASH_SECONDS * _SECOND_US)
        if not 0 <= phase < 1:
            return _CALM
        return Mood(_CRASH_DEPTH * 2 * min(phase, 1 - phase), _CRASH_SELLS if phase < 0.5 else 0.5)

    def _pause(self) -> float:
        return _exponential(self._rng, _BURST_EVERY_SECONDS * _SECOND_US)


class Book:
    """One symbol: its price, its spread, and the numbers its trades and book updates have."""

    def __init__(self, symbol: str, price: int, trade_id: int) -> None:
        self.symbol = symbol
        self._price = price
        self._trade_id, self._update_id = trade_id, trade_id * _UPDATES_PER_ID

    def order(self, at_us: int, mood: Mood, rng: Random) -> list[Tick]:
        """A taker's order at an event time: its fills, then the book after it."""
        self._price = max(20, self._price + int(rng.random() * 7) - 3)
        bid = max(2, int(self._price * (1 - mood.depth)))
        ask = bid + 1 + (int(rng.random() * 5) if mood.depth else 0)
        sells = rng.random() < mood.sells
        ticks: list[Tick] = []
        while not ticks or (len(ticks) < _FILLS_MAX and rng.random() < _FILL_AGAIN):
            level = len(ticks) // _FILLS_PER_LEVEL
            price = max(1, bid - level) if sells else ask + level
            quantity = 1 + int(rng.random() ** 4 * _QUANTITY_MAX)
            ticks.append(
                Print(self.symbol, at_us, self._trade_id, at_us, price * _CENT, quantity * _LOT, buyer_is_maker=sells)
            )
            self._trade_id += 1
        ticks += [self._quote(at_us, bid, ask, rng) for _ in range(_QUOTES_PER_ORDER)]
        return ticks

    def _quote(self, at_us: int, bid: int, ask: int, rng: Random) -> Quote:
        self._update_id += 1 + int(rng.random() * _UPDATE_JUMP_MAX)
        if rng.random() < _CROSSED:
            bid = ask + 1
        bid_lots, ask_lots = (1 + int(rng.random() * 4 * _QUANTITY_MAX) for _ in range(2))
        return Quote(self.symbol, at_us, self._update_id, bid * _CENT, bid_lots * _LOT, ask * _CENT, ask_lots * _LOT)


class Market:
    """All symbols together, in the order of event time. symbols: the n-th trades 1/n as often as the first."""

    def __init__(
        self,
        seed: int,
        symbols: Sequence[str],
        start_us: int,
        trades_per_second: float,
        crash_after_seconds: float | None = None,
    ) -> None:
        self._rng = seeded(seed, "exchange")
        self._start_us = start_us
        self._orders_per_us = trades_per_second * (1 - _FILL_AGAIN) / _SECOND_US
        self.weather = Weather(seeded(seed, "weather"), start_us, crash_after_seconds)
        first = _first_id(start_us, trades_per_second)
        prices = [_BASES_CENTS[i % len(_BASES_CENTS)] for i in range(len(symbols))]
        self._books = [Book(symbol, price, first) for symbol, price in zip(symbols, prices, strict=True)]
        shares = list(accumulate(1 / rank for rank in range(1, len(symbols) + 1)))
        self._shares = [share / shares[-1] for share in shares[:-1]]

    def ticks(self) -> Iterator[Tick]:
        """Every tick from the start on, without end."""
        now = float(self._start_us)
        while True:
            now = self._next_order(now)
            book = self._books[bisect_right(self._shares, self._rng.random())]
            yield from book.order(int(now), self.weather.mood(now), self._rng)

    def _next_order(self, now: float) -> float:
        """When the next order comes. A wait that passes a change of weather is drawn anew from there."""
        while True:
            rate = self._orders_per_us * self.weather.factor(now)
            until = self.weather.changes(now)
            arrival = now + _exponential(self._rng, 1 / rate)
            if arrival <= until:
                return arrival
            now = until


def _exponential(rng: Random, mean: float) -> float:
    return -math.log(1 - rng.random()) * mean


def _first_id(start_us: int, trades_per_second: float) -> int:
    per_second = max(_IDS_PER_SECOND, math.ceil(_IDS_PER_TRADE * trades_per_second))
    return max(1, (start_us // _SECOND_US - _NUMBERED_FROM_SECONDS) * per_second + 1)
