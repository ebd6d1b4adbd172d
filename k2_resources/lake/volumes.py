"""Daily volumes as they are stored: a few columns of few rows."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
from pyiceberg.expressions import And, GreaterThanOrEqual, LessThanOrEqual

from k2_core.contracts import Table
from k2_resources.lake.catalog import Lake

_COLUMNS = ("symbol", "exchange", "exchange_date", "volume", "is_final")


def daily_volumes(lake: Lake, table: Table, first: date, last: date) -> pa.Table:
    """Volumes of all symbols on exchange dates from first to last, both inclusive. table: of daily bars."""
    if lake.state(table) is None:
        return table.arrow_schema().empty_table().select(_COLUMNS)
    within = And(
        GreaterThanOrEqual("exchange_date", first.isoformat()), LessThanOrEqual("exchange_date", last.isoformat())
    )
    return lake.load(table).scan(within, selected_fields=_COLUMNS).to_arrow().select(_COLUMNS)
