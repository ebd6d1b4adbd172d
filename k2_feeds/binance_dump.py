"""Dumps of Binance spot trades: SYMBOL-trades-2025-01-01.zip or -2025-01.zip, beside it its .CHECKSUM.

columns: id, price, qty, quote_qty, time, is_buyer_maker, is_best_match; a header is welcome. Times are milliseconds in
files about days before 2025, microseconds after, and again after a re-issue: told apart by size, one unit a file.
A file is proven whole before a row of it is sent. Futures files have the same names and one column less.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from functools import cached_property
from pathlib import Path
from typing import Literal

from k2_core.errors import BadInput
from k2_core.identity import symbol_problem
from k2_core.windows import to_us
from k2_feeds.archives import CHECKSUM_SUFFIX, Archive, open_archive, stated_digest
from k2_feeds.binance_frames import MICROSECONDS_FROM, TRADES_FEED, trade_row
from k2_feeds.lines import Damage, Line, lines_of
from k2_feeds.outcomes import Outcome, Outcomes, PassedOver, Refusal, Rejected, Row, Unusable

COLUMNS = ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match")
BLANK, HEADER = "blank line", "header"
OTHER_ZIPS = "zip that is no dump of trades"
Unit = Literal["milliseconds", "microseconds"]

_NAME = re.compile(r"(?P<symbol>.+)-trades-(?P<month>\d{4}-\d{2})(?:-(?P<day>\d{2}))?\.zip", re.ASCII)
_BOOLEANS = {"True": True, "true": True, "False": False, "false": False}
_DIGITS = re.compile(r"\d{1,19}", re.ASCII)
"""Up to 2^63 and a little beyond; what is beyond is refused by value."""
_AMOUNT = re.compile(r"\d{1,30}(?:\.\d{1,30})?", re.ASCII)
"""Price times quantity as the exchange writes it; it may be larger than a price."""
_EXACT = Context(prec=80)
"""Wide enough for the product of two decimal(18,8)."""
_TIME = re.compile(rb",(\d{11,17}),(?:[Tt]rue|[Ff]alse)")
"""Where a time stands in a row: before a boolean, and nothing else does."""
_OF_UNIT: dict[Unit, re.Pattern[bytes]] = {
    "milliseconds": re.compile(rb",\d{11,14},(?:[Tt]rue|[Ff]alse)"),
    "microseconds": re.compile(rb",\d{15,17},(?:[Tt]rue|[Ff]alse)"),
}
"""14 digits are milliseconds until the year 5138; 15 are microseconds from 1973 on."""
US_PER: dict[Unit, int] = {"milliseconds": 1_000, "microseconds": 1}
_OVERLAP_BYTES = 1 << 10
"""Kept between two pieces: longer than a row, so that none is missed where they meet."""
_QUOTE_STEP = Decimal("1e-8")
"""The exchange rounds price times quantity to this."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Dump:
    """One archive by its name: the symbol, and the UTC dates [first, end) of its trades.

    is_checked: whether a .CHECKSUM stands beside it, which it then must match.
    """

    path: Path
    symbol: str
    first: date
    end: date
    is_checked: bool

    @property
    def entry(self) -> str:
        """Name of the file inside."""
        return f"{self.path.stem}.csv"

    @cached_property
    def bounds_us(self) -> tuple[int, int]:
        """[start, end) of its event times, µs UTC."""
        return _midnight_us(self.first), _midnight_us(self.end)


def dump_named(path: Path) -> Dump | None:
    """What a file is by its name; None when it is no dump of trades."""
    found = _NAME.fullmatch(path.name)
    if found is None or symbol_problem(found["symbol"]) or found["symbol"] != found["symbol"].upper():
        return None
    try:
        first = date.fromisoformat(f"{found['month']}-{found['day'] or '01'}")
        end = first + timedelta(days=1) if found["day"] else _next_month(first)
    except (ValueError, OverflowError):
        return None
    return Dump(path, found["symbol"], first, end, path.with_name(path.name + CHECKSUM_SUFFIX).exists())


def plan_dumps(files: Iterable[Path], *, without_checksum: bool = False) -> tuple[Dump, ...]:
    """Order dumps by symbol and date, each once.

    without_checksum: take also those that have no .CHECKSUM beside them. Raises BadInput, before anything is sent, for
    one that has none, and for a name that says no symbol and date.
    """
    found = [_planned(path, without_checksum) for path in dict.fromkeys(path.absolute() for path in files)]
    if not found:
        raise BadInput("no dump of trades found, expected files like BTCUSDT-trades-2025-01-01.zip")
    return tuple(sorted(found, key=lambda dump: (dump.symbol, dump.first, dump.end, str(dump.path))))


def zips_below(folder: Path) -> tuple[list[Path], int]:
    """The dumps of trades anywhere below a folder, and how many other zips there are."""
    zips = sorted(path for path in folder.rglob("*.zip") if path.is_file())
    dumps = [path for path in zips if dump_named(path)]
    return dumps, len(zips) - len(dumps)


def read_dump(dump: Dump, received_us: int) -> Outcomes:
    """What each line of one dump became; a file that is refused as a whole is one damaged rejection.

    received_us: when we received it, µs UTC.
    """
    try:
        with open_dump(dump) as (archive, unit):
            for line in lines_of(str(dump.path), archive.pieces()):
                yield outcome_of(dump, line, unit, received_us)
    except Unusable as problem:
        yield refused(dump, problem)


@contextmanager
def open_dump(dump: Dump) -> Iterator[tuple[Archive, Unit]]:
    """Open a dump that is proven whole, and tell the unit of its times. Raises Unusable."""
    digest = stated_digest(dump.path) if dump.is_checked else None
    with open_archive(dump.path, dump.entry, digest) as archive:
        yield archive, _proven_unit(dump, archive)


def refused(dump: Dump, problem: Unusable) -> Rejected:
    """A dump that is refused as a whole."""
    return Rejected(str(dump.path), 0, problem.reason, problem.detail, b"", TRADES_FEED, dump.symbol, damaged=True)


def _planned(path: Path, without_checksum: bool) -> Dump:
    dump = dump_named(path)
    if dump is None:
        raise BadInput(f"{path}: expected a name like BTCUSDT-trades-2025-01-01.zip or BTCUSDT-trades-2025-01.zip")
    if not dump.is_checked and not without_checksum:
        raise BadInput(
            f"{path}: {path.name}{CHECKSUM_SUFFIX} is not beside it, so nothing proves that it is what the exchange "
            "published. Fetch it, or say --without-checksum"
        )
    return dump


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


def _midnight_us(day: date) -> int:
    return to_us(datetime(day.year, day.month, day.day, tzinfo=UTC))


def _proven_unit(dump: Dump, archive: Archive) -> Unit:
    """Read an archive to its end: undamaged, its columns ours, its times of one unit and of the dates in its name.

    Raises Unusable.
    """
    units: set[Unit] = set()
    first, last = None, b""
    for text in _overlapping(archive.pieces()):
        if first is None:
            _expect_columns(text)
        units |= {unit for unit in _OF_UNIT.keys() - units if _OF_UNIT[unit].search(text)}
        first, last = first or _TIME.search(text), text
    if len(units) > 1:
        raise Unusable(Refusal.MIXED_UNITS, "some of its times are milliseconds and some microseconds")
    if first is None:
        raise Unusable(Refusal.WRONG_COLUMNS, f"none of its lines is a trade, expected {', '.join(COLUMNS)}")
    (unit,) = units
    ends = [int(first[1]), *map(int, _TIME.findall(last)[-1:])]
    _expect_dates(dump, [time * US_PER[unit] for time in ends])
    return unit


def _overlapping(pieces: Iterable[bytes | Damage]) -> Iterator[bytes]:
    """Pieces that begin with the end of the one before. Raises Unusable where they are damaged."""
    tail = b""
    for piece in pieces:
        if isinstance(piece, Damage):
            raise Unusable(Refusal.DAMAGED_FILE, piece.detail)
        yield tail + piece
        tail = (tail + piece)[-_OVERLAP_BYTES:]


def _expect_columns(text: bytes) -> None:
    """A first line of words must name our columns: rows are taken by position. Raises Unusable."""
    first = text.removeprefix(_BYTE_ORDER_MARK).partition(b"\n")[0]
    if first[:1].isalpha() and not _is_header(first):
        named = first[:200].decode("utf-8", "backslashreplace").strip()
        raise Unusable(Refusal.HEADER, f"its header is {named!r}, expected {','.join(COLUMNS)}")


def _is_header(content: bytes) -> bool:
    return content.strip().lower() == ",".join(COLUMNS).encode()


def _expect_dates(dump: Dump, ends_us: Iterable[int]) -> None:
    """Its first or its last trade must be of its dates: else the whole file is of another day. Raises Unusable."""
    start, end = dump.bounds_us
    if not any(start <= time < end for time in ends_us):
        raise Unusable(Refusal.WRONG_DATE, f"neither its first nor its last trade is in [{dump.first}, {dump.end}) UTC")


def outcome_of(dump: Dump, line: Line | Rejected, unit: Unit, received_us: int) -> Outcome:
    """What one line became. unit: of the times of its file."""
    if isinstance(line, Rejected):
        return replace(line, feed=TRADES_FEED, symbol=dump.symbol)
    content = line.content.removeprefix(_BYTE_ORDER_MARK) if line.number == 1 else line.content
    if not content.strip():
        return PassedOver(BLANK)
    if line.number == 1 and _is_header(content):
        return PassedOver(HEADER)
    try:
        return _row(dump, _fields(content.removesuffix(b"\r")), unit, received_us)
    except Unusable as problem:
        reason, detail = problem.reason, problem.detail
        return Rejected(str(dump.path), line.number, reason, detail, line.content, TRADES_FEED, dump.symbol)


def _fields(content: bytes) -> list[str]:
    try:
        fields = content.decode("utf-8").split(",")
    except UnicodeDecodeError as error:
        raise Unusable(Refusal.NOT_UTF8, f"byte {error.start} of the line is not UTF-8") from None
    if len(fields) != len(COLUMNS):
        raise Unusable(Refusal.WRONG_COLUMNS, f"{len(fields)} columns, a spot trade has {len(COLUMNS)}")
    return fields


def _row(dump: Dump, fields: list[str], unit: Unit, received_us: int) -> Row:
    trade_id, price, quantity, quote, time, buyer_is_maker, is_best_match = fields
    _boolean(is_best_match, "is_best_match")
    row = trade_row(
        dump.symbol,
        _digits(trade_id, "id", Refusal.BAD_ID),
        price,
        quantity,
        _of_unit(time, unit),
        buyer_is_maker=_boolean(buyer_is_maker, "is_buyer_maker"),
        received_us=received_us,
        vendor_data=None,
    )
    start, end = dump.bounds_us
    if not start <= row.record["timestamp"] < end:
        raise Unusable(Refusal.WRONG_DATE, f"time {time} is outside [{dump.first}, {dump.end}) UTC, its file's name")
    if _agrees(row.record["price"], row.record["quantity"], quote):
        return row
    return Row(row.feed, row.symbol, {**row.record, "vendor_data": {"quote_qty": quote}})


def _digits(text: str, name: str, refusal: Refusal) -> int:
    if not _DIGITS.fullmatch(text):
        raise Unusable(refusal, f"{name} is {text[:40]!r}, expected an integer")
    return int(text)


def _of_unit(text: str, unit: Unit) -> int:
    """A time as it stands, of the unit of its file."""
    found = _digits(text, "time", Refusal.IMPLAUSIBLE_TIME)
    if (found >= MICROSECONDS_FROM) != (unit == "microseconds"):
        raise Unusable(Refusal.MIXED_UNITS, f"time {text} is not in {unit} as the other times of its file")
    return found


def _boolean(text: str, name: str) -> bool:
    try:
        return _BOOLEANS[text]
    except KeyError:
        raise Unusable(Refusal.WRONG_TYPE, f"{name} is {text[:40]!r}, expected true or false") from None


def _agrees(price: Decimal, quantity: Decimal, quote: str) -> bool:
    """Whether quote_qty says nothing that price and quantity do not. Raises Unusable when it is no amount."""
    if not _AMOUNT.fullmatch(quote):
        raise Unusable(Refusal.NOT_A_NUMBER, f"quote_qty is {quote[:40]!r}, expected a decimal")
    return abs(_EXACT.subtract(_EXACT.multiply(price, quantity), Decimal(quote))) < _QUOTE_STEP
