"""Phases of an exchange's day: when which symbol trades, in the exchange's own clock, dated, as data.

A phase is half-open in microseconds of the local day. The moment a symbol opens is random within a spread, and matching
overruns the close by a little: there neighbouring phases overlap, and an instant belongs to both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, time
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from k2_core.scopes import dense
from k2_core.windows import DAY_US

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.signedinteger[Any]]

CONTINUOUS = "continuous"
"""The phase in which orders match as they come; the name the rules know it by."""
OPEN = "open"
"""Stands for the moment a symbol opens, where a phase begins or ends with it."""
_SECOND_US = 1_000_000
_HOUR_US = 3_600 * _SECOND_US
_PHASE_FIELDS = {"name", "start", "end", "trades"}


class TradingDays(Protocol):
    """On which dates an exchange trades, and on which of them it closes early."""

    def is_open(self, day: date) -> bool: ...
    def closes_early(self, day: date) -> bool: ...


@dataclass(frozen=True)
class Phase:
    """A part of the day, half-open, since local midnight. trades: whether orders match in it."""

    name: str
    start_us: int
    end_us: int
    trades: bool = False


PhasesOf = Callable[[str, date], tuple[Phase, ...]]
"""Some of the phases of a symbol on an exchange date; only its first letter counts."""


@dataclass(frozen=True)
class _Boundary:
    """A bound of a phase: a time of day, or the opening of the symbol whenever that is."""

    at_us: int
    is_opening: bool = False


@dataclass(frozen=True)
class _Stretch:
    name: str
    start: _Boundary
    end: _Boundary
    trades: bool


@dataclass(frozen=True)
class Regime:
    """The phases on exchange dates in [first, end).

    openings: (first letter of a group, when it opens) in the order of letters; the first group takes what is before.
    spread_us: how far from that it may open. overrun_us: how long matching goes on past the end of continuous trading.
    """

    first: date
    end: date
    openings: tuple[tuple[str, int], ...]
    spread_us: int
    overrun_us: int
    stretches: tuple[_Stretch, ...]

    def opening_us(self, symbol: str) -> int:
        """When a symbol opens, give or take the spread."""
        group = bisect_right([letter for letter, _ in self.openings], symbol[:1].upper()) - 1
        return self.openings[max(group, 0)][1]

    def phases(self, symbol: str, early_us: int) -> tuple[Phase, ...]:
        """The phases of one symbol. early_us: by how much the close and what follows it come before their time."""
        opening_us = self.opening_us(symbol)
        close_us = next(stretch.end.at_us for stretch in self.stretches if stretch.name == CONTINUOUS)

        def moved(bound: _Boundary, spread_us: int) -> int:
            if bound.is_opening:
                return opening_us + spread_us
            return bound.at_us - (early_us if bound.at_us >= close_us else 0)

        def phase(s: _Stretch) -> Phase:
            overrun_us = self.overrun_us if s.name == CONTINUOUS else 0
            return Phase(s.name, moved(s.start, -self.spread_us), moved(s.end, self.spread_us) + overrun_us, s.trades)

        return tuple(phase(stretch) for stretch in self.stretches)


@dataclass(frozen=True)
class Sessions:
    """When one exchange trades. name: of its file. timezone: of the clock of its phases.

    early_us: how much earlier the close is on a day of early close.
    """

    name: str
    exchange: str
    timezone: str
    days: TradingDays
    early_us: int
    regimes: tuple[Regime, ...]

    def phases(self, symbol: str, day: date) -> tuple[Phase, ...]:
        """The phases of one symbol on one exchange date, in order; none on a day without trading."""
        regime = self._regime(day)
        if regime is None:
            return ()
        return regime.phases(symbol, self.early_us if self.days.closes_early(day) else 0)

    def trading(self, symbol: str, day: date) -> tuple[Phase, ...]:
        """The phases in which it trades, those that touch or overlap as one."""
        joined: list[Phase] = []
        for phase in (phase for phase in self.phases(symbol, day) if phase.trades):
            if joined and phase.start_us <= joined[-1].end_us:
                joined[-1] = replace(joined[-1], end_us=max(phase.end_us, joined[-1].end_us))
            else:
                joined.append(phase)
        return tuple(joined)

    def continuous(self, symbol: str, day: date) -> tuple[Phase, ...]:
        """Continuous trading, from when it has begun for certain until its stated end: one phase, or none."""
        regime = self._regime(day)
        if regime is None:
            return ()
        (phase,) = (phase for phase in self.phases(symbol, day) if phase.name == CONTINUOUS)
        start_us, end_us = phase.start_us + 2 * regime.spread_us, phase.end_us - regime.overrun_us
        return (replace(phase, start_us=start_us, end_us=end_us),)

    def _regime(self, day: date) -> Regime | None:
        """The regime of a day; None on one without trading."""
        return next((r for r in self.regimes if r.first <= day < r.end), None) if self.days.is_open(day) else None


def within(phases_of: PhasesOf, names: Sequence[str], codes: Codes, local: npt.NDArray[np.int64]) -> Mask:
    """Which instants lie in the phases of their symbol and day.

    names, codes: the symbols and which of them each instant is of. local: µs of the exchange's clock since 1970-01-01.
    """
    heads = sorted({name[:1] for name in names})
    head_of = np.array([heads.index(name[:1]) for name in names], np.int64)
    days, day_codes = dense(local // DAY_US)
    cells, which = dense(head_of[codes] * len(days) + day_codes)
    dates = days.astype("datetime64[D]").tolist()
    phases = [phases_of(heads[cell // len(days)], dates[cell % len(days)]) for cell in cells.tolist()]
    times, inside = local % DAY_US, np.zeros(len(local), bool)
    for n in range(max(map(len, phases), default=0)):
        starts = np.array([own[n].start_us if n < len(own) else 0 for own in phases], np.int64)
        ends = np.array([own[n].end_us if n < len(own) else 0 for own in phases], np.int64)
        inside |= (times >= starts[which]) & (times < ends[which])
        if inside.all():
            break
    return inside


def parse_sessions(name: str, document: Mapping[str, Any], days: TradingDays) -> Sessions:
    """Read the content of a file of config/sessions. Raises ValueError naming the regime that is wrong."""
    try:
        regimes = tuple(_regime(entry) for entry in document["regimes"])
        early_us = round(document["early_close_hours"] * _HOUR_US)
        _expect_order(regimes)
        return Sessions(name, document["exchange"], document["timezone"], days, early_us, regimes)
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected exchange, timezone, early_close_hours and regimes: {error!r}") from error


def _regime(entry: Any) -> Regime:
    try:
        openings = tuple(sorted((str(letter), _clock(at)) for letter, at in entry["opens"].items()))
        if not openings:
            raise ValueError("opens names no group of symbols")
        spread_us, overrun_us = (
            round(entry[f"{name}_seconds"] * _SECOND_US) for name in ("open_spread", "close_overrun")
        )
        stretches = tuple(_stretch(phase) for phase in entry["phases"])
        if [s.name for s in stretches].count(CONTINUOUS) != 1:
            raise ValueError(f"phases {[s.name for s in stretches]}: expected one called {CONTINUOUS}")
        first, end = entry.get("from", date.min), entry.get("to", date.max)
        return Regime(first, end, openings, spread_us, overrun_us, stretches)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"regime {entry!r}: {error}") from error


def _stretch(entry: Mapping[str, Any]) -> _Stretch:
    if unknown := sorted(set(entry) - _PHASE_FIELDS):
        raise ValueError(f"unknown fields {unknown}, expected {sorted(_PHASE_FIELDS)}")
    start, end = _boundary(entry["start"]), _boundary(entry["end"])
    if not (start.is_opening or end.is_opening) and start.at_us >= end.at_us:
        raise ValueError(f"phase {entry['name']} ends before it begins")
    return _Stretch(entry["name"], start, end, bool(entry.get("trades", False)))


def _boundary(text: Any) -> _Boundary:
    return _Boundary(0, is_opening=True) if text == OPEN else _Boundary(_clock(text))


def _clock(text: Any) -> int:
    """HH:MM:SS, with a fraction where there is one, as µs since midnight."""
    clock = time.fromisoformat(text)
    return ((clock.hour * 60 + clock.minute) * 60 + clock.second) * _SECOND_US + clock.microsecond


def _expect_order(regimes: Iterable[Regime]) -> None:
    """Regimes follow each other without an overlap or a hole."""
    previous: Regime | None = None
    for regime in regimes:
        if regime.first >= regime.end or (previous is not None and regime.first != previous.end):
            raise ValueError(f"regime from {regime.first} to {regime.end}: expected one to begin where another ends")
        previous = regime
    if previous is None:
        raise ValueError("regimes: expected at least one")
