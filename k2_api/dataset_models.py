"""What there is to ask for, as OpenAPI describes it: datasets, symbols, statistics, estimates, readiness."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from k2_api.ledger_models import LedgerAnswer, Verdict, Word, described
from k2_api.models import Dependency, Instant, Pagination, Ranged, row_columns
from k2_api.questions import At, Ticks
from k2_core.contracts import INSTRUMENTS

SYMBOLS_MAX = 100
"""Of one question, as on the original platform."""

Instrument = described("Instrument", INSTRUMENTS.grain, row_columns(INSTRUMENTS))


class Dataset(BaseModel):
    """One feed: the rows of one table from one exchange."""

    dataset: str = Field(description="Its name, e.g. asx-trades.")
    table: str = Field(description="Table that holds its rows.")
    grain: str = Field(description="What one row is.")
    exchange: str
    asset_class: str
    sequence_rule: Literal["contiguous", "monotonic", "none"] = Field(
        description="contiguous: a hole in the ids is a loss. monotonic: holes are normal. none: it has no ids."
    )
    timezone: str = Field(description="In which its exchange dates are counted.")
    sessions: str | None = Field(description="Calendar of trading hours; null = it always trades.")
    source_of_record: str | None = Field(description="What a lost day is had again by; null = what is lost is lost.")
    topic: str = Field(description="Kafka topic.")


class DatasetsAnswer(LedgerAnswer):
    """Every dataset, by name."""

    data: list[Dataset]


class ColumnAbout(BaseModel):
    """One column of a table."""

    name: str
    type: str = Field(description="Arrow type.")
    nullable: bool
    unit: str | None
    description: str
    choices: list[str] = Field(description="The values it may have; empty = any.")
    is_content: bool = Field(description="Whether it decides that two rows of one key say the same.")
    stated_by: Literal["feed", "judge", "lineage"]


class SchemaAbout(BaseModel):
    """A table as its contract states it."""

    dataset: str
    table: str
    grain: str
    key: list[str]
    partition: str | None
    sort: list[str]
    contract_version: str
    columns: list[ColumnAbout]


class SchemaAnswer(LedgerAnswer):
    """The schema of a dataset."""

    data: SchemaAbout


class RangeAbout(BaseModel):
    """What a dataset spans; null where it has no row."""

    dataset: str
    first_timestamp: str | None = Field(description="Event time of its first row.")
    last_timestamp: str | None = Field(description="Event time of its last row.")
    first_date: str | None = Field(description="Exchange date of its first row.")
    last_date: str | None = Field(description="Exchange date of its last row.")


class RangeAnswer(LedgerAnswer):
    """The range of a dataset."""

    data: RangeAbout


class DateCondition(BaseModel):
    """How one exchange date of a dataset is."""

    date: str
    condition: Literal["available", "degraded", "pending", "missing"] = Field(
        description="available: closed, nothing known to be missing. degraded: closed, and a symbol is incomplete. "
        "pending: rows, not closed yet. missing: closed, and nothing was collected."
    )
    verdicts: dict[Verdict, int] = Field(description="Symbols by what was said of their day last.")
    rows_stored: int = Field(description="Rows commits stored of the date, every revision.")
    rows_missing: int | None = Field(description="Rows known to be missing; null where nothing could tell.")
    last_modified: str | None = Field(description="Commit that stored a row of the date last.")
    closed: str | None = Field(description="When a day of it was closed last.")


class ConditionAnswer(LedgerAnswer):
    """The condition of a dataset per date, newest first."""

    data: list[DateCondition]
    pagination: Pagination


class Stats(BaseModel):
    """The store in a few numbers, as the original platform gave them."""

    s3_endpoint: str = Field(description="Empty while the warehouse is a local folder.")
    warehouse_path: str
    connection_active: bool = Field(description="Whether the query engine answers.")
    trades_count: int | None = Field(description="Trades, each once, whatever its revisions; null with an error.")
    quotes_count: int | None = Field(description="Quotes, each once.")
    error: str | None = Field(description="Code of what is wrong; null when nothing is.")


class StatsAnswer(LedgerAnswer):
    """Statistics of the store."""

    data: Stats


class EstimateQuestion(Ranged):
    """POST /v1/estimate."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        json_schema_extra={"example": {"data_type": "trades", "symbols": ["BHP"], "start_time": "2014-03-10"}},
    )

    data_type: Literal["trades", "quotes"] = Field("trades", description="Table.")
    symbols: list[Word] = Field([], max_length=SYMBOLS_MAX, description="Any of them; empty = all.")
    exchanges: list[Word] = Field([], max_length=SYMBOLS_MAX, description="Any of them; empty = all.")
    snapshot_id: int | None = Field(None, ge=0, lt=2**63, description="As of this snapshot.")
    version: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="As of this version.")
    as_of: Instant | None = Field(None, description="As of this instant: the last commit at or before it.")

    @model_validator(mode="after")
    def _is_one_state(self) -> Self:
        if sum(pin is not None for pin in (self.snapshot_id, self.version, self.as_of)) > 1:
            raise ValueError("at most one of snapshot_id, version and as_of")
        return self

    def ticks(self) -> Ticks:
        """The rows meant."""
        return Ticks(
            symbols=tuple(self.symbols),
            exchanges=tuple(self.exchanges),
            start_us=self.start_us,
            end_us=self.end_us,
            limit=None,
        )

    def at(self) -> At:
        """The state meant."""
        return At(snapshot_id=self.snapshot_id, version=self.version, as_of=self.as_of)


class Estimate(BaseModel):
    """What a question would read, told from the plan alone."""

    rows_max: int = Field(description="Rows of the files it reads: an upper bound of its own.")
    bytes: int = Field(description="Bytes of those files.")
    files: int


class EstimateAnswer(LedgerAnswer):
    """An estimate."""

    data: Estimate


class Seen(BaseModel):
    """Rows of one symbol in one table from one exchange."""

    exchange: str
    table: str
    rows: int = Field(description="Each message once, whatever its revisions.")
    first_timestamp: str
    last_timestamp: str
    first_date: str
    last_date: str


class SymbolAbout(BaseModel):
    """One symbol: where its rows are, and how its instruments are described."""

    symbol: str
    date: str | None = Field(description="Exchange date whose descriptions are shown.")
    seen: list[Seen]
    instruments: list[Instrument] = Field(  # type: ignore[valid-type]
        description="How they are described on that date."
    )


class SymbolAnswer(LedgerAnswer):
    """One symbol."""

    data: SymbolAbout


class SymbolNow(BaseModel):
    """How one symbol of one exchange is."""

    symbol: str
    exchange: str
    last_price: str | None = Field(description="Of the last eligible print; null without one in thirty dates.")
    last_timestamp: str | None
    last_date: str | None
    verdict: Verdict | None = Field(description="What was said of its last closed day; null before the first.")
    verdict_date: str | None
    open_gaps: int = Field(description="Gaps that somebody has to see to.")


class Links(BaseModel):
    """Where people look further."""

    dagster: str | None = Field(description="Dagster's UI; null where none is known.")
    docs: str
    runbook: str


class OverviewAnswer(LedgerAnswer):
    """Every symbol, by exchange."""

    data: list[SymbolNow]
    links: Links


class ReadyAnswer(BaseModel):
    """Whether this server can answer questions now."""

    status: Literal["ready", "not_ready"]
    dependencies: list[Dependency]
