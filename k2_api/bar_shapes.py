"""Answers about bars as OpenAPI describes them."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, Field

from k2_api.models import Meta, Pagination

Exact = str | float
"""A decimal as text, all its digits written; a number where `decimals=number` asks for one."""
Price = Exact | None
"""Null where no print counts for it."""


class Ohlcv(BaseModel):
    """Prices and volume of one symbol on one exchange over [window_start, window_end)."""

    symbol: str
    exchange: str
    timeframe: str
    window_start: str
    window_end: str
    open_price: Price = Field(description="First price that may open; null where only volume was reported.")
    high_price: Price
    low_price: Price
    close_price: Price
    volume: Exact
    trade_count: int
    vwap: Price = Field(description="Volume-weighted average price, rounded half to even.")


class _Told(BaseModel):
    """What K2 tells of every bar on its own paths."""

    open_price: Price = Field(description="First price that may open; null where none may.")
    high_price: Price
    low_price: Price
    close_price: Price
    volume: Exact
    trade_count: int = Field(description="Prints that count.")
    excluded_count: int = Field(description="Prints that do not: by their conditions, their vendor or their hour.")
    vwap: Price = Field(description="Volume-weighted average price, rounded half to even.")
    twap: Price = Field(description="Average of the last price over the time there was one, for 5 minutes at most.")
    twap_coverage: Exact = Field(description="Share of the window in which there was a price, 0 to 1.")
    gap_count: int = Field(description="Holes in the ids of a contiguous feed that end in the window.")
    is_final: bool = Field(description="Whether the window will not change, but for corrections and re-issues.")
    conditions_version: str | None = Field(description="SHA-256 of the update rules; null where nothing printed.")


class Bar(_Told):
    """Prices and volume of one symbol on one exchange over [window_start, window_end)."""

    symbol: str
    exchange: str
    interval: str
    exchange_date: date = Field(description="Exchange-local date of its first print, or of an empty window.")
    window_start: str
    window_end: str
    is_filled: bool = Field(description="Whether no print counted: its prices are null, or the close before it.")


class Summary(_Told):
    """One exchange date of one symbol."""

    symbol: str
    exchange: str
    date: date
    window_start: str
    window_end: str


class _Answer(BaseModel):
    success: Literal[True] = True
    meta: Meta


class OhlcvAnswer(_Answer):
    """A page of bars in the shape of the original platform."""

    data: list[Ohlcv]
    pagination: Pagination
    timeframe: str
    symbol: str
    timestamp: str


class BarsAnswer(_Answer):
    """A page of bars."""

    data: list[Bar]
    pagination: Pagination
    interval: str
    symbol: str


class SummaryAnswer(_Answer):
    """A summary."""

    data: Summary


class BatchEntry(BaseModel):
    """The answer to one question of a batch."""

    success: bool
    data: list[Ohlcv]
    pagination: Pagination | None
    timeframe: str
    symbol: str
    error: str | None


class TimeframeHealth(BaseModel):
    """How fresh the bars of one length are."""

    status: Literal["healthy", "stale", "no_data", "error"]
    last_update: str | None = Field(description="Start of the newest window in which something printed.")
    age_minutes: float | None
    threshold_minutes: int
    symbol: str | None = Field(description="What printed last.")
    exchange: str | None


class OhlcvHealth(BaseModel):
    """How fresh bars are. They are computed from the trades, so all of them are as fresh as the newest trade."""

    overall_status: Literal["healthy", "degraded", "unhealthy"]
    tables: dict[str, TimeframeHealth]
    timestamp: str
    checks_performed: int


class Level(BaseModel):
    """What was traded at one price."""

    price: Exact
    volume: Exact
    trade_count: int


class Bucket(BaseModel):
    """What was asked for of one symbol on one exchange over one interval; null where it was not asked for."""

    symbol: str
    exchange: str
    interval_start: str
    interval_end: str
    open_price: Price
    high_price: Price
    low_price: Price
    close_price: Price
    volume: Exact | None
    trade_count: int | None
    vwap: Price
    twap: Price
    volume_profile: list[Level] | None = Field(description="By price, ascending.")


class AggregationAnswer(_Answer):
    """Buckets by symbol, exchange and start."""

    data: list[Bucket]
    request_summary: dict[str, Any]
