"""Questions about trades and quotes as HTTP asks them, each turned into the one question of the engine."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from k2_api.formats import FormatName
from k2_api.models import Instant, Ranged
from k2_api.questions import At, Revisions, Ticks, View
from k2_core.contracts import QUOTES, TRADES, Table

PAGE_ROWS_MAX = 10_000
"""Rows of one page of a GET, and of one batch of a replay: what old clients may ask for."""
QUERY_ROWS_MAX = 100_000
"""Rows of one answer of a POST query: what old clients may ask for."""
NAMES_MAX = 100
"""Names in one list of a question."""

Side = Literal["BUY", "SELL", "SELL_SHORT", "UNKNOWN"]
Name = Annotated[str, StringConstraints(min_length=1)]
Bound = Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=8)]
"""A bound of a price or quantity: no finer and no larger than what is stored."""


def _with_plus(value: object) -> object:
    """A `+` that a client did not escape arrives as a space."""
    return value.replace(" ", "+") if isinstance(value, str) else value


def _split(value: object) -> object:
    """In a query string `x=a,b` and `x=a&x=b` are the same list."""
    if isinstance(value, list | tuple):
        return [part for item in value for part in (item.split(",") if isinstance(item, str) else [item])]
    return value


Names = Annotated[list[Name], Field(max_length=NAMES_MAX)]
CommaNames = Annotated[list[Name], BeforeValidator(_split), Field(max_length=NAMES_MAX)]
Source = Annotated[Literal["lake", "lake+tail"], BeforeValidator(_with_plus)]
Sides = Annotated[list[Side], BeforeValidator(_split), Field(max_length=NAMES_MAX)]


def _choices(table: Table) -> dict[str, Any]:
    """The schema of a list of columns."""
    names = [column.name for column in table.columns]
    return {"items": {"type": "string", "enum": names}, "maxItems": NAMES_MAX}


class _Asked(Ranged):
    """What every question about ticks may say."""

    table: ClassVar[Table]

    revisions: Revisions = Field(
        "latest", description="Of a print that was corrected: its newest content, its first, or every one."
    )
    order: Literal["asc", "desc"] = Field("desc", description="desc = newest first.")
    decimals: Literal["string", "number"] = Field("string", description="How JSON writes prices and quantities.")
    count: bool = Field(False, description="Count all rows of the question into pagination.total.")
    format: FormatName | None = Field(None, description="How rows are written; without it, what Accept likes best.")
    cursor: str | None = Field(None, description="next_cursor of the page before; pins its version.")
    snapshot_id: int | None = Field(None, ge=0, lt=2**63, description="As of this snapshot.")
    version: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="As of this K2-Version.")
    as_of: Instant | None = Field(None, description="As of this instant: the last commit at or before it.")
    tag: str | None = Field(None, min_length=1, max_length=200, description="As of this tag.")

    @model_validator(mode="after")
    def _is_one_state(self) -> Self:
        if sum(pin is not None for pin in (self.snapshot_id, self.version, self.as_of, self.tag)) > 1:
            raise ValueError("at most one of snapshot_id, version, as_of and tag")
        return self

    @field_validator("fields", check_fields=False)
    @classmethod
    def _are_columns(cls, fields: list[str] | None) -> list[str] | None:
        if unknown := sorted(set(fields or ()) - {column.name for column in cls.table.columns}):
            raise ValueError(f"no such field: {', '.join(unknown)[:100]}")
        return fields

    def at(self) -> At:
        """The state meant."""
        return At(self.snapshot_id, self.version, self.as_of, self.tag)

    def ticks(self) -> Ticks:
        """The rows meant. limit: None where the question has none."""
        return Ticks(
            start_us=self.start_us,
            end_us=self.end_us,
            revisions=self.revisions,
            descending=self.order == "desc",
            decimals=self.decimals,
            fields=_set(getattr(self, "fields", None) or ()),
            **self._chosen(),
        )

    def _chosen(self) -> dict[str, Any]:
        """Members of Ticks that not every question has."""
        return {}


class _TradeFilters(_Asked):
    table: ClassVar[Table] = TRADES

    view: View = Field(
        "raw", description="clean = without rows hard to trust; eligible = without prints that move no price."
    )
    sides: Sides = Field([], description="Any of these aggressors; empty = all.")
    conditions: CommaNames = Field([], description="Prints that carry any of these codes; empty = all.")
    min_price: Bound | None = Field(None, description="Smallest price included.")
    max_price: Bound | None = Field(None, description="Largest price included.")
    min_quantity: Bound | None = Field(None, description="Smallest quantity included.")
    max_quantity: Bound | None = Field(None, description="Largest quantity included.")
    fields: CommaNames | None = Field(
        None, description="Columns shown, lineage only if named; none = the usual.", json_schema_extra=_choices(TRADES)
    )

    def _chosen(self) -> dict[str, Any]:
        return {
            **super()._chosen(),
            "view": self.view,
            "sides": _set(self.sides),
            "conditions": _set(self.conditions),
            "price_min": self.min_price,
            "price_max": self.max_price,
            "quantity_min": self.min_quantity,
            "quantity_max": self.max_quantity,
        }


class _QuoteFilters(_Asked):
    table: ClassVar[Table] = QUOTES

    view: Literal["raw", "clean"] = Field("raw", description="clean = without rows hard to trust.")
    fields: CommaNames | None = Field(
        None, description="Columns shown, lineage only if named; none = the usual.", json_schema_extra=_choices(QUOTES)
    )

    def _chosen(self) -> dict[str, Any]:
        return {**super()._chosen(), "view": self.view}


class _RangeQuestion(_Asked):
    symbol: str | None = Field(None, description="Symbol as the exchange writes it; empty = all.")
    symbols: CommaNames = Field([], description="More of them, `A,B`.")
    exchange: str | None = Field(None, description="Exchange, e.g. BINANCE; empty = all.")
    exchanges: CommaNames = Field([], description="More of them, `A,B`.")
    limit: int | None = Field(
        None, ge=1, le=PAGE_ROWS_MAX, description="Rows on one page; without it, JSON has 100 and the others all rows."
    )
    source: Source = Field(
        "lake",
        description="lake+tail = with what the log holds past the newest commit: of this moment, without cursor.",
    )
    offset: ClassVar[int] = 0

    @model_validator(mode="after")
    def _is_of_now_or_named(self) -> Self:
        if self.source == "lake+tail" and (self.cursor is not None or not self.at().is_head):
            raise ValueError("what the tail holds has no cursor and no past")
        return self

    def _chosen(self) -> dict[str, Any]:
        symbols = _set([*self.symbols, *([] if self.symbol is None else [self.symbol])])
        exchanges = _set([*self.exchanges, *([] if self.exchange is None else [self.exchange])])
        return {**super()._chosen(), "symbols": symbols, "exchanges": exchanges, "limit": self.limit}


class _QueryQuestion(_Asked):
    symbols: Names = Field([], description="Any of them; empty = all.")
    exchanges: Names = Field([], description="Any of them; empty = all.")
    limit: int = Field(1000, ge=1, le=QUERY_ROWS_MAX, description="Rows of the answer.")
    offset: int = Field(0, ge=0, lt=2**63, description="Rows to leave out first; a cursor is faster, and stays true.")

    def _chosen(self) -> dict[str, Any]:
        lists = {"symbols": _set(self.symbols), "exchanges": _set(self.exchanges)}
        return {**super()._chosen(), **lists, "limit": self.limit}


class TradesQuestion(_RangeQuestion, _TradeFilters):
    """GET /v1/trades."""


class QuotesQuestion(_RangeQuestion, _QuoteFilters):
    """GET /v1/quotes."""


class TradesQuery(_QueryQuestion, _TradeFilters):
    """POST /v1/trades/query."""


class QuotesQuery(_QueryQuestion, _QuoteFilters):
    """POST /v1/quotes/query."""


class ReplayQuestion(Ranged):
    """POST /v1/replay."""

    data_type: Literal["trades", "quotes"] = Field("trades", description="Table.")
    symbol: str | None = Field(None, description="Symbol as the exchange writes it; empty = all.")
    exchange: str | None = Field(None, description="Exchange; empty = all.")
    start_time: Instant = Field(description="First instant included, ISO 8601; without offset = UTC.")
    end_time: Instant = Field(description="First instant no longer included.")
    batch_size: int = Field(1000, ge=100, le=PAGE_ROWS_MAX, description="Rows of one batch.")
    snapshot_id: int | None = Field(None, ge=0, lt=2**63, description="As of this snapshot; without it, the head.")
    cursor: str | None = Field(None, description="cursor of the batch before; pins its version.")

    def ticks(self) -> Ticks:
        """The rows meant, oldest first."""
        return Ticks(
            symbols=() if self.symbol is None else (self.symbol,),
            exchanges=() if self.exchange is None else (self.exchange,),
            start_us=self.start_us,
            end_us=self.end_us,
            descending=False,
            limit=self.batch_size,
        )


def _set(names: Iterable[str]) -> tuple[str, ...]:
    """The order of a list, and what stands in it twice, change nothing of an answer."""
    return tuple(sorted(set(names)))
