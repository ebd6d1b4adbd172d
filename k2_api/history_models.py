"""Questions about the states of the tick tables, and their answers, as OpenAPI describes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from k2_api.formats import FormatName
from k2_api.models import Meta, Pagination, Quote, Ranged, Trade
from k2_api.questions import At, Revisions, Ticks, View
from k2_api.tick_models import PAGE_ROWS_MAX, QUERY_ROWS_MAX

TableName = Literal["trades", "quotes"]
State = Annotated[str, Field(pattern="^([0-9]{1,19}|[0-9a-f]{64})$")]
"""A snapshot id, or a K2-Version."""


def at_of(state: str) -> At:
    """The state that a text names."""
    return At(snapshot_id=int(state)) if state.isdecimal() and len(state) < 20 else At(version=state)


class SnapshotQuery(Ranged):
    """POST /v1/snapshots/{snapshot_id}/query."""

    data_type: TableName = Field("trades", description="Table.")
    symbol: str | None = Field(None, max_length=200, description="Symbol as the exchange writes it; empty = all.")
    exchange: str | None = Field(None, max_length=200, description="Exchange; empty = all.")
    view: View = Field("raw", description="clean = without rows hard to trust; eligible = without excluded prints.")
    revisions: Revisions = Field("latest", description="Of a corrected row: its newest content, its first, or all.")
    order: Literal["asc", "desc"] = Field("desc", description="desc = newest first.")
    decimals: Literal["string", "number"] = Field("string", description="How JSON writes prices and quantities.")
    count: bool = Field(False, description="Count all rows of the question into pagination.total.")
    limit: int = Field(1000, ge=1, le=QUERY_ROWS_MAX, description="Rows of the answer.")
    offset: int = Field(0, ge=0, lt=2**63, description="Rows to leave out first; a cursor is faster.")
    format: FormatName | None = Field(None, description="How rows are written; without it, what Accept likes best.")
    cursor: str | None = Field(None, description="next_cursor of the page before.")

    def ticks(self) -> Ticks:
        """The rows meant."""
        return Ticks(
            symbols=() if self.symbol is None else (self.symbol,),
            exchanges=() if self.exchange is None else (self.exchange,),
            start_us=self.start_us,
            end_us=self.end_us,
            view=self.view,
            revisions=self.revisions,
            descending=self.order == "desc",
            limit=self.limit,
            decimals=self.decimals,
        )


class DifferenceQuestion(Ranged):
    """GET /v1/snapshots/diff."""

    model_config = ConfigDict(populate_by_name=True)

    table: TableName = Field("trades", description="Table.")
    since: State = Field(alias="from", description="Earlier state: a snapshot id or a K2-Version.")
    until: State | None = Field(None, alias="to", description="Later state; the newest where it is left out.")
    symbol: str | None = Field(None, max_length=200, description="Symbol as the exchange writes it; empty = all.")
    exchange: str | None = Field(None, max_length=200, description="Exchange; empty = all.")
    order: Literal["asc", "desc"] = Field("desc", description="desc = newest first.")
    limit: int = Field(1000, ge=1, le=PAGE_ROWS_MAX, description="Rows on one page.")
    decimals: Literal["string", "number"] = Field("string", description="How prices and quantities are written.")
    cursor: str | None = Field(None, description="next_cursor of the page before; pins both states.")

    def ticks(self) -> Ticks:
        """The rows meant, of either state."""
        return Ticks(
            symbols=() if self.symbol is None else (self.symbol,),
            exchanges=() if self.exchange is None else (self.exchange,),
            start_us=self.start_us,
            end_us=self.end_us,
            descending=self.order == "desc",
            limit=self.limit,
            decimals=self.decimals,
        )


class _Answer(BaseModel):
    success: Literal[True] = True
    meta: Meta


class KafkaPosition(BaseModel):
    """How far one Kafka partition is in a state."""

    topic: str
    kafka_partition: int
    kafka_epoch: int = Field(description="Incarnation of the topic, counted from 0.")
    next_offset: int = Field(description="First offset that is not in the state.")


class StateAbout(BaseModel):
    """One state of a table."""

    table: TableName
    snapshot_id: int
    snapshot_id_string: str = Field(description="The same as text: numbers above 2^53 lose digits in browsers.")
    version: str = Field(description="K2-Version: the digest of its offsets.")
    timestamp: str = Field(description="When the state was reached.")
    sequence_number: int
    is_retained: bool = Field(description="Whether the snapshot is still kept; the state can be read anyway.")
    tags: list[str]
    rows_max: int = Field(description="Rows its files hold; later ones and replaced revisions may be among them.")
    size_bytes: int
    files: int
    offsets: list[KafkaPosition]


class StateAnswer(_Answer):
    """One state of a table."""

    data: StateAbout


class SnapshotQueryAnswer(_Answer):
    """Rows of one snapshot."""

    data: list[Trade] | list[Quote]  # type: ignore[valid-type]
    pagination: Pagination
    snapshot_id: int
    snapshot_timestamp: str


class Changed(BaseModel):
    """One row in which two states differ."""

    change: Literal["added", "superseded"]
    row: Trade | Quote  # type: ignore[valid-type]


class DifferencePages(BaseModel):
    """Where a page of a difference lies."""

    limit: int
    has_more: bool
    next_cursor: str | None


class DifferenceAnswer(_Answer):
    """Rows that the later of two states shows anew, and rows it shows no more."""

    model_config = ConfigDict(populate_by_name=True)

    data: list[Changed]
    pagination: DifferencePages
    table: TableName
    since: str = Field(alias="from", description="K2-Version of the earlier state.")
    until: str = Field(alias="to", description="K2-Version of the later state.")


class TagAbout(BaseModel):
    """One name of a state."""

    name: str
    table: TableName
    snapshot_id: int
    snapshot_id_string: str = Field(description="The same as text.")
    version: str
    timestamp: str = Field(description="When the state was reached.")


class TagsAnswer(_Answer):
    """The tags of a table, by name."""

    data: list[TagAbout]
