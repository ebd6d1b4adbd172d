"""Faults on demand: what goes wrong next, on the streams, at the sockets, or at REST.

A fault of a trade hits at most one a trade; `count` says how many it hits before it is spent. Everything a fault did
to a trade is kept, so that a test can tell an injected hole from a real one.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from k2_core.errors import BadInput


class Kind(StrEnum):
    """What can go wrong. Stable: tests and the control endpoint name faults by these words."""

    ABSENT = "absent"
    """Trades that never were: their ids are neither on the stream nor in REST."""
    DROP = "drop"
    """Trades that are in REST and never come on a stream."""
    TRUNCATE = "truncate"
    """Frames whose JSON ends in the middle; the trade is in REST."""
    DUPLICATE = "duplicate"
    """Frames that come twice."""
    REORDER = "reorder"
    """Trades that come after the next few of their symbol."""
    DELAY = "delay"
    """Trades that come `seconds` later."""
    GARBAGE = "garbage"
    """An extra frame that is no event, before the trade."""
    CLOCK_SKEW = "clock_skew"
    """Everything the exchange stamps is `seconds` ahead, until cleared."""
    ID_RESET = "id_reset"
    """Trade ids begin again, at `first_id`; REST no longer knows those before. Of the `seconds` of event time before
    nothing was published, and the clock passes over them: an exchange renumbers while it is closed."""
    HALF_OPEN = "half_open"
    """Connections neither send nor answer from now on, and stay open."""
    TEAR = "tear"
    """Connections end in the middle of a frame."""
    CUT = "cut"
    """Connections end without a word."""
    SERVER_SHUTDOWN = "server_shutdown"
    """Connections are told so and closed after `seconds`, or after the notice of the limits."""
    REFUSE = "refuse"
    """Connection attempts answered with HTTP 503."""
    REST_429 = "rest_429"
    """Requests refused; to wait: `seconds`. Who does not is banned."""
    REST_418 = "rest_418"
    """A ban of `seconds` from the next request on."""
    REST_5XX = "rest_5xx"
    """Requests answered 500, 502, 503 and 504 in turn, some with HTML."""


OF_TRADES = (Kind.ABSENT, Kind.DROP, Kind.TRUNCATE, Kind.DUPLICATE, Kind.REORDER, Kind.DELAY, Kind.GARBAGE)
"""The order in which faults claim a trade."""
AT_ONCE = frozenset({Kind.ID_RESET, Kind.HALF_OPEN, Kind.TEAR, Kind.CUT, Kind.SERVER_SHUTDOWN})
"""Faults that happen once, when they are injected."""
UNTIL_CLEARED = 0
"""The count of a fault that is never spent; for connections: all there are."""
_SECONDS = {Kind.DELAY: 0.5, Kind.REST_429: 1.0, Kind.REST_418: 2.0}
"""What `seconds` is when nobody says; 0 elsewhere."""
_HITS_KEPT_MAX = 100_000
"""A fault that is never cleared must not fill the memory; beyond, hits are only counted."""


@dataclass(frozen=True)
class Fault:
    """One fault. symbol: None is any; count: hits until it is spent; one_in: of so many that it could hit.

    seconds, first_id: see the kind. Raises BadInput.
    """

    kind: Kind
    symbol: str | None = None
    count: int = 1
    one_in: int = 1
    seconds: float | None = None
    first_id: int = 1

    def __post_init__(self) -> None:
        if self.count < 0 or self.one_in < 1 or self.first_id < 0:
            raise BadInput(f"{self}: expected count and first_id from 0 on, one_in from 1 on")
        if self.kind is Kind.CLOCK_SKEW and not self.seconds:
            raise BadInput(f"{self}: say by how many seconds the clock is wrong")

    @property
    def duration_seconds(self) -> float:
        return _SECONDS.get(self.kind, 0.0) if self.seconds is None else self.seconds


@dataclass(frozen=True, slots=True)
class Hit:
    """One trade a fault hit. trade_id: as published, or as missing."""

    kind: Kind
    symbol: str
    trade_id: int


@dataclass
class _Armed:
    fault: Fault
    chances: int = 0
    hits: int = 0

    def strike(self) -> bool:
        """Tell whether this chance is taken."""
        self.chances += 1
        taken = self.chances % self.fault.one_in == 0
        self.hits += taken
        return taken

    @property
    def is_spent(self) -> bool:
        return self.fault.count != UNTIL_CLEARED and self.hits >= self.fault.count


class Faults:
    """The faults in force. Any thread may inject and clear; the exchange asks before everything it does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []
        self._due: list[Fault] = []
        self._hits: list[Hit] = []
        self.counts: Counter[Kind] = Counter()

    def inject(self, kind: Kind | str, **options: Any) -> Fault:
        """Put a fault in force, e.g. `inject("drop", symbol="SIMBTCUSDT", count=3)`. Raises BadInput."""
        fault = read_fault({"kind": kind, **options})
        self.add(fault)
        return fault

    def add(self, fault: Fault) -> None:
        """Put a fault in force; what happens at once does so within a tick of the exchange."""
        with self._lock:
            if fault.kind in AT_ONCE:
                self._due.append(fault)
            else:
                self._armed.append(_Armed(fault))

    def clear(self, kind: Kind | None = None) -> None:
        """End the faults of a kind, or all. What already happened stays as it is."""
        with self._lock:
            self._armed = [armed for armed in self._armed if kind not in (None, armed.fault.kind)]

    def active(self) -> list[Fault]:
        with self._lock:
            return [armed.fault for armed in self._armed]

    def hits(self, kind: Kind | None = None) -> list[Hit]:
        """Trades that were hit, in that order."""
        with self._lock:
            return [hit for hit in self._hits if kind in (None, hit.kind)]

    def of_trade(self, symbol: str, trade_id: int) -> Fault | None:
        """The fault that hits this trade."""
        if not self._armed:
            return None
        for kind in OF_TRADES:
            fault = self.strike(kind, symbol)
            if fault is not None:
                with self._lock:
                    if len(self._hits) < _HITS_KEPT_MAX:
                        self._hits.append(Hit(kind, symbol, trade_id))
                return fault
        return None

    def strike(self, kind: Kind, symbol: str | None = None) -> Fault | None:
        """The fault of a kind that hits now; uses up one of its count."""
        with self._lock:
            for armed in self._armed:
                if armed.fault.kind is kind and armed.fault.symbol in (None, symbol) and armed.strike():
                    self.counts[kind] += 1
                    if armed.is_spent:
                        self._armed.remove(armed)
                    return armed.fault
        return None

    def take_due(self) -> list[Fault]:
        """Faults that happen at once and have not yet."""
        if not self._due:
            return []
        with self._lock:
            due, self._due = self._due, []
            self.counts.update(fault.kind for fault in due)
            return due

    def skew_us(self) -> int:
        """How far ahead the exchange's clock is."""
        if not self._armed:
            return 0
        with self._lock:
            skews = (armed.fault.duration_seconds for armed in self._armed if armed.fault.kind is Kind.CLOCK_SKEW)
            return int(sum(skews) * 1_000_000)


def read_fault(document: Mapping[str, Any]) -> Fault:
    """Read a fault from a mapping, as JSON or options give it. Raises BadInput."""
    known = {field.name for field in fields(Fault)}
    if unknown := document.keys() - known:
        raise BadInput(f"a fault has no {', '.join(sorted(unknown))}, only {', '.join(sorted(known))}")
    try:
        kind = Kind(document.get("kind", ""))
        symbol, seconds = document.get("symbol"), document.get("seconds")
        numbers = {name: int(document[name]) for name in ("count", "one_in", "first_id") if name in document}
        return Fault(
            kind,
            None if symbol is None else str(symbol),
            seconds=None if seconds is None else float(seconds),
            **numbers,
        )
    except (TypeError, ValueError) as error:
        raise BadInput(f"fault {dict(document)}: {error}; kinds: {', '.join(Kind)}") from error


def parse_fault(said: str) -> Fault:
    """Read a fault from a command line: `drop` or `drop,symbol=SIMBTCUSDT,count=3`. Raises BadInput."""
    kind, *options = said.split(",")
    pairs = [option.partition("=") for option in options]
    return read_fault({"kind": kind, **{name: value for name, _, value in pairs}})


def as_document(fault: Fault) -> dict[str, Any]:
    """Write a fault as JSON has it."""
    return {name: value for name, value in asdict(fault).items() if value is not None}
