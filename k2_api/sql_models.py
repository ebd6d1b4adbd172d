"""Statements as HTTP brings them, and answers to them as OpenAPI describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from k2_api.formats import FormatName
from k2_api.models import Instant, Meta, Ranged
from k2_api.plans import Span

STATEMENT_LETTERS_MAX = 20_000
"""Ten pages: what people and dashboards write is a hundredth of it, and a tree of more takes seconds to walk."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class SqlQuestion(Ranged):
    """POST /v1/sql."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "sql": "SELECT symbol, count(*) AS trades, sum(quantity) AS volume FROM trades GROUP BY symbol",
                    "start_time": "2014-03-11T00:00:00Z",
                    "end_time": "2014-03-12T00:00:00Z",
                }
            ]
        },
    )

    sql: str = Field(
        min_length=1,
        max_length=STATEMENT_LETTERS_MAX,
        description="One SELECT in DuckDB's dialect over trades, quotes and instruments, in newest revisions.",
    )
    start_time: Instant | None = Field(None, description="trades and quotes begin here; reads fewer files.")
    end_time: Instant | None = Field(None, description="First instant of trades and quotes that is left out.")
    as_of: Instant | None = Field(None, description="Every table as of this instant.")
    versions: dict[Literal["trades", "quotes", "instruments"], Digest] = Field(
        default_factory=dict, description="Tables as of these versions: meta.versions of an answer asks for it again."
    )
    limit: int = Field(1000, ge=1, le=100_000, description="Rows of the answer; `truncated` says that there are more.")
    format: FormatName | None = Field(None, description="How rows are written; without it, what Accept likes best.")

    @model_validator(mode="after")
    def _is_one_state(self) -> Self:
        if self.as_of is not None and self.versions:
            raise ValueError("at most one of as_of and versions")
        return self

    @property
    def span(self) -> Span:
        """The range of the tick tables."""
        return Span(self.start_us, self.end_us)


class SqlColumn(BaseModel):
    """A column of the answer."""

    name: str
    type: str = Field(description="Its Arrow type, e.g. decimal128(18, 8).")


class SqlMeta(Meta):
    """About the answer."""

    versions: dict[str, str] = Field(description="The K2-Version of each table the statement read.")


class SqlAnswered(BaseModel):
    """Rows of a statement, in its order."""

    success: Literal[True] = True
    data: list[dict[str, Any]] = Field(description="Decimals and whatever JSON has no word for are text.")
    columns: list[SqlColumn]
    truncated: bool = Field(description="Whether there are more rows than `limit`.")
    meta: SqlMeta
