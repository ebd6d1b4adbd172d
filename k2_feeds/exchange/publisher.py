"""From the market to the streams: each tick at its time, into the ledger first, and through the faults."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from k2_feeds.exchange.faults import Fault, Faults, Kind
from k2_feeds.exchange.frames import book_ticker_event, garbage, half, stream_of, trade_event
from k2_feeds.exchange.hub import Event, Hub
from k2_feeds.exchange.ledger import Ledger
from k2_feeds.exchange.pace import MarketClock
from k2_feeds.exchange.ticks import Print, Tick

_TICKS_AT_ONCE = 2_000
"""Then the event loop turns, so that REST and pings are answered in the middle of a crash."""
_UNSENT_BYTES_MAX = 1 << 20
"""At unlimited speed the market waits for a reader that is so far behind."""
_REORDERED_PLACES = 3
"""A reordered trade comes after so many later ones of its symbol."""
_HELD_SECONDS_MAX = 1.0
"""Or after so long, where no more come."""


@dataclass
class _Held:
    """A trade whose frame waits. places: later trades of its symbol to let pass; until: of the wall, monotonic."""

    symbol: str
    event: Event
    places: float
    until: float


class Publisher:
    """Publishes the ticks of one source. Lives in the exchange's event loop; its counters may be read anywhere."""

    def __init__(
        self,
        source: Iterator[Tick],
        *,
        clock: MarketClock,
        ledger: Ledger,
        faults: Faults,
        hub: Hub,
        trades_max: int | None,
    ) -> None:
        self._source, self._clock, self._ledger = source, clock, ledger
        self._faults, self._hub = faults, hub
        self._left = trades_max
        self._next: Tick | None = next(source, None)
        self._shift: dict[str, int] = {}
        self._resets: dict[str, int] = {}
        self._held: list[_Held] = []
        self.behind_seconds = 0.0

    @property
    def is_over(self) -> bool:
        """Whether every tick there is was published."""
        return self._next is None

    @property
    def held_count(self) -> int:
        return len(self._held)

    def stamp_us(self) -> int:
        """Tell the time the exchange believes it is."""
        return self._clock.now_us() + self._faults.skew_us()

    def reset_ids(self, fault: Fault, symbols: tuple[str, ...]) -> None:
        """Let the next trade of the fault's symbol, or of each, have the id the fault names, after a break."""
        for symbol in (fault.symbol,) if fault.symbol else symbols:
            self._resets[symbol] = fault.first_id
        if fault.duration_seconds:
            open_us = self._clock.now_us() + int(fault.duration_seconds * 1_000_000)
            while self._next is not None and self._next.at_us < open_us:
                self._next = next(self._source, None)
            self._clock.reach(open_us)

    def publish_due(self) -> None:
        """Publish what is due, as far as one turn allows."""
        if self._clock.is_held:
            return
        now_us = self._clock.now_us()
        for _ in range(_TICKS_AT_ONCE):
            tick = self._next
            if tick is None or not self._is_due(tick, now_us):
                self.behind_seconds = 0.0
                return
            self._next = next(self._source, None)
            if self._clock.is_unlimited:
                self._clock.reach(tick.at_us)
            self._publish(tick)
        self.behind_seconds = 0.0 if self._next is None else max(0, now_us - self._next.at_us) / 1_000_000

    def release_held(self) -> None:
        """Send the held trades whose time has come."""
        now = time.monotonic()
        held, self._held = self._held, []
        for one in held:
            if one.places <= 0 or now >= one.until:
                self._hub.send(stream_of(one.symbol, "trade"), one.event)
            else:
                self._held.append(one)

    def _is_due(self, tick: Tick, now_us: int) -> bool:
        if self._clock.is_unlimited:
            return self._hub.is_heard and self._hub.unsent_bytes < _UNSENT_BYTES_MAX
        return tick.at_us <= now_us

    def _publish(self, tick: Tick) -> None:
        if isinstance(tick, Print):
            self._publish_trade(self._numbered(tick))
            if self._left is not None:
                self._left -= 1
                self._next = self._next if self._left else None
        else:
            self._ledger.add_quote(tick)
            content = book_ticker_event(tick)
            self._hub.send(stream_of(tick.symbol, "bookTicker"), lambda _microseconds: content)

    def _numbered(self, tick: Print) -> Print:
        """The trade with the id and the time it is published with."""
        reset = self._resets.pop(tick.symbol, None)
        if reset is not None:
            self._shift[tick.symbol] = reset - tick.trade_id
            self._ledger.begin_session(tick.symbol)
        shift, skew_us = self._shift.get(tick.symbol, 0), self._faults.skew_us()
        if not shift and not skew_us:
            return tick
        return replace(tick, trade_id=tick.trade_id + shift, time_us=tick.time_us + skew_us)

    def _publish_trade(self, tick: Print) -> None:
        fault = self._faults.of_trade(tick.symbol, tick.trade_id)
        kind = fault.kind if fault else None
        if kind is Kind.ABSENT:
            self._ledger.miss(tick.symbol, tick.trade_id)
            return
        self._ledger.add(tick)
        if kind in (Kind.DROP, Kind.TRUNCATE):
            self._ledger.withhold(tick.symbol, tick.trade_id)
        if kind is Kind.DROP:
            return
        event = self._event(tick)
        if fault and kind in (Kind.REORDER, Kind.DELAY):
            self._hold(tick, event, fault)
            return
        self._send(tick, event, kind)

    def _event(self, tick: Print) -> Event:
        # sent after it was traded, also where the market lags behind its clock or a clock is wrong
        sent_us = max(tick.time_us, self.stamp_us())
        return lambda microseconds: trade_event(tick, sent_us, microseconds=microseconds)

    def _send(self, tick: Print, event: Event, kind: Kind | None) -> None:
        send = partial(self._hub.send, stream_of(tick.symbol, "trade"), event)
        if kind is Kind.GARBAGE:
            send(garbage)
        send(half if kind is Kind.TRUNCATE else None)
        if kind is Kind.DUPLICATE:
            send()
        for held in self._held:
            if held.symbol == tick.symbol:
                held.places -= 1
        if self._held:
            self.release_held()

    def _hold(self, tick: Print, event: Event, fault: Fault) -> None:
        is_delay = fault.kind is Kind.DELAY
        seconds = fault.duration_seconds if is_delay else _HELD_SECONDS_MAX
        places = math.inf if is_delay else _REORDERED_PLACES
        self._held.append(_Held(tick.symbol, event, places, time.monotonic() + seconds))
