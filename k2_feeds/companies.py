"""Which symbol a company id of the ASX vendor meant on a date, from its company file."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from k2_core.errors import BadInput
from k2_core.identity import symbol_problem

COLUMNS = ("company_id", "symbol", "start_date", "end_date")
"""Columns without which no listing can be told."""
_DATE = "%m/%d/%Y"


@dataclass(frozen=True)
class Listing:
    """A symbol a company traded under, [first, last], both inclusive as in the vendor's file."""

    symbol: str
    first: date
    last: date


@dataclass(frozen=True)
class Companies:
    """Company id -> its listings, in file order."""

    listings: Mapping[str, tuple[Listing, ...]]

    def symbols(self, company_id: str) -> frozenset[str]:
        """Every symbol the company ever had; empty for an id the file does not list."""
        return frozenset(listing.symbol for listing in self.listings.get(company_id, ()))

    def symbol_on(self, company_id: str, day: date) -> str | None:
        """Its symbol on one day; None when several are listed and none covers the day.

        The only listing of a company holds on every day: the vendor's end date is the end of its own delivery.
        """
        listings = self.listings[company_id]
        if len(listings) == 1:
            return listings[0].symbol
        return next((listing.symbol for listing in listings if listing.first <= day <= listing.last), None)


def read_companies(path: Path) -> Companies:
    """Read a company file: CSV with a header, dates MM/DD/YYYY. Raises BadInput naming the line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = sorted(set(COLUMNS) - set(reader.fieldnames or ()))
            if missing:
                raise ValueError(f"columns {missing} are missing from the header {reader.fieldnames}")
            return _collect(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise BadInput(f"{path}: {error}; expected a CSV with the columns {', '.join(COLUMNS)}") from error


def _collect(reader: csv.DictReader[str]) -> Companies:
    listings: dict[str, list[Listing]] = defaultdict(list)
    for row in reader:
        try:
            listings[row["company_id"].strip()].append(listing_of(row))
        except (ValueError, AttributeError) as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error
    return Companies({company: tuple(found) for company, found in listings.items()})


def listing_of(row: Mapping[str, str]) -> Listing:
    """Read one listing; dates MM/DD/YYYY, absent ones open. Raises ValueError."""
    symbol = row["symbol"].strip()
    problem = symbol_problem(symbol)
    if problem:
        raise ValueError(problem)
    return Listing(symbol, _day(row["start_date"], date.min), _day(row["end_date"], date.max))


def _day(text: str, absent: date) -> date:
    text = text.strip()
    return datetime.strptime(text, _DATE).date() if text else absent  # noqa: DTZ007 - a calendar date has no zone
