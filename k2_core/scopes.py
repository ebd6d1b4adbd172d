"""Rows of one batch by the scope of their ids, the symbol: encoded once, shared by everything that goes by symbol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Places = npt.NDArray[np.int64]
"""Indices into the rows of a batch."""


@dataclass(frozen=True)
class Scopes:
    """The symbols of a batch and who belongs to them.

    names: ascending. codes: per row the place of its symbol in names. order: all rows, symbol by symbol, arrival order
    within each; those of names[i] are order[bounds[i]:bounds[i + 1]], never none.
    """

    names: list[str]
    codes: npt.NDArray[np.int32]
    order: Places
    bounds: Places

    @classmethod
    def of(cls, symbols: pa.ChunkedArray) -> Scopes:
        """Encode a column of symbols."""
        encoded = symbols.combine_chunks().dictionary_encode()
        names = encoded.dictionary.to_pylist()
        ascending = sorted(range(len(names)), key=names.__getitem__)
        rank = np.empty(len(names), np.int32)
        rank[ascending] = np.arange(len(names), dtype=np.int32)
        return cls._grouped([names[i] for i in ascending], rank[encoded.indices.to_numpy()])

    def kept(self, places: Places) -> Scopes:
        """The scopes of some of the rows."""
        present, codes = dense(self.codes[places])
        return self._grouped([self.names[i] for i in present.tolist()], codes.astype(np.int32))

    @classmethod
    def _grouped(cls, names: list[str], codes: npt.NDArray[np.int32]) -> Scopes:
        # numpy sorts 16-bit integers by radix, eight times as fast as wider ones
        narrow = codes.astype(np.uint16) if len(names) <= np.iinfo(np.uint16).max else codes
        order = np.argsort(narrow, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))])
        return cls(names, codes, order, bounds.astype(np.int64))

    def by_name(self, values: list[str]) -> pa.Array:
        """One value a name, spread over the rows."""
        return pa.array(values, pa.string()).take(pa.array(self.codes))


_TABLE_MAX = 1 << 20
"""Cells of a look-up table that is still faster than sorting a batch."""


def dense(values: npt.NDArray[np.signedinteger[Any]]) -> tuple[Places, Places]:
    """The different values ascending, and for each value its place among them; fast where they lie close together."""
    if not len(values):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    low, high = int(values.min()), int(values.max())
    if high - low >= _TABLE_MAX:
        present, which = np.unique(values.astype(np.int64), return_inverse=True)
        return present, which
    offsets = values - low
    held = np.bincount(offsets) > 0
    return np.flatnonzero(held) + low, (np.cumsum(held) - 1)[offsets]
