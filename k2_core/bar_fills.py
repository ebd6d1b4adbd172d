"""Bars without holes between them: windows in which nothing counted, made up as a reader asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.derived_tables import BARS_1M
from k2_core.screen import int64s
from k2_core.wide import Int64s

Fill = Literal["none", "null", "prev"]
"""What stands in a window in which no print counted: it is left out, has no prices, or has the close before it."""

_PRICES = ("open_price", "high_price", "low_price", "close_price")
_ZEROS = ("volume", "trade_count", "excluded_count", "priced_volume", "price_time", "covered_us", "gap_count")

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Frame:
    """Every window of a range on one exchange, ascending. dates: its exchange date; is_final: were it empty."""

    symbol: str
    exchange: str
    start_us: Int64s
    end_us: Int64s
    dates: list[date]
    is_final: Mask


def counted(bars: pa.Table) -> pa.Table:
    """The bars in which a print counts."""
    return bars.filter(pc.greater(bars["trade_count"], 0))


def filled(bars: pa.Table, frame: Frame, fill: Fill, close_before: Decimal | None) -> pa.Table:
    """A bar for every window of a frame, with `is_filled` as a last column. bars: of its symbol and exchange.

    close_before: the last close before the frame; None where there is none, or it is not asked for.
    """
    names = [*BARS_1M.arrow_schema().names]
    starts = int64s(bars["window_start"])
    order = np.argsort(starts)
    at = np.searchsorted(starts[order], frame.start_us)
    there = np.zeros(len(frame.start_us), bool)
    if len(starts):
        there = starts[order][np.minimum(at, len(starts) - 1)] == frame.start_us
    places = order[np.minimum(at, len(starts) - 1)] if len(starts) else np.zeros(len(there), np.int64)
    rows = bars.combine_chunks().take(pa.array(places, mask=~there))
    columns = {name: rows[name].combine_chunks() for name in names} | _known(rows, frame)
    empty = pa.array(~there) if not len(starts) else pc.equal(columns["trade_count"], 0)
    if fill == "prev":
        columns |= _carried(columns, empty, close_before)
    return pa.table({**columns, "is_filled": empty})


def _known(rows: pa.Table, frame: Frame) -> dict[str, pa.Array]:
    """What can be said of a window without a bar."""
    type_of = {field.name: field.type for field in BARS_1M.arrow_schema()}
    count = len(frame.start_us)
    stated = {
        "symbol": pa.repeat(frame.symbol, count),
        "exchange": pa.repeat(frame.exchange, count),
        "exchange_date": pa.array(frame.dates, pa.date32()),
        "window_start": pa.array(frame.start_us).cast(type_of["window_start"]),
        "window_end": pa.array(frame.end_us).cast(type_of["window_end"]),
        "is_final": pc.coalesce(rows["is_final"].combine_chunks(), pa.array(frame.is_final)),
    }
    zeros = {name: pc.fill_null(rows[name].combine_chunks(), pa.scalar(0).cast(type_of[name])) for name in _ZEROS}
    share = pa.scalar(Decimal(0), type_of["twap_coverage"])
    return {**stated, **zeros, "twap_coverage": pc.fill_null(rows["twap_coverage"].combine_chunks(), share)}


def _carried(columns: dict[str, pa.Array], empty: pa.Array, close_before: Decimal | None) -> dict[str, pa.Array]:
    closes = columns["close_price"]
    led = pa.concat_arrays([pa.array([close_before], closes.type), closes])
    before = pc.fill_null_forward(led)[:-1]
    return {name: pc.if_else(empty, before, columns[name]) for name in _PRICES}
