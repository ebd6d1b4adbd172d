"""Trade and quote files of companies that never were, in the vendor's seven- and six-column layouts.

What makes the real files hard is in them: a staggered open, identical genuine fills, excluded prints far off the
price, one-sided quotes before the open, crosses that last no longer than their millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from random import Random

from k2_core.identity import canonical
from k2_feeds.seeded import seeded

_HOUR_MS = 3_600_000
_SINGLE_OPEN_FROM = date(2025, 6, 23)
"""Before, symbols opened one group after the other, by first letter; since, all at once."""
_OPEN_MS = 10 * _HOUR_MS
_STAGGER_MS = (("B", 0), ("F", 135_000), ("M", 270_000), ("R", 405_000))
"""Last letter of a group and its delay after 10:00:00; the rest of the alphabet comes last."""
_LAST_DELAY_MS = 540_000
_OPEN_JITTER_MS = 15_000
_CLOSE_MS = 16 * _HOUR_MS
_BASES = (640, 3_610, 12_480, 36_200)
"""Prices a walk starts from, in mils (a thousandth of a dollar)."""
_TICK = 10
"""One cent, in mils; trades at mid lie half a tick off."""
_CONDITIONS = ("0",) * 17 + ("25", "25", "2")
"""Codes of continuous trading, about as often as in real files; 25 trades at mid."""

_Row = tuple[int, list[str]]
"""Millisecond of the local day, and the columns after date and time."""


def trading_days(start: date, days: int) -> list[date]:
    """Weekdays from start on; holidays are not known here."""
    found: list[date] = []
    day = start
    while len(found) < days:
        if day.weekday() < 5:
            found.append(day)
        day += timedelta(days=1)
    return found


def trade_lines(seed: int, symbol: str, days: Sequence[date], rows_per_day: int) -> Iterator[bytes]:
    """Lines of one trade file. rows_per_day: prints of continuous trading; the others come on top."""
    for day in days:
        rows = [*_early_prints(seed, symbol, day), *_prints(seed, symbol, day, rows_per_day)]
        yield from _lines(day, rows)


def quote_lines(seed: int, symbol: str, days: Sequence[date], rows_per_day: int) -> Iterator[bytes]:
    """Lines of one quote file. rows_per_day: states of the book in continuous trading; the others come on top."""
    for day in days:
        rows = [*_early_quotes(seed, symbol, day), *_quotes(seed, symbol, day, rows_per_day)]
        yield from _lines(day, rows)


def company_lines(companies: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    """Lines of the company file. companies: (company id, symbol)."""
    yield b"company_id,symbol,company_name,ISIN,start_date,end_date\r\n"
    for company, symbol in companies:
        yield f"{company},{symbol},SIMULATED {symbol} LTD,,01/01/2010,12/31/2099\r\n".encode()


def _lines(day: date, rows: Sequence[_Row]) -> Iterator[bytes]:
    for at, columns in sorted(rows, key=lambda row: row[0]):
        seconds, ms = divmod(at, 1_000)
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}"
        yield f"{day:%m/%d/%Y},{clock},{','.join(columns)}\r\n".encode()


def _early_prints(seed: int, symbol: str, day: date) -> Iterator[_Row]:
    """Off-market prints before the open, far off the price: the vendor excludes them."""
    rng, base = seeded(seed, symbol, day, "early"), _base(seed, symbol)
    for _ in range(4):
        price = base * (105 + int(rng.random() * 12)) // 100
        volume = 1_000 * (1 + int(rng.random() * 200))
        yield 7 * _HOUR_MS + int(rng.random() * 2 * _HOUR_MS), [_mils(price), str(volume), "3", "X", ""]


def _prints(seed: int, symbol: str, day: date, rows: int) -> Iterator[_Row]:
    rng, price = seeded(seed, symbol, day, "trades"), _base(seed, symbol)
    for at in _moments(seed, symbol, day, rows, rng):
        price = _walked(price, rng)
        condition = _CONDITIONS[int(rng.random() * len(_CONDITIONS))]
        traded = price + _TICK // 2 if condition == "25" else price
        columns = [_mils(traded), str(1 + int(rng.random() ** 3 * 5_000)), condition, "", ""]
        if rng.random() < 0.002:
            columns[3:] = ["X", _mils(price)]
            columns[0] = _mils(traded * 11 // 10)
        for _ in range(2 if rng.random() < 0.035 else 1):
            yield at, columns


def _early_quotes(seed: int, symbol: str, day: date) -> Iterator[_Row]:
    """The first state of a day has no ask; then both sides, crossed as they may be before the open."""
    rng, base = seeded(seed, symbol, day, "dawn"), _base(seed, symbol)
    at = 5 * _HOUR_MS + 43 * 60_000 + int(rng.random() * 60_000)
    yield at, [_mils(base), "0.0", "300", "0"]
    yield at, [_mils(base), _mils(base + 3 * _TICK), "300", "600"]
    yield at + 70 * 60_000, [_mils(base + 3 * _TICK), _mils(base - 2 * _TICK), "19", "284"]


def _quotes(seed: int, symbol: str, day: date, rows: int) -> Iterator[_Row]:
    rng, price = seeded(seed, symbol, day, "quotes"), _base(seed, symbol)
    for at in _moments(seed, symbol, day, rows, rng):
        price = _walked(price, rng)
        sizes = [str(1 + int(rng.random() * 9_000)) for _ in range(2)]
        if rng.random() < 0.005:
            yield at, [_mils(price + 2 * _TICK), _mils(price + _TICK), *sizes]  # one side moved before the other
        yield at, [_mils(price), _mils(price + _TICK), *sizes]


def _moments(seed: int, symbol: str, day: date, rows: int, rng: Random) -> list[int]:
    """Milliseconds of the day in continuous trading; the first tenth in the first minutes, as after a real open."""
    opened = _opening(seed, symbol, day)
    span = _CLOSE_MS - opened
    spans = [span // 40 if i < rows // 10 else span for i in range(rows)]
    return sorted(opened + int(rng.random() * within) for within in spans)


def _opening(seed: int, symbol: str, day: date) -> int:
    jitter = int(seeded(seed, symbol, day, "open").random() * 2 * _OPEN_JITTER_MS) - _OPEN_JITTER_MS
    if day >= _SINGLE_OPEN_FROM:
        return _OPEN_MS + jitter
    delay = next((delay for last, delay in _STAGGER_MS if symbol[0].upper() <= last), _LAST_DELAY_MS)
    return _OPEN_MS + delay + jitter


def _base(seed: int, symbol: str) -> int:
    return _BASES[int(seeded(seed, symbol).random() * len(_BASES))]


def _walked(price: int, rng: Random) -> int:
    """The next price, never below ten ticks."""
    return max(10 * _TICK, price + _TICK * (int(rng.random() * 3) - 1))


def _mils(price: int) -> str:
    return canonical(Decimal(price).scaleb(-3))
