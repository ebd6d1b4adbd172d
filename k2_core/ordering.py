"""The order of rows in a table: exchange date, then the sort of its contract, ties as they arrived."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.contracts import Table
from k2_core.feeds import Feed
from k2_core.scopes import Places, Scopes, dense
from k2_core.screen import int64s

_BY_SYMBOL = ("symbol", "timestamp", "source_sequence")
"""The sort of the tick tables. Their rows arrive by symbol nearly sorted, which saves the full sort."""
_NULL_LAST = np.iinfo(np.int64).max


def in_table_order(feed: Feed, rows: pa.Table, scopes: Scopes, kept: Places | None) -> pa.Table:
    """The kept rows, all where kept is None, in their final order. scopes: of all rows."""
    if kept is not None and len(kept) < len(rows):
        some = rows.take(pa.array(kept))
        return in_table_order(feed, some, scopes.kept(kept), None)
    if feed.table.sort != _BY_SYMBOL:
        return rows.take(_sorted_by_contract(feed.table, rows))
    return _taken(feed, rows, pa.array(_sorted_by_symbol(rows, scopes)))


def _sorted_by_contract(table: Table, rows: pa.Table) -> pa.Array:
    names = ("exchange_date", *table.sort)
    return pc.sort_indices(rows, [(name, "ascending") for name in names])


def _sorted_by_symbol(rows: pa.Table, scopes: Scopes) -> Places:
    """By date and symbol from what is known of the scopes; within them a sort only where arrival was out of order."""
    order = scopes.order
    days = rows["exchange_date"].combine_chunks().view(pa.int32()).to_numpy()
    present, which = dense(days)
    if len(present) > 1:
        narrow = which.astype(np.uint16) if len(present) <= np.iinfo(np.uint16).max else which
        order = order[np.argsort(narrow[order], kind="stable")]
    times, numbers = int64s(rows["timestamp"])[order], int64s(rows["source_sequence"], _NULL_LAST)[order]
    codes, dates = scopes.codes[order], days[order]
    same = (codes[1:] == codes[:-1]) & (dates[1:] == dates[:-1])
    before, after = slice(None, -1), slice(1, None)
    late = (times[after] < times[before]) | ((times[after] == times[before]) & (numbers[after] < numbers[before]))
    if not (same & late).any():
        return order
    absent = np.isin(numbers, _NULL_LAST) & _is_null(rows["source_sequence"])[order]
    groups = np.concatenate([[0], np.cumsum(~same)])
    return order[np.lexsort((absent, numbers, times, groups))]


def _is_null(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    out: npt.NDArray[np.bool_] = column.is_null().to_numpy()
    return out


_SAME_THROUGHOUT = ("exchange", "asset_class", "kafka_topic", "kafka_epoch")
"""Of one feed and topic incarnation; the hard rules see to the first two."""


def _taken(feed: Feed, rows: pa.Table, order: pa.Array) -> pa.Table:
    """The rows in this order, which holds each of them once: a column of one value stays as it is."""
    columns = [
        column if name in _SAME_THROUGHOUT or column.null_count == len(rows) else column.take(order)
        for name, column in zip(rows.column_names, rows.columns, strict=True)
    ]
    return pa.table(columns, schema=feed.table.arrow_schema())
