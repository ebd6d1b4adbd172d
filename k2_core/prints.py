"""Trades as numbers, symbol by symbol in the total order, with what each may update: what bars are computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.conditions import Conditions, Update, Updates
from k2_core.scopes import Scopes, dense
from k2_core.screen import int64s
from k2_core.wide import Int64s, units_of

COLUMNS = (
    "symbol",
    "exchange",
    "exchange_date",
    "timestamp",
    "source_sequence",
    "platform_sequence",
    "message_id",
    "price",
    "quantity",
    "trade_conditions",
    "quality_flags",
)
"""What of a trade a bar depends on."""
_ABSENT = -(2**63)
"""A sequence nobody states sorts below every number."""
_PACKED_MAX = 2**62
"""Symbol and time in one integer sort in one pass."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Prints:
    """Trades in order. symbols, exchanges: names; scopes: per print symbol x exchange, as one number.

    days: since 1970-01-01. price, quantity: in units of 1e-8. ids: of the source, -2^63 without one. places: of each
    print in the rows given. Scopes ascend by symbol, then exchange; within one the total order holds.
    """

    symbols: list[str]
    exchanges: list[str]
    scopes: Int64s
    days: Int64s
    at_us: Int64s
    price: Int64s
    quantity: Int64s
    ids: Int64s
    allowed: Updates
    places: Int64s

    def __len__(self) -> int:
        return len(self.places)

    def may(self, update: Update) -> Mask:
        """Which of them may move a statistic."""
        out: Mask = self.allowed & int(update) != 0
        return out


def prints_of(trades: pa.Table, rules: Callable[[str], Conditions]) -> Prints:
    """Put trades in order. trades: COLUMNS, at least one row, any order. rules: the update rules of an exchange."""
    symbols, exchanges = Scopes.of(trades["symbol"]), Scopes.of(trades["exchange"])
    scopes = symbols.codes.astype(np.int64) * len(exchanges.names) + exchanges.codes
    at_us, ids = int64s(trades["timestamp"]), int64s(trades["source_sequence"], _ABSENT)
    order = _total_order(trades, scopes, at_us, ids)
    days = trades["exchange_date"].cast(pa.int32()).to_numpy().astype(np.int64)
    return Prints(
        symbols.names,
        exchanges.names,
        scopes[order],
        days[order],
        at_us[order],
        units_of(trades["price"])[order],
        units_of(trades["quantity"])[order],
        ids[order],
        _allowed(trades, exchanges, rules)[order],
        order,
    )


def changes(*keys: Int64s) -> Int64s:
    """Where one of the keys differs from that of the row before; the first row among them. Keys have a row."""
    differs = np.zeros(len(keys[0]), bool)
    differs[0] = True
    for key in keys:
        differs[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(differs)


def _allowed(trades: pa.Table, exchanges: Scopes, rules: Callable[[str], Conditions]) -> Updates:
    if len(exchanges.names) == 1:
        return rules(exchanges.names[0]).updates(trades)
    allowed = np.zeros(len(trades), np.uint8)
    stated = trades.select(["trade_conditions", "exchange_date", "quality_flags"])
    for code, exchange in enumerate(exchanges.names):
        here = exchanges.order[exchanges.bounds[code] : exchanges.bounds[code + 1]]
        allowed[here] = rules(exchange).updates(stated.take(pa.array(here)))
    return allowed


def _total_order(trades: pa.Table, scopes: Int64s, at_us: Int64s, ids: Int64s) -> Int64s:
    """By scope, then in total order. Files come sorted: mostly a merge that leaves nothing to decide."""
    span = int(at_us.max()) - int(at_us.min()) + 1
    if (int(scopes.max()) + 1) * span < _PACKED_MAX:
        key = scopes * span + (at_us - at_us.min())
    else:
        key = dense(scopes)[1] * len(at_us) + dense(at_us)[1]
    order = np.argsort(key, kind="stable")
    numbers = int64s(trades["platform_sequence"], _ABSENT)
    if (_same(order, key) & ~_ascending(order, ids, numbers)).any():
        order = np.lexsort((numbers, ids, key))
        order = _by_key(trades, order, _same(order, key, ids, numbers))
    return order


def _same(order: Int64s, *keys: Int64s) -> Mask:
    """Of each row but the last: whether the one after it has the same keys."""
    same = np.ones(len(order) - 1, bool)
    for key in keys:
        same &= key[order[1:]] == key[order[:-1]]
    return same


def _ascending(order: Int64s, ids: Int64s, numbers: Int64s) -> Mask:
    before, after = order[:-1], order[1:]
    out: Mask = (ids[after] > ids[before]) | ((ids[after] == ids[before]) & (numbers[after] > numbers[before]))
    return out


def _by_key(trades: pa.Table, order: Int64s, tied: Mask) -> Int64s:
    """The order with ties decided by message_id. tied: of each place but the last, whether it is so with the next."""
    if not tied.any():
        return order
    inside = np.zeros(len(order), bool)
    inside[:-1] |= tied
    inside[1:] |= tied
    places = np.flatnonzero(inside)
    groups = np.cumsum(np.concatenate([[True], ~tied]))[places]
    rows = pa.table({"group": groups, "key": trades["message_id"].take(pa.array(order[places]))})
    ranked = pc.sort_indices(rows, [("group", "ascending"), ("key", "ascending")]).to_numpy()
    decided = order.copy()
    decided[places] = order[places[ranked]]
    return decided
