"""Trade and quote files of companies that never were, in the vendor's seven- and six-column layouts.

What makes the real files hard is in them, about as often as there: a staggered open, identical genuine fills, prints at
the middle of bid and ask, excluded prints far off the price, suggested other prices, one-sided quotes before the open,
books crossed while they do not trade, crosses that last no longer than their millisecond. The real files hold no print
of an auction; here they are a choice.
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
_OPEN_AUCTION_MS = 10 * _HOUR_MS - 30_000
"""Before the open all symbols share; until 2025 the auction was the open itself."""
_CLOSE_AUCTION_MS = 16 * _HOUR_MS + 10 * 60_000
_BASES = (640, 3_610, 12_480, 36_200)
"""Prices a walk starts from, in mils (a thousandth of a dollar)."""
_TICK = 10
"""One cent, in mils; trades at mid lie half a tick off."""
_CONDITIONS = (("25", 0.088), ("2", 0.035), ("27", 0.011), ("5", 0.006), ("8", 0.0015), ("26", 0.0005))
"""Codes of continuous trading and their shares in real files; all others are 0."""
_AT_MID = ("25", "27", "5", "26")
"""Codes of trades that lie half a tick off in three of four cases."""
_IDENTICAL = 0.035
"""Share of real rows that are equal to an earlier one in every column."""
_EXCLUDED, _SUGGESTED = 0.0005, 0.0008
"""Shares of prints in trading hours that the vendor leaves out, and of those it suggests another price for."""
_TRANSIENT = 0.005
"""Share of book states that cross for no longer than their millisecond: ten times the real one, so that a day of a few
hundred rows has one."""
_TWO_STATES = 0.29
"""Share of instants at which one side of the book moves after the other, as two states."""

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


def trade_lines(
    seed: int, symbol: str, days: Sequence[date], rows_per_day: int, *, auctions: bool = False
) -> Iterator[bytes]:
    """Lines of one trade file. rows_per_day: prints of continuous trading; the others come on top.

    auctions: whether the opening and closing prints are among them, which the vendor leaves out.
    """
    for day in days:
        rows = [*_reported_prints(seed, symbol, day), *_prints(seed, symbol, day, rows_per_day)]
        yield from _lines(day, [*rows, *(_auction_prints(seed, symbol, day) if auctions else ())])


def quote_lines(seed: int, symbol: str, days: Sequence[date], rows_per_day: int) -> Iterator[bytes]:
    """Lines of one quote file. rows_per_day: states of the book in continuous trading; the others come on top."""
    for day in days:
        rows = [*_early_quotes(seed, symbol, day), *_quotes(seed, symbol, day, rows_per_day)]
        yield from _lines(day, [*rows, *_late_quotes(seed, symbol, day)])


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


def _reported_prints(seed: int, symbol: str, day: date) -> Iterator[_Row]:
    """Prints from outside the order book, which the vendor excludes: exercised options, and crossings at any hour."""
    rng, base = seeded(seed, symbol, day, "reported"), _base(seed, symbol)
    exercised, strike = 7 * _HOUR_MS + 5 * 60_000 + int(rng.random() * 30_000), base * 11 // 10 // 500 * 500 + 500
    for i in range(2):
        yield exercised + 113 * i, [_mils(strike), str(100 * (1 + int(rng.random() * 1_000))), "1", "X", ""]
    for hour in (8, 12, 16, 17):
        at = hour * _HOUR_MS + 15 * 60_000 + int(rng.random() * 30 * 60_000)
        price = base * (985 + int(rng.random() * 30)) // 1_000
        yield at, [_mils(price), str(1_000 * (1 + int(rng.random() * 200))), "3", "X", ""]


def _auction_prints(seed: int, symbol: str, day: date) -> Iterator[_Row]:
    """What the auctions match, at one price and moment each."""
    rng, price = seeded(seed, symbol, day, "auctions"), _base(seed, symbol)
    opened = _opening(seed, symbol, day) if day < _SINGLE_OPEN_FROM else _OPEN_AUCTION_MS
    for at in (opened, _CLOSE_AUCTION_MS + int(rng.random() * 30_000)):
        price = _walked(price, rng)
        for _ in range(3):
            yield at, [_mils(price), str(1 + int(rng.random() * 20_000)), "0", "", ""]


def _prints(seed: int, symbol: str, day: date, rows: int) -> Iterator[_Row]:
    rng, price = seeded(seed, symbol, day, "trades"), _base(seed, symbol)
    for at in _moments(seed, symbol, day, rows, rng):
        price = _walked(price, rng)
        condition = _condition(rng)
        traded = price + _TICK // 2 if condition in _AT_MID and rng.random() < 0.77 else price
        columns = [_mils(traded), str(1 + int(rng.random() ** 3 * 5_000)), condition, "", ""]
        chance = rng.random()
        if chance < _EXCLUDED:
            columns[2:4] = ["9", "X"]
        elif chance < _EXCLUDED + _SUGGESTED:
            columns[4] = _mils(traded + _TICK)
        for _ in range(2 if rng.random() < _IDENTICAL else 1):
            yield at, columns


def _condition(rng: Random) -> str:
    chance = rng.random()
    for code, share in _CONDITIONS:
        chance -= share
        if chance < 0:
            return code
    return "0"


def _early_quotes(seed: int, symbol: str, day: date) -> Iterator[_Row]:
    """The first state of a day has no ask; then both sides, crossed as they may be before the open."""
    rng, base = seeded(seed, symbol, day, "dawn"), _base(seed, symbol)
    at = 5 * _HOUR_MS + 43 * 60_000 + int(rng.random() * 60_000)
    yield at, [_mils(base), "0.0", "300", "0"]
    yield at, [_mils(base), _mils(base + 3 * _TICK), "300", "600"]
    yield at + 107 * 60_000, [_mils(base + 3 * _TICK), _mils(base - 2 * _TICK), "19", "284"]


def _quotes(seed: int, symbol: str, day: date, rows: int) -> Iterator[_Row]:
    rng, price = seeded(seed, symbol, day, "quotes"), _base(seed, symbol)
    for at in _moments(seed, symbol, day, rows, rng):
        before, price = price, _walked(price, rng)
        sizes = [str(1 + int(rng.random() * 9_000)) for _ in range(2)]
        chance = rng.random()
        if chance < _TRANSIENT:
            yield at, [_mils(price + 2 * _TICK), _mils(price + _TICK), *sizes]  # one side moved before the other
        elif chance < _TWO_STATES:
            yield at, [_mils(min(before, price)), _mils(price + _TICK), *sizes]
        yield at, [_mils(price), _mils(price + _TICK), *sizes]


def _late_quotes(seed: int, symbol: str, day: date) -> Iterator[_Row]:
    """After the close the book crosses until the auction has matched it; at the end of the day orders lapse."""
    rng, base = seeded(seed, symbol, day, "dusk"), _base(seed, symbol)
    at = _CLOSE_MS + int(rng.random() * 60_000)
    yield at, [_mils(base + 4 * _TICK), _mils(base - 3 * _TICK), "44455", "121700"]
    yield _CLOSE_AUCTION_MS + 47_000, [_mils(base), _mils(base + 3 * _TICK), "21159", "4485"]
    yield 18 * _HOUR_MS + 50 * 60_000 + 1_000, [_mils(base), _mils(base + 9 * _TICK), "600", "1288"]


def _moments(seed: int, symbol: str, day: date, rows: int, rng: Random) -> list[int]:
    """Milliseconds of the day in continuous trading; the first tenth in the first minutes, as after a real open."""
    opened = _opening(seed, symbol, day)
    span = _CLOSE_MS - opened
    spans = [span // 40 if i < rows // 10 else span for i in range(rows)]
    return sorted(opened + int(rng.random() * within) for within in spans)


def _opening(seed: int, symbol: str, day: date) -> int:
    jitter = int(seeded(seed, symbol, day, "open").random() * 2 * _OPEN_JITTER_MS) - _OPEN_JITTER_MS
    if day >= _SINGLE_OPEN_FROM:
        return _OPEN_MS - _OPEN_JITTER_MS // 2 + jitter // 2
    delay = next((delay for last, delay in _STAGGER_MS if symbol[0].upper() <= last), _LAST_DELAY_MS)
    return _OPEN_MS + delay + jitter


def _base(seed: int, symbol: str) -> int:
    return _BASES[int(seeded(seed, symbol).random() * len(_BASES))]


def _walked(price: int, rng: Random) -> int:
    """The next price, never below ten ticks."""
    return max(10 * _TICK, price + _TICK * (int(rng.random() * 3) - 1))


def _mils(price: int) -> str:
    """A price as the vendor writes it: at least one decimal, no trailing zeros after it."""
    text = canonical(Decimal(price).scaleb(-3))
    return text if "." in text else f"{text}.0"
