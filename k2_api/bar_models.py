"""Questions about bars as HTTP asks them, each turned into one of the engine."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from k2_api.bar_questions import BarsAsked, BarView
from k2_api.models import Instant, Question, Ranged
from k2_api.questions import At
from k2_core.bar_fills import Fill
from k2_core.windows import INTERVALS, TIMEFRAMES, Timeframe

BATCH_ITEMS_MAX = 5
"""Questions of one batch, as on the original platform."""
BATCH_BARS_MAX = 25_000
"""Bars of one batch, by its limits together, as on the original platform."""
BARS_MAX = 10_000
"""Bars on one page."""
SYMBOLS_MAX = 50
"""Symbols of one aggregation, as on the original platform."""
WORD_CHARACTERS_MAX = 256
"""Of a symbol or an exchange: more than any has."""

Timeframes = Literal["1m", "5m", "30m", "1h", "1d", "15m"]
"""Lengths of the original platform, and a quarter of an hour."""
Intervals = Literal[
    "1s", "5s", "10s", "15s", "30s",
    "1m", "2m", "3m", "5m", "10m", "15m", "30m",
    "1h", "2h", "4h", "6h", "8h", "12h",
    "1d", "session",
]  # fmt: skip
assert set(get_args(Timeframes)) <= TIMEFRAMES.keys() and list(get_args(Intervals)) == list(INTERVALS)

Symbol = Annotated[str, StringConstraints(min_length=1, max_length=WORD_CHARACTERS_MAX)]
Upper = Annotated[Symbol, StringConstraints(strip_whitespace=True, to_upper=True, min_length=1)]
"""A symbol as old clients may write it."""
Session = Literal["all", "regular"]
Decimals = Literal["string", "number"]


class Pins(BaseModel):
    """Which state is asked for; the newest without any of these."""

    snapshot_id: int | None = Field(None, ge=0, lt=2**63, description="Snapshot of the trades.")
    version: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="K2-Version of an earlier answer.")
    as_of: Instant | None = Field(None, description="The state at that instant.")
    tag: str | None = Field(None, min_length=1, max_length=WORD_CHARACTERS_MAX, description="A named state.")

    @model_validator(mode="after")
    def _one_state(self) -> Self:
        named = [name for name in ("snapshot_id", "version", "as_of", "tag") if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} each name a state; send one")
        return self

    def at(self) -> At:
        """The state, in the engine's words."""
        return At(self.snapshot_id, self.version, self.as_of, self.tag)


class _Bars(Question, Pins):
    """What all pages of bars have in common. A cursor goes on in the state of its first page, whatever is named."""

    exchange: str | None = Field(None, max_length=WORD_CHARACTERS_MAX, description="Exchange, e.g. ASX; empty = all.")
    limit: int = Field(1000, ge=1, le=BARS_MAX, description="Bars on one page.")
    view: BarView = Field("eligible", description="raw = every print counts, also one its exchange or vendor excludes.")
    session: Session = Field("all", description="regular = only what printed while the exchange traded.")

    def filters(self) -> str:
        """What must not change from page to page, as canonical JSON."""
        pins = {"snapshot_id", "version", "as_of", "tag"}
        return self.model_dump_json(exclude={"cursor", "limit", "count", "decimals", *pins})

    def asked(self, symbol: str, timeframe: Timeframe) -> BarsAsked:
        """The question in the engine's words."""
        is_regular = self.session == "regular"
        return BarsAsked(symbol, self.exchange, timeframe, self.start_us, self.end_us, self.view, is_regular)


class OhlcvQuestion(_Bars):
    """GET /v1/ohlcv/{timeframe}."""

    symbol: Upper = Field(description="Symbol; trimmed and upper-cased.")


class BarsQuestion(_Bars):
    """GET /v1/bars/{interval}."""

    symbol: Symbol = Field(description="Symbol as the exchange writes it.")
    order: Literal["asc", "desc"] = Field("asc", description="asc = oldest first.")
    fill: Fill = Field(
        "none",
        description="What stands for a window in which no print counted: none = nothing, null = no prices, "
        "prev = the close before it. null and prev need exchange, start_time and end_time.",
    )

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.fill != "none" and None in (self.exchange, self.start_time, self.end_time):
            raise ValueError(f"fill={self.fill} needs exchange, start_time and end_time")
        return self


class SummaryQuestion(Pins):
    """GET /v1/summary/{symbol}/{date}."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    exchange: str | None = Field(
        None, max_length=WORD_CHARACTERS_MAX, description="Exchange; needed where the symbol printed on several."
    )
    view: BarView = Field("eligible", description="raw = every print counts, also one its exchange or vendor excludes.")
    session: Session = Field("all", description="regular = only what printed while the exchange traded.")
    decimals: Decimals = Field("string", description="How prices and quantities are written.")


class BatchItem(BaseModel):
    """One question of POST /v1/ohlcv/batch."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    symbol: Upper = Field(description="Symbol; trimmed and upper-cased.")
    timeframe: Timeframes
    exchange: str | None = Field(None, max_length=WORD_CHARACTERS_MAX)
    start_time: Instant | None = None
    end_time: Instant | None = None
    limit: int = Field(1000, ge=1, le=BARS_MAX)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        self.question()
        return self

    def question(self) -> OhlcvQuestion:
        """The same as a question of its own."""
        return OhlcvQuestion(**{name: value for name, value in self if name != "timeframe" and value is not None})


Metric = Literal["vwap", "twap", "ohlcv", "volume_profile", "trade_count"]
AGGREGATION_INTERVALS: dict[str, Timeframe] = {
    "1min": INTERVALS["1m"],
    "5min": INTERVALS["5m"],
    "15min": INTERVALS["15m"],
    "30min": INTERVALS["30m"],
    "1hour": INTERVALS["1h"],
    "1day": INTERVALS["1d"],
}


class AggregationQuestion(Pins, Ranged):
    """POST /v1/aggregations."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "example": {
                "symbols": ["BTCUSDT"],
                "metrics": ["vwap", "ohlcv"],
                "interval": "5min",
                "start_time": "2024-08-08T12:00:00Z",
                "end_time": "2024-08-08T13:00:00Z",
            }
        },
    )

    symbols: list[Symbol] = Field(min_length=1, max_length=SYMBOLS_MAX, description="1 to 50 symbols.")
    metrics: list[Metric] = Field(min_length=1, max_length=5, description="What to compute.")
    interval: Literal["1min", "5min", "15min", "30min", "1hour", "1day"]
    start_time: Instant = Field(description="First instant included.")
    end_time: Instant = Field(description="First instant no longer included.")
    exchange: str | None = Field(None, max_length=WORD_CHARACTERS_MAX, description="Exchange; empty = each by itself.")
    format: Literal["json", "csv", "parquet"] = "json"
    view: BarView = Field("eligible", description="raw = every print counts, also one its exchange or vendor excludes.")
    session: Session = Field("all", description="regular = only what printed while the exchange traded.")
    decimals: Decimals = Field("string", description="How prices and quantities are written in JSON.")

    def asked(self, symbol: str) -> BarsAsked:
        """What is asked of one symbol, in the engine's words."""
        return BarsAsked(
            symbol,
            self.exchange,
            AGGREGATION_INTERVALS[self.interval],
            self.start_us,
            self.end_us,
            self.view,
            is_regular=self.session == "regular",
        )
