"""What is asked of the ledgers, and what they answer. Rows are projected from the contracts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from typing import Annotated, Any, Literal, Self, get_args

import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator
from pydantic.json_schema import WithJsonSchema

from k2_api.models import Meta, Pagination, Ranged
from k2_core.contracts import DAYS, DEAD_LETTERS, GAPS, INGESTED, RECEIPTS, Column
from k2_core.day_tables import VERDICTS
from k2_core.gap_ids import FILLED, URGENCY
from k2_core.letters import Standing
from k2_core.quality import Reason

WORD_CHARACTERS_MAX = 256
"""Of a symbol, a topic or a feed: longer than any there is."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TABLES = tuple(name for table in INGESTED for name in (table.short_name, table.name))


def parse_day(value: object) -> object:
    """Read YYYY-MM-DD, and nothing else that a calendar would take. Raises ValueError."""
    if isinstance(value, str) and not _DAY.fullmatch(value):
        raise ValueError("expected a date, YYYY-MM-DD, e.g. 2014-03-11")
    return value


Day = Annotated[date, BeforeValidator(parse_day), WithJsonSchema({"type": "string", "format": "date"})]
Word = Annotated[str, Field(max_length=WORD_CHARACTERS_MAX)]
TableName = Literal[_TABLES]  # type: ignore[valid-type]
GapState = Literal[(*URGENCY, FILLED)]  # type: ignore[valid-type]
Verdict = Literal["complete", "incomplete", "not_verifiable", "not_collected"]
assert get_args(Verdict) == VERDICTS


class LedgerQuestion(BaseModel):
    """What all lists of the ledgers have in common. A parameter K2 does not know is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    limit: int = Field(100, ge=1, le=1000, description="Entries on one page, newest first.")
    cursor: str | None = Field(
        None, description="next_cursor of the page before. Ledgers only grow: nothing is left out or shown twice."
    )

    def filters(self) -> str:
        """What must not change from page to page, as canonical JSON."""
        return self.model_dump_json(exclude={"cursor", "limit"})


class _Dated(LedgerQuestion):
    start_date: Day | None = Field(None, description="First exchange date included.", examples=["2014-03-10"])
    end_date: Day | None = Field(None, description="First exchange date no longer included.", examples=["2014-03-15"])

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.date_start >= self.date_end:
            raise ValueError("start_date must be before end_date")
        return self

    @property
    def date_start(self) -> date:
        return self.start_date or date.min

    @property
    def date_end(self) -> date:
        return self.end_date or date.max


class _Timed(LedgerQuestion, Ranged):
    """A question about rows with a time."""


class GapsQuestion(_Dated):
    """GET /v1/gaps."""

    feed: Word | None = Field(None, description="Feed, e.g. binance-trades; empty = all.", examples=["binance-trades"])
    exchange: Word | None = Field(None, description="Exchange, e.g. BINANCE; empty = all.", examples=["BINANCE"])
    symbol: Word | None = Field(None, description="Symbol whose ids are missing; empty = all.", examples=["BTCUSDT"])
    state: GapState | None = Field(None, description="Only gaps in this state; empty = every hole there is now.")
    severity: Literal["warn", "alert", "halt"] | None = Field(None, description="By size: below 10, to 100, above.")
    is_settled: bool | None = Field(None, description="false = those that somebody has to see to; true = the others.")


class DaysQuestion(_Dated):
    """GET /v1/days."""

    feed: Word | None = Field(None, description="Feed, e.g. asx-trades; empty = all.", examples=["asx-trades"])
    exchange: Word | None = Field(None, description="Exchange, e.g. ASX; empty = all.", examples=["ASX"])
    symbol: Word | None = Field(None, description="Symbol; `*` = days on which a feed had no row of any; empty = all.")
    verdict: Verdict | None = Field(None, description="Only days of which this was said.")
    versions: Literal["latest", "all"] = Field("latest", description="all = also what later versions replaced.")


class DayQuestion(BaseModel):
    """GET /v1/days/{exchange}/{symbol}/{date}."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    feed: Word | None = Field(None, description="Only this feed; empty = every one of the exchange.")
    version: int | None = Field(
        None, ge=1, lt=2**31, description="The version whose certificate is shown; empty = last."
    )


class ReceiptsQuestion(_Timed):
    """GET /v1/receipts."""

    table: TableName | None = Field(None, description="Table committed to; empty = all.", examples=["trades"])
    kind: Literal["batch", "register", "adopt", "accept_loss", "resume", "maintenance"] | None = Field(
        None, description="Kind of commit; empty = all."
    )
    version: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="Digest of C after the commit.")
    snapshot_id: int | None = Field(None, ge=0, lt=2**63, description="Snapshot the commit made.")
    exchange_date: Day | None = Field(None, description="Only commits that stored rows of this exchange date.")


class LettersQuestion(_Timed):
    """GET /v1/dead-letters."""

    table: TableName | None = Field(None, description="Table the record was meant for; empty = all.")
    topic: Word | None = Field(None, description="Kafka topic; empty = all.", examples=["market.equities.trades.asx"])
    reason: Reason | None = Field(None, description="What it died of; empty = anything.")
    status: Standing | None = Field(None, description="How it stands after its replays; empty = however.")
    with_bytes: bool = Field(False, description="Whether key, value and headers come along; bytes as base64.")


class ConditionQuestion(_Dated):
    """GET /v1/datasets/{dataset}/condition."""

    limit: int = Field(1000, ge=1, le=10_000, description="Dates on one page, newest first.")


def described(name: str, doc: str, columns: Iterable[Column], **more: Any) -> type[BaseModel]:
    """Project columns of a contract to a model of their JSON. more: further members, as pydantic takes them."""
    fields: dict[str, Any] = {}
    for column in columns:
        kind = _json_type(column.type)
        about = Field(... if not column.nullable else None, description=column.doc)
        fields[column.name] = (kind | None if column.nullable else kind, about)
    return create_model(name, __doc__=doc, **fields, **more)


def _json_type(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return list[_json_type(kind.value_type)]  # type: ignore[misc]  # built from the contract
    if pa.types.is_struct(kind):
        return dict[str, Any]
    if pa.types.is_map(kind):
        return dict[str, str]
    if pa.types.is_boolean(kind):
        return bool
    return int if pa.types.is_integer(kind) else str


CLOSING_COLUMNS = (
    "feed",
    "symbol",
    "exchange_date",
    "version",
    "exchange",
    "table_name",
    "verdict",
    "expected",
    "present",
    "missing",
    "duplicates",
    "superseded",
    "withdrawn",
    "dead_letters",
    "collections",
    "covered_start",
    "covered_end",
    "sha256",
    "lake_version",
    "closed",
)
"""What a list tells of a closing; the day itself has the rest of its certificate."""

Gap = described("Gap", GAPS.grain, GAPS.columns, is_settled=(bool, Field(description="Asks for nothing more.")))
Closing = described("Closing", DAYS.grain, (c for c in DAYS.columns if c.name in CLOSING_COLUMNS))
Certificate = described("Certificate", DAYS.grain, DAYS.columns)
Receipt = described(
    "Receipt",
    RECEIPTS.grain,
    RECEIPTS.columns,
    snapshot_id_string=(str, Field(description="The same as text: numbers above 2^53 lose digits in browsers.")),
)
Letter = described(
    "DeadLetter",
    DEAD_LETTERS.grain,
    (c for c in DEAD_LETTERS.columns if c.name not in ("key", "value", "headers")),
    status=(Standing, Field(description="open, pending, resolved or dead again, as its replays ended.")),
    delivered=(list[str], Field(description="Where its replays went: topic[partition]@epoch:offset.")),
    value_bytes=(int | None, Field(description="Length of the value; null for a tombstone.")),
    key=(str | None, Field(None, description="Record key, base64; null without with_bytes.")),
    value=(str | None, Field(None, description="Record bytes, base64; null without with_bytes.")),
    headers=(str | None, Field(None, description="JSON list of [name, base64 value]; null without with_bytes.")),
)


class LedgerAnswer(BaseModel):
    """An answer about the platform's own records."""

    success: Literal[True] = True
    meta: Meta


class GapsAnswer(LedgerAnswer):
    """A page of gaps."""

    data: list[Gap]  # type: ignore[valid-type]
    pagination: Pagination


class GapHistory(BaseModel):
    """One gap: how it stands and what was seen and stated of it."""

    gap_id: str
    feed: str
    symbol: str
    session: int = Field(description="Id numbering of the source, counted from 0.")
    first_id: int
    last_id: int = Field(description="Inclusive.")
    size: int
    state: GapState | None = Field(description="Null where statements name ids that are no gap of their own.")
    is_settled: bool
    events: list[described("GapEvent", GAPS.grain, GAPS.columns)]  # type: ignore[valid-type]


class GapAnswer(LedgerAnswer):
    """One gap."""

    data: GapHistory


class DaysAnswer(LedgerAnswer):
    """A page of closings."""

    data: list[Closing]  # type: ignore[valid-type]
    pagination: Pagination


class ClosedDay(BaseModel):
    """One exchange date of one symbol of one feed."""

    feed: str
    table: str = Field(description="Table that holds the rows.")
    verdict: Verdict
    certificate: Certificate  # type: ignore[valid-type]
    versions: list[Closing]  # type: ignore[valid-type]


class DayAnswer(LedgerAnswer):
    """One exchange date of one symbol, per feed."""

    data: list[ClosedDay]


class ReceiptsAnswer(LedgerAnswer):
    """A page of receipts."""

    data: list[Receipt]  # type: ignore[valid-type]
    pagination: Pagination


class LettersAnswer(LedgerAnswer):
    """A page of dead letters."""

    data: list[Letter]  # type: ignore[valid-type]
    pagination: Pagination
