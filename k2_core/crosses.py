"""Crossed books of a day, judged where all its states are known: on the last state of each instant.

A venue updates one side after the other, so a book may look crossed in one message and not in the next of the same
instant. A batch does not know what comes next; the flag of a stored row therefore speaks of its one message, and what a
cross amounted to is decided here, over all quotes of the symbols and dates asked about.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.exchange_dates import local_times
from k2_core.scopes import Scopes
from k2_core.sessions import Sessions, within
from k2_core.summaries import total_order

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Crosses:
    """Per quote, in the order given. crossed: bid above ask. continuous: while its symbol trades continuously.

    replaced: a later state of the same symbol and instant follows.
    """

    crossed: Mask
    continuous: Mask
    replaced: Mask

    @property
    def standing(self) -> Mask:
        """Crossed in continuous trading, and so the book was left: what a finding is."""
        return self.crossed & self.continuous & ~self.replaced


def crosses(quotes: pa.Table, sessions: Sessions | None) -> Crosses:
    """Judge the crossed states of one exchange. quotes: newest revisions, any order. sessions: None = always trades.

    Every state of an instant must be among them; the total order says which is its last.
    """
    bid, ask = quotes["bid_price"], quotes["ask_price"]
    crossed = pc.fill_null(pc.greater(bid, ask), False).to_numpy()
    return Crosses(crossed, _continuous(quotes, sessions), _replaced(quotes))


def _continuous(quotes: pa.Table, sessions: Sessions | None) -> Mask:
    if sessions is None:
        return np.ones(len(quotes), bool)
    scopes = Scopes.of(quotes["symbol"])
    local = local_times(_microseconds(quotes), sessions.timezone)
    return within(sessions.continuous, scopes.names, scopes.codes, local)


def _replaced(quotes: pa.Table) -> Mask:
    codes = Scopes.of(quotes["symbol"]).codes
    order = total_order(quotes).to_numpy()
    order = order[np.argsort(codes[order], kind="stable")]
    times, symbols = _microseconds(quotes)[order], codes[order]
    replaced = np.zeros(len(quotes), bool)
    replaced[order[:-1]] = (times[1:] == times[:-1]) & (symbols[1:] == symbols[:-1])
    return replaced


def _microseconds(quotes: pa.Table) -> npt.NDArray[np.int64]:
    out: npt.NDArray[np.int64] = quotes["timestamp"].cast(pa.int64()).to_numpy()
    return out
