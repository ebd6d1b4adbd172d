"""The truth: every trade and quote the exchange ever published, and every id it does not have.

REST answers from here; tests compare the lake with it. Any thread may read while the exchange writes.
"""

from __future__ import annotations

import sys
import threading
from array import array
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

from k2_feeds.exchange.ticks import Print, Quote

_EXPONENT = -8


@dataclass(frozen=True, slots=True)
class Published:
    """One trade of the exchange. session: which numbering of ids, from 0; time_us: trade time as published."""

    session: int
    trade_id: int
    time_us: int
    price: Decimal
    quantity: Decimal
    buyer_is_maker: bool


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Fills of one taker at one price and time. ids: first and last, inclusive; quantity: their sum, in 1e-8."""

    aggregate_id: int
    first: Print
    last_id: int
    quantity: int


class _Prints:
    """Trades of one symbol under one numbering, by rising id, as columns: a million take 40 MB."""

    def __init__(self) -> None:
        self.ids, self.times = array("q"), array("q")
        self.prices, self.quantities = array("q"), array("q")
        self.makers = array("b")
        self.absent: list[int] = []
        self._aggregates = array("q")
        self._aggregated = 0

    def add(self, tick: Print) -> bool:
        """Take a trade in; False when its id is there. A late one is put in its place."""
        at = len(self.ids)
        if at and tick.trade_id <= self.ids[-1]:
            at = bisect_left(self.ids, tick.trade_id)
            if self.ids[at] == tick.trade_id:
                return False
            self._forget_aggregates(at)
        self.ids.insert(at, tick.trade_id)
        self.times.insert(at, tick.time_us)
        self.prices.insert(at, tick.price)
        self.quantities.insert(at, tick.quantity)
        self.makers.insert(at, tick.buyer_is_maker)
        return True

    def get(self, symbol: str, at: int) -> Print:
        time_us, maker = self.times[at], bool(self.makers[at])
        return Print(symbol, time_us, self.ids[at], time_us, self.prices[at], self.quantities[at], maker)

    def aggregates(self) -> array[int]:
        """Row of the first fill of each aggregate; an aggregate's id is its place, from 1."""
        for at in range(self._aggregated, len(self.ids)):
            if not at or not self._is_one_order(at - 1, at):
                self._aggregates.append(at)
        self._aggregated = len(self.ids)
        return self._aggregates

    def _is_one_order(self, before: int, after: int) -> bool:
        columns = (self.times, self.prices, self.makers)
        return self.ids[after] == self.ids[before] + 1 and all(c[after] == c[before] for c in columns)

    def _forget_aggregates(self, at: int) -> None:
        self._aggregated = min(self._aggregated, max(0, at - 1))
        del self._aggregates[bisect_left(self._aggregates, self._aggregated) :]


class _Quotes:
    def __init__(self) -> None:
        self.columns = tuple(array("q") for _ in range(5))

    def add(self, tick: Quote) -> None:
        values = (tick.update_id, tick.bid, tick.bid_quantity, tick.ask, tick.ask_quantity)
        for column, value in zip(self.columns, values, strict=True):
            column.append(value)


class Ledger:
    """Everything published, per symbol."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sessions: dict[str, list[_Prints]] = defaultdict(lambda: [_Prints()])
        self._quotes: dict[str, _Quotes] = defaultdict(_Quotes)
        self._withheld: dict[str, list[tuple[int, int]]] = defaultdict(list)

    # what the exchange writes

    def add(self, tick: Print) -> None:
        """Take in a trade that exists."""
        with self._lock:
            self._sessions[tick.symbol][-1].add(tick)

    def add_quote(self, tick: Quote) -> None:
        with self._lock:
            self._quotes[tick.symbol].add(tick)

    def miss(self, symbol: str, trade_id: int) -> None:
        """Note an id that no trade has."""
        with self._lock:
            self._sessions[symbol][-1].absent.append(trade_id)

    def withhold(self, symbol: str, trade_id: int) -> None:
        """Note a trade that is in REST and was on no stream."""
        with self._lock:
            self._withheld[symbol].append((len(self._sessions[symbol]) - 1, trade_id))

    def begin_session(self, symbol: str) -> None:
        """Begin another numbering of trade ids; REST no longer knows those before."""
        with self._lock:
            self._sessions[symbol].append(_Prints())

    # what tests and the control endpoint read

    def symbols(self) -> list[str]:
        """Symbols with at least one trade, absent id or quote."""
        with self._lock:
            return sorted({*self._sessions, *self._quotes})

    def trades(self, symbol: str, start: int = 0, end: int = sys.maxsize) -> list[Published]:
        """Trades of a symbol by session and id. start, end: positions in that list."""
        found: list[Published] = []
        with self._lock:
            for session, prints in enumerate(self._sessions.get(symbol, ())):
                count = len(prints.ids)
                found += [_published(session, prints, at) for at in range(max(0, start), min(count, end))]
                start, end = start - count, end - count
        return found

    def trade_count(self, symbol: str | None = None) -> int:
        """Trades of one symbol, or of all."""
        with self._lock:
            names = list(self._sessions) if symbol is None else [symbol]
            return sum(len(prints.ids) for name in names for prints in self._sessions.get(name, ()))

    def absent(self, symbol: str) -> list[tuple[int, int]]:
        """Ids the exchange itself does not have, as (session, id)."""
        with self._lock:
            sessions = enumerate(self._sessions.get(symbol, ()))
            return [(session, trade_id) for session, prints in sessions for trade_id in prints.absent]

    def withheld(self, symbol: str) -> list[tuple[int, int]]:
        """Trades that are in REST and were never on a stream, as (session, id)."""
        with self._lock:
            return list(self._withheld.get(symbol, ()))

    def quote_count(self, symbol: str) -> int:
        """Quotes of one symbol."""
        with self._lock:
            return len(self._quotes[symbol].columns[0]) if symbol in self._quotes else 0

    def quotes(self, symbol: str) -> list[tuple[int, Decimal, Decimal, Decimal, Decimal]]:
        """Update id, bid, its quantity, ask, its quantity, in the order published."""
        with self._lock:
            if symbol not in self._quotes:
                return []
            rows = list(zip(*self._quotes[symbol].columns, strict=True))
        return [(update, _decimal(b), _decimal(bq), _decimal(a), _decimal(aq)) for update, b, bq, a, aq in rows]

    # what REST reads: the numbering in force

    def from_id(self, symbol: str, first_id: int, count: int) -> list[Print]:
        """At most `count` trades from an id on, by rising id."""
        with self._lock:
            prints = self._current(symbol)
            at = bisect_left(prints.ids, first_id)
            return [prints.get(symbol, i) for i in range(at, min(at + count, len(prints.ids)))]

    def latest(self, symbol: str, count: int) -> list[Print]:
        """The last trades, oldest first."""
        with self._lock:
            prints = self._current(symbol)
            return [prints.get(symbol, i) for i in range(max(0, len(prints.ids) - count), len(prints.ids))]

    def aggregates(
        self, symbol: str, count: int, *, first_id: int | None = None, start_us: int | None, end_us: int | None
    ) -> list[Aggregate]:
        """At most `count` aggregates: from an aggregate id on, or with a time in [start, end], or the last."""
        with self._lock:
            prints = self._current(symbol)
            starts = prints.aggregates()
            if first_id is not None:
                first = max(0, first_id - 1)
            elif start_us is not None:
                first = bisect_left(starts, start_us, key=prints.times.__getitem__)
            else:
                first = 0 if end_us is not None else max(0, len(starts) - count)
            found: list[Aggregate] = []
            for place in range(first, min(first + count, len(starts))):
                if end_us is not None and prints.times[starts[place]] > end_us:
                    break
                found.append(_aggregate(symbol, prints, starts, place))
            return found

    def _current(self, symbol: str) -> _Prints:
        sessions = self._sessions.get(symbol)
        return sessions[-1] if sessions else _Prints()


def _aggregate(symbol: str, prints: _Prints, starts: array[int], place: int) -> Aggregate:
    begin = starts[place]
    end = starts[place + 1] if place + 1 < len(starts) else len(prints.ids)
    quantity = sum(prints.quantities[begin:end])
    return Aggregate(place + 1, prints.get(symbol, begin), prints.ids[end - 1], quantity)


def _published(session: int, prints: _Prints, at: int) -> Published:
    price, quantity = _decimal(prints.prices[at]), _decimal(prints.quantities[at])
    return Published(session, prints.ids[at], prints.times[at], price, quantity, bool(prints.makers[at]))


def _decimal(value: int) -> Decimal:
    return Decimal(value).scaleb(_EXPONENT)
