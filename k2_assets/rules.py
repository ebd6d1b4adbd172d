"""What must hold of every stored row of one exchange date: pandera schemas projected from the contracts.

The screen lets no row in that breaks these; here they are asked again of what is really stored. pandera takes a second
to import, so only who validates imports this module.
"""

from dataclasses import dataclass
from datetime import date

import pandera.polars as pa_pl
import polars as pl
import pyarrow as pa

from k2_core.contracts import COVERAGE, INSTRUMENTS, QUOTES, TRADES, VENDOR_DATA, Column, Table
from k2_core.feeds import Feed, feeds_of

SAMPLE_ROWS = 5
"""Offending rows shown per rule: enough to see what is wrong, few enough for an event."""


@dataclass(frozen=True)
class Broken:
    """One rule that some rows break: how many, and the first of them."""

    rule: str
    rows: int
    sample: pl.DataFrame


def checked_columns(table: Table) -> list[str]:
    """Columns the rules look at: all but the free-form map, which polars cannot hold."""
    return [column.name for column in table.columns if column.type != VENDOR_DATA]


def broken_rules(table: Table, feeds: tuple[Feed, ...], day: date, rows: pa.Table) -> list[Broken]:
    """Find every rule that some rows of one date break, by name. rows: the checked columns."""
    frame = pl.DataFrame(pl.from_arrow(rows))
    try:
        schema_of(table, feeds, day).validate(frame, lazy=True)
    except pa_pl.errors.SchemaErrors as errors:
        return _broken(frame, errors.failure_cases)
    return []


def schema_of(table: Table, feeds: tuple[Feed, ...], day: date) -> pa_pl.DataFrameSchema:
    """Project a contract to the schema of one date of its rows."""
    names = checked_columns(table)
    empty = pl.DataFrame(pl.from_arrow(table.arrow_schema().empty_table().select(names)))
    columns = {name: _column(table.column(name), empty.schema[name], table, day) for name in names}
    own = feeds_of(table, feeds)
    checks = [rule(feed, day) for feed in own for rule in (_dated, _from)]
    checks += [_pair(side) for side in ("bid", "ask")] if table.name == QUOTES.name else []
    return pa_pl.DataFrameSchema(columns, checks=checks, strict=True)


_POSITIVE = {
    TRADES.name: ("price", "quantity"),
    QUOTES.name: ("bid_price", "bid_quantity", "ask_price", "ask_quantity"),
    INSTRUMENTS.name: ("price_increment", "quantity_increment"),
}
_FROM_ZERO = ("revision", "kafka_epoch", "kafka_partition", "kafka_offset", "quality_flags", "rows", "rejected")


def _column(column: Column, dtype: pl.DataType, table: Table, day: date) -> pa_pl.Column:
    checks = []
    if column.choices:
        checks.append(pa_pl.Check.isin(column.choices, error=f"{column.name} is one of {', '.join(column.choices)}"))
    if column.name in _POSITIVE.get(table.name, ()):
        checks.append(pa_pl.Check.gt(0, error=f"{column.name} > 0"))
    if column.name in _FROM_ZERO:
        checks.append(pa_pl.Check.ge(0, error=f"{column.name} >= 0"))
    if column.name == "message_id":
        checks.append(pa_pl.Check.str_length(min_value=1, error="message_id is not empty"))
    if column.name == table.partition:
        checks.append(pa_pl.Check.eq(day, error=f"{column.name} is its partition"))
    return pa_pl.Column(dtype, checks=checks, nullable=column.nullable)


def _dated(feed: Feed, day: date) -> pa_pl.Check:
    local = pl.col("timestamp").dt.convert_time_zone(feed.timezone).dt.date()
    return _of_feed(feed, local == day, f"timestamp lies in {day} of {feed.timezone}")


def _from(feed: Feed, _day: date) -> pa_pl.Check:
    # coverage is stated for every exchange on one topic
    holds = pl.lit(value=True) if feed.table.name == COVERAGE.name else pl.col("exchange") == feed.exchange
    return _of_feed(feed, holds, f"exchange is {feed.exchange}")


def _of_feed(feed: Feed, holds: pl.Expr, what: str) -> pa_pl.Check:
    other = pl.col("kafka_topic") != feed.topic
    return pa_pl.Check(lambda data: data.lazyframe.select(other | holds), name=f"{feed.name}: {what}")


def _pair(side: str) -> pa_pl.Check:
    price, quantity = pl.col(f"{side}_price").is_null(), pl.col(f"{side}_quantity").is_null()
    return pa_pl.Check(
        lambda data: data.lazyframe.select(price == quantity), name=f"{side}_price and {side}_quantity come together"
    )


def _broken(frame: pl.DataFrame, cases: pl.DataFrame) -> list[Broken]:
    found = []
    for (column, check), group in cases.group_by("column", "check", maintain_order=True):
        at = group["index"].drop_nulls().unique().sort()
        rule = f"{check}" if column is None or str(column) in str(check) else f"{column}: {check}"
        found.append(Broken(rule, max(len(at), 1), frame[at.head(SAMPLE_ROWS).to_list()]))
    return sorted(found, key=lambda broken: broken.rule)
