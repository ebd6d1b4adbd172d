"""Instruments of the ASX: the company file of the vendor, CSV with a header, dates MM/DD/YYYY, both ends inclusive.

Each line is a listing: a company under one symbol from one date on. A company that changes its symbol has two, and the
first stays as it is. The file does not say when it was written; our time of receipt stands in.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

from k2_core.quality import Flag
from k2_feeds.asx import ASSET_CLASS, CURRENCY, EXCHANGE
from k2_feeds.companies import COLUMNS, listing_of
from k2_feeds.instruments import Described, instrument_row, text
from k2_feeds.lines import Line, read_lines
from k2_feeds.outcomes import Outcome, Outcomes, PassedOver, Refusal, Rejected, Row, Unusable

FEED = "asx-instruments"
BLANK, HEADER = "blank line", "header"
_NAME, _ISIN = "company_name", "ISIN"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_company_file(path: Path, now_us: Callable[[], int]) -> Outcomes:
    """What each line of a company file became. now_us: the clock of receipt, µs UTC. Raises BadInput."""
    header: list[str] | None = None
    for line in read_lines(path):
        if isinstance(line, Rejected):
            yield replace(line, feed=FEED)
        elif not line.content.strip():
            yield PassedOver(BLANK)
        elif header is None:
            try:
                header = _header(line.content)
            except Unusable as problem:
                yield _rejected(path, line, problem, is_whole=True)
                return
            yield PassedOver(HEADER)
        else:
            yield _outcome(path, line, header, now_us())


def _header(content: bytes) -> list[str]:
    names = _fields(content.removeprefix(_BYTE_ORDER_MARK))
    missing = sorted(set(COLUMNS) - set(names))
    if missing or len(set(names)) != len(names):
        raise Unusable(Refusal.HEADER, f"its header is {names!r:.200}, expected each once: {', '.join(COLUMNS)}")
    return names


def _outcome(path: Path, line: Line, header: list[str], received_us: int) -> Outcome:
    try:
        return _row(header, _fields(line.content), received_us)
    except Unusable as problem:
        return _rejected(path, line, problem)


def _row(header: list[str], fields: list[str], received_us: int) -> Row:
    if len(fields) != len(header):
        raise Unusable(Refusal.WRONG_COLUMNS, f"{len(fields)} columns, the header names {len(header)}")
    told = dict(zip(header, fields, strict=True))
    try:
        listing = listing_of(told)
    except ValueError as error:
        raise Unusable(Refusal.IMPLAUSIBLE_TIME, str(error)[:200]) from None
    if listing.first == date.min:
        raise Unusable(Refusal.MISSING_VALUE, "start_date is empty: nothing says from when the listing holds")
    rest = {name: value for name, value in told.items() if name not in (*COLUMNS, _NAME, _ISIN) and value}
    described = Described(
        exchange=EXCHANGE,
        asset_class=ASSET_CLASS,
        source_id=told["company_id"],
        symbol=listing.symbol,
        currency=CURRENCY,
        first=listing.first,
        end=None if listing.last == date.max else listing.last + timedelta(days=1),
        stated_us=received_us,
        name=text(told.get(_NAME), _NAME),
        isin=text(told.get(_ISIN), _ISIN),
        vendor_data=rest or None,
    )
    return instrument_row(FEED, described, received_us, int(Flag.RECEIVE_TIME_AS_EVENT_TIME))


def _fields(content: bytes) -> list[str]:
    try:
        rows = list(csv.reader([content.decode("utf-8").strip()], strict=True))
    except UnicodeDecodeError as error:
        raise Unusable(Refusal.NOT_UTF8, f"byte {error.start} of the line is not UTF-8") from None
    except csv.Error as error:
        raise Unusable(Refusal.WRONG_COLUMNS, f"no line of a CSV: {error}") from None
    return [field.strip() for field in rows[0]]


def _rejected(path: Path, line: Line, problem: Unusable, *, is_whole: bool = False) -> Rejected:
    """is_whole: the file cannot be read on from here."""
    return Rejected(str(path), line.number, problem.reason, problem.detail, line.content, FEED, damaged=is_whole)
