"""Reference data: an instrument as an exchange or a vendor describes it, from a date on, as one row."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from k2_core.exchange_dates import EFFECTIVE_DATES
from k2_core.identity import dated_prefix, part_problem
from k2_feeds.outcomes import Refusal, Row, Unusable

KIND = "instrument"
TEXT_CHARACTERS_MAX = 500
"""Names, numbers and statuses; longer is another column."""


@dataclass(frozen=True)
class Described:
    """One instrument as told: its id at the source, and what is said of it for the dates [first, end).

    end: None while nothing says when it ends. stated_us: when the source said so, µs UTC.
    """

    exchange: str
    asset_class: str
    source_id: str
    symbol: str
    currency: str
    first: date
    end: date | None
    stated_us: int
    name: str | None = None
    isin: str | None = None
    base_asset: str | None = None
    status: str | None = None
    price_increment: Decimal | None = None
    quantity_increment: Decimal | None = None
    vendor_data: Mapping[str, str] | None = None


def instrument_row(feed: str, told: Described, received_us: int, flags: int = 0) -> Row:
    """Build the row of one description. received_us: µs UTC. flags: of k2_core.quality. Raises Unusable."""
    _expect_dates(told)
    problem = part_problem(told.source_id)
    if problem or not told.source_id:
        raise Unusable(Refusal.BAD_ID, problem or "the id of the instrument is empty")
    record: dict[str, Any] = {
        "message_id": f"{dated_prefix(told.exchange, told.symbol, KIND, told.first)}{told.source_id}",
        "instrument_id": f"{told.exchange}-{told.source_id}",
        "symbol": told.symbol,
        "exchange": told.exchange,
        "asset_class": told.asset_class,
        "currency": told.currency,
        "valid_from": told.first,
        "valid_to": told.end,
        "timestamp": told.stated_us,
        "name": told.name,
        "isin": told.isin,
        "base_asset": told.base_asset,
        "status": told.status,
        "price_increment": told.price_increment,
        "quantity_increment": told.quantity_increment,
        "ingestion_timestamp": received_us,
        "vendor_data": told.vendor_data,
        "quality_flags": flags,
    }
    return Row(feed, told.symbol, record)


def text(value: object, name: str) -> str | None:
    """A text as it stands, trimmed; None for an empty or absent one. Raises Unusable."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise Unusable(Refusal.WRONG_TYPE, f"{name} is a {type(value).__name__}, expected text")
    if len(value) > TEXT_CHARACTERS_MAX:
        raise Unusable(Refusal.WRONG_TYPE, f"{name} has {len(value)} characters, at most {TEXT_CHARACTERS_MAX} fit")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise Unusable(Refusal.WRONG_TYPE, f"{name} is {value[:40]!r}, which holds control characters")
    return value.strip() or None


def _expect_dates(told: Described) -> None:
    low, high = EFFECTIVE_DATES
    if not low <= told.first < high:
        raise Unusable(Refusal.IMPLAUSIBLE_TIME, f"it begins on {told.first}, expected [{low}, {high})")
    if told.end is not None and told.end <= told.first:
        raise Unusable(Refusal.IMPLAUSIBLE_TIME, f"it ends before {told.end} and begins on {told.first}")
