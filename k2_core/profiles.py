"""What was traded at which price: volumes and counts by price within windows of one length."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from k2_core.bars import Basis
from k2_core.conditions import Update
from k2_core.derived_tables import TOTAL
from k2_core.prints import COLUMNS, prints_of
from k2_core.tables import PRICE
from k2_core.wide import decimals_from
from k2_core.windows import DAY_US, Timeframe

_KEYS = ("exchange", "window_us", "price")


def profile_of(trades: pa.Table, basis: Basis, timeframe: Timeframe) -> pa.Table:
    """Volume and trade_count by exchange, window_us and price, of the prints of one symbol that count for either.

    window_us: start of the window; one of dates by its date.
    """
    if not len(trades):
        return _merged([])
    prints = prints_of(trades.select(COLUMNS), basis.rules)
    if timeframe.width_us is None:
        windows = prints.days * DAY_US
    else:
        windows = prints.at_us // timeframe.width_us * timeframe.width_us
    counts = prints.may(Update.COUNT).astype(np.int64)
    quantity = np.where(prints.may(Update.VOLUME), prints.quantity, 0)
    kept = np.flatnonzero((counts > 0) | (quantity > 0))
    levels = pa.table(
        {
            "exchange": pa.array(prints.exchanges, pa.string()).take(
                pa.array(prints.scopes[kept] % len(prints.exchanges))
            ),
            "window_us": pa.array(windows[kept]),
            "price": decimals_from(prints.price[kept], PRICE),
            "volume": decimals_from(quantity[kept], PRICE),
            "trade_count": pa.array(counts[kept]),
        }
    )
    return _merged([levels])


def merged(profiles: Iterable[pa.Table]) -> pa.Table:
    """One profile of the parts of one question, by exchange, window and price."""
    return _merged(list(profiles))


def _merged(levels: list[pa.Table]) -> pa.Table:
    schema = pa.schema(
        [
            ("exchange", pa.string()),
            ("window_us", pa.int64()),
            ("price", PRICE),
            ("volume", TOTAL),
            ("trade_count", pa.int64()),
        ]
    )
    rows = pa.concat_tables([schema.empty_table(), *(level.select(schema.names).cast(schema) for level in levels)])
    found = rows.group_by(list(_KEYS), use_threads=False).aggregate([("volume", "sum"), ("trade_count", "sum")])
    renamed = found.rename_columns({"volume_sum": "volume", "trade_count_sum": "trade_count"})
    return renamed.select(schema.names).cast(schema).sort_by([(name, "ascending") for name in _KEYS])
