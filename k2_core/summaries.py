"""What a set of prints comes to: open, high, low, last, volume, count and average price, by the update rules.

The plain definition, exact and in the total order; what computes bars faster must agree with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.conditions import Update, Updates
from k2_core.windows import vwap

_SCALE = 8
"""Decimals of a price and of a quantity."""
_EXACT = Context(prec=38)
"""Digits of a sum of quantities: decimal(38,8)."""
_ABSENT = -(2**63)
"""A sequence nobody states sorts below every number."""


@dataclass(frozen=True)
class Summary:
    """Prices are None where no print may set them; vwap has eight decimals, rounded half to even."""

    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    last: Decimal | None
    volume: Decimal
    count: int
    vwap: Decimal | None


def summarise(trades: pa.Table, updates: Updates) -> Summary:
    """Summarise the prints of one symbol. trades: contract columns, any order. updates: of each of them."""
    order = total_order(trades)
    rows, allowed = trades.select(["price", "quantity"]).take(order), updates[order.to_numpy()]

    def those(update: Update) -> pa.Table:
        return rows.filter(pa.array(allowed & int(update) != 0))

    first, last = those(Update.OPEN)["price"], those(Update.LAST)["price"]
    weighed = [_units(those(Update.VWAP)[name]) for name in ("price", "quantity")]
    notional = sum(price * quantity for price, quantity in zip(*weighed, strict=True))
    average = vwap(notional, sum(weighed[1]))
    return Summary(
        open=first[0].as_py() if len(first) else None,
        high=pc.max(those(Update.HIGH)["price"]).as_py(),
        low=pc.min(those(Update.LOW)["price"]).as_py(),
        last=last[-1].as_py() if len(last) else None,
        volume=Decimal(sum(_units(those(Update.VOLUME)["quantity"]))).scaleb(-_SCALE, _EXACT),
        count=int(np.count_nonzero(allowed & int(Update.COUNT))),
        vwap=Decimal(average) if average else None,
    )


def total_order(ticks: pa.Table) -> pa.Array:
    """Places of rows in the total order: timestamp, source_sequence, platform_sequence, message_id."""
    keys = {name: pc.fill_null(ticks[name], _ABSENT) for name in ("source_sequence", "platform_sequence")}
    columns = {"timestamp": ticks["timestamp"], **keys, "message_id": ticks["message_id"]}
    return pc.sort_indices(pa.table(columns), [(name, "ascending") for name in columns])


def _units(column: pa.ChunkedArray) -> list[int]:
    """Decimals in units of 1e-8."""
    return [int(value.scaleb(_SCALE)) for value in column.to_pylist()]
