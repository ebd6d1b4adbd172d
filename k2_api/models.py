"""Requests as the API understands them, and answers as OpenAPI describes them.

Belongs here: pydantic at the edge. Row models are projected from the contracts; rows themselves are rendered by DuckDB.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator
from pydantic.json_schema import WithJsonSchema

from k2_core.contracts import QUOTES, TRADES, Column, Table
from k2_core.windows import FIRST_US, LAST_US, to_us

LIMIT_MAX = 10_000
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)?(Z|z|[+ -]\d\d(?::?\d\d)?)?)?", re.ASCII
)


def parse_instant(value: object) -> object:
    """Read ISO 8601 text as an instant in UTC; without an offset it is UTC. Raises ValueError.

    A fraction finer than a microsecond is rounded up: with half-open ranges that selects exactly the same rows.
    A space before the offset is the `+` of a client that did not escape it.
    """
    if not isinstance(value, str):
        return value
    match = _ISO.fullmatch(value.strip())
    if match is None:
        raise ValueError("expected ISO 8601, e.g. 2014-03-11T10:00:00Z or 2014-03-11T10:00:00.000001+11:00")
    day, minute, second, fraction, zone = (group or "" for group in match.groups())
    clock = f"{minute or '00:00'}:{second or '00'}{(zone or 'Z').upper().replace(' ', '+')}"
    microseconds = int(fraction[:6].ljust(6, "0")) + any(digit != "0" for digit in fraction[6:])
    try:
        instant = datetime.fromisoformat(f"{day}T{clock}") + timedelta(microseconds=microseconds)
        return instant.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"not an instant: {error}") from None


Instant = Annotated[datetime, BeforeValidator(parse_instant), WithJsonSchema({"type": "string", "format": "date-time"})]
Limit = Annotated[int, Field(ge=1, le=LIMIT_MAX)]


class Ranged(BaseModel):
    """A question about [start_time, end_time); open where it names no end. A parameter K2 does not know is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    start_time: Instant | None = Field(None, description="First instant included, ISO 8601; without offset = UTC.")
    end_time: Instant | None = Field(None, description="First instant no longer included.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start_us >= self.end_us:
            raise ValueError("start_time must be before end_time")
        return self

    @property
    def start_us(self) -> int:
        return FIRST_US if self.start_time is None else to_us(self.start_time)

    @property
    def end_us(self) -> int:
        return LAST_US if self.end_time is None else to_us(self.end_time)


class Question(Ranged):
    """What questions about bars have in common."""

    exchange: str | None = Field(None, description="Exchange, e.g. BINANCE; empty = all.")
    limit: Limit = Field(100, description="Rows on one page.")
    order: Literal["asc", "desc"] = Field("desc", description="desc = newest first.")
    decimals: Literal["string", "number"] = Field("string", description="How prices and quantities are written.")
    count: bool = Field(False, description="Count all rows of the question into pagination.total.")
    cursor: str | None = Field(None, description="next_cursor of the page before; pins its snapshot.")

    @property
    def descending(self) -> bool:
        return self.order == "desc"

    def filters(self) -> str:
        """What must not change from page to page, as canonical JSON."""
        return self.model_dump_json(exclude={"cursor", "limit", "count", "decimals"})


def row_columns(table: Table) -> tuple[Column, ...]:
    """The columns of a table an answer shows: what the feed said, its revision and its date; not our lineage."""
    return tuple(column for column in table.columns if column.origin != "lineage")


def _row_model(name: str, table: Table) -> type[BaseModel]:
    fields: dict[str, Any] = {
        c.name: (
            _json_type(c),
            Field(None if c.nullable else ..., description=f"{c.doc}{f' ({c.unit})' if c.unit else ''}"),
        )
        for c in row_columns(table)
    }
    return create_model(name, __doc__=table.grain, **fields)


def _chosen_model(name: str, table: Table) -> type[BaseModel]:
    """A row of which `fields` chose the columns; `decimals=number` may write the decimals."""
    fields: dict[str, Any] = {c.name: (_written_type(c) | None, Field(None, description=c.doc)) for c in table.columns}
    return create_model(name, __doc__=f"Chosen columns of {table.grain}", **fields)


def _json_type(column: Column) -> Any:
    return _TYPES[column.type.id] | None if column.nullable else _TYPES[column.type.id]


def _written_type(column: Column) -> Any:
    return str | float if pa.types.is_decimal(column.type) else _TYPES[column.type.id]


_TYPES: dict[int, Any] = {
    pa.string().id: str,
    pa.int32().id: int,
    pa.int64().id: int,
    pa.decimal128(18, 8).id: str,
    pa.timestamp("us", tz="UTC").id: str,
    pa.date32().id: str,
    pa.list_(pa.string()).id: list[str],
    pa.map_(pa.string(), pa.string()).id: dict[str, str],
}

Trade = _row_model("Trade", TRADES)
Quote = _row_model("Quote", QUOTES)
TradeFields = _chosen_model("TradeFields", TRADES)
QuoteFields = _chosen_model("QuoteFields", QUOTES)


class Pagination(BaseModel):
    """Where this page lies."""

    limit: int
    offset: int = Field(description="Rows on the pages before this one.")
    total: int | None = Field(description="Rows of the whole question; null unless count=true.")
    has_more: bool
    next_cursor: str | None


class Meta(BaseModel):
    """About the answer."""

    correlation_id: str
    timestamp: str = Field(description="Commit time of the state the answer shows.")


class _Answer(BaseModel):
    success: Literal[True] = True
    meta: Meta


class TradesAnswer(_Answer):
    """A page of trades."""

    data: list[Trade] | list[TradeFields]  # type: ignore[valid-type]
    pagination: Pagination


class QuotesAnswer(_Answer):
    """A page of quotes."""

    data: list[Quote] | list[QuoteFields]  # type: ignore[valid-type]
    pagination: Pagination


class BatchInfo(BaseModel):
    """Where a batch of a replay lies."""

    batch_number: int = Field(description="Counted from 1.")
    batch_size: int = Field(description="Rows of this batch.")
    total_records: int = Field(description="Rows of all batches.")
    progress_percent: float


class ReplayAnswer(_Answer):
    """A batch of a replay, oldest row first."""

    data: list[Trade] | list[Quote]  # type: ignore[valid-type]
    cursor: str | None = Field(description="To ask for the next batch with; null at the end.")
    batch_info: BatchInfo


class SymbolsAnswer(_Answer):
    """Symbols, sorted."""

    data: list[str]


class Snapshot(BaseModel):
    """One commit to a table."""

    snapshot_id: int
    snapshot_id_string: str = Field(description="The same as text: numbers above 2^53 lose digits in browsers.")
    sequence_number: int
    timestamp: str
    operation: str
    manifest_list: str
    summary: dict[str, str]


class SnapshotsAnswer(_Answer):
    """The history of a table, newest first."""

    data: list[Snapshot]
    table_name: str


class Dependency(BaseModel):
    """One thing the platform needs."""

    name: str
    status: Literal["healthy", "degraded", "unhealthy"]
    latency_ms: float | None
    message: str | None


class TopicHealth(BaseModel):
    """How a table stands in one topic."""

    table: str
    topic: str
    lag_records: int | None = Field(description="Records that wait; null while that cannot be told.")
    stands: list[str] = Field(description="Codes of what stops it or one of its Kafka partitions; empty = nothing.")


class DaemonHealth(BaseModel):
    """Dagster's daemon, as its webserver knows it."""

    answers: bool = Field(description="Whether the webserver told within a second.")
    last_tick_age_seconds: float | None = Field(description="Since any sensor ticked last; null while nobody knows.")


class AlertsHealth(BaseModel):
    """What people are being told."""

    firing: int | None = Field(description="Conditions people were told of that go on; null while nobody knows.")
    undelivered: int | None
    oldest_undelivered_age_seconds: float | None = Field(description="Null when nothing waits, or nobody knows.")


class HealthAnswer(BaseModel):
    """How K2 is."""

    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    timestamp: str
    dependencies: list[Dependency]
    daemon: DaemonHealth | None = Field(description="Null where no Dagster is known.")
    topics: list[TopicHealth]
    alerts: AlertsHealth


class About(BaseModel):
    """Where things are."""

    name: str
    version: str
    docs: str
    redoc: str
    health: str
    api: str
