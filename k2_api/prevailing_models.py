"""Questions about quotes as of instants, and their answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from k2_api.ledger_models import LedgerAnswer, Word
from k2_api.models import Instant, Pagination, Quote, Ranged, Trade
from k2_api.questions import At, Ticks, View

INSTANTS_MAX = 100
"""Of one question: a URL holds no more."""
TRADES_MAX = 1_000
"""Of one page of trades with their quotes."""
AGE_SECONDS_MAX = 7 * 86_400
"""A quote from before a weekend is the oldest anybody means."""


class _Prevailing(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    symbol: Annotated[Word, Field(min_length=1, description="Symbol as the exchange writes it.", examples=["BHP"])]
    exchange: Word | None = Field(
        None, description="Exchange; empty = every one that quotes the symbol.", examples=["ASX"]
    )
    max_age_seconds: int = Field(
        86_400, ge=1, le=AGE_SECONDS_MAX, description="A quote that stood longer by then says nothing: null."
    )
    decimals: Literal["string", "number"] = Field("string", description="How prices and quantities are written.")
    as_of: Instant | None = Field(None, description="As of this instant of knowledge: the last commit at or before it.")

    @property
    def age_us_max(self) -> int:
        return self.max_age_seconds * 10**6

    def state(self) -> At:
        """The state meant."""
        return At(as_of=self.as_of)


class AsOfQuestion(_Prevailing):
    """GET /v1/quotes/as-of."""

    at: list[Instant] = Field(
        min_length=1,
        max_length=INSTANTS_MAX,
        description="Instants, ISO 8601; repeat the parameter for more.",
        examples=[["2014-03-11T00:00:00Z"]],
    )


class WithQuotesQuestion(_Prevailing, Ranged):
    """GET /v1/trades/with-quotes."""

    view: View = Field("raw", description="clean = without rows hard to trust; eligible = without excluded prints.")
    order: Literal["asc", "desc"] = Field("desc", description="desc = newest first.")
    limit: int = Field(100, ge=1, le=TRADES_MAX, description="Trades on one page.")
    quote_at: Literal["at", "before"] = Field(
        "at", description="at = the last quote at or before the trade's instant; before = strictly before it."
    )
    cursor: str | None = Field(None, description="next_cursor of the page before; pins the versions of both tables.")

    def ticks(self) -> Ticks:
        """The trades meant."""
        return Ticks(
            symbols=(self.symbol,),
            exchanges=(self.exchange,) if self.exchange else (),
            start_us=self.start_us,
            end_us=self.end_us,
            view=self.view,
            descending=self.order == "desc",
            limit=self.limit,
            decimals=self.decimals,
        )

    def filters(self) -> str:
        """What must not change from page to page, as canonical JSON."""
        return self.model_dump_json(exclude={"cursor", "limit", "decimals"})


class QuoteAt(BaseModel):
    """The quote that stood at one instant on one exchange."""

    at: str
    exchange: str
    age_us: int | None = Field(description="How long it had stood, in µs; null without one.")
    quote: Quote | None = Field(description="Null where none stood, or only one that is too old.")  # type: ignore[valid-type]


class AsOfAnswer(LedgerAnswer):
    """Quotes as of instants, in the order asked, by exchange."""

    data: list[QuoteAt]


class TradeWithQuote(Trade):  # type: ignore[misc,valid-type]
    """A trade and the quote that stood when it was printed."""

    quote_age_us: int | None = Field(description="How long the quote had stood, in µs; null without one.")
    quote: Quote | None = Field(description="Null where none stood, or only one that is too old.")  # type: ignore[valid-type]


class WithQuotesAnswer(LedgerAnswer):
    """A page of trades with their quotes."""

    data: list[TradeWithQuote]
    pagination: Pagination
