"""What reading leaves behind: positions and numbers per lane, turned into Arrow arrays once a slice has no fault.

Text is never touched by numpy: an Arrow take copies it from the joined bytes straight into its column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2_core.frames import Longs
from k2_core.lockstep.lanes import Block, Fault, Mask
from k2_core.quality import Reason

Parts = tuple[npt.NDArray[Any], ...]


@dataclass
class Building:
    """One slice on its way to Arrow. bad: row -> what is wrong with its text, found only now.

    offsets: while the items of a list are built, where those of each row begin.
    """

    block: Block
    bad: dict[int, Fault] = field(default_factory=dict)
    offsets: npt.NDArray[np.int32] | None = None

    def reject(self, at: int, fault: Fault) -> None:
        row = at if self.offsets is None else int(np.searchsorted(self.offsets, at, side="right")) - 1
        self.bad.setdefault(row, fault)


class Column(Protocol):
    """n values of one type."""

    def __len__(self) -> int: ...

    def spread(self, n: int, at: Longs) -> Column:
        """The same values at some of n places, null at all others."""
        ...

    def array(self, building: Building) -> pa.Array: ...


class Leaf(Protocol):
    """A type without parts of its own: how its values become an Arrow array."""

    @property
    def type(self) -> pa.DataType: ...

    def array(self, parts: Parts, valid: pa.Buffer | None, building: Building, order: Longs | None) -> pa.Array: ...


@dataclass(frozen=True)
class Values:
    """Values of a leaf type. parts: arrays of shape (m,) whose meaning the leaf knows; valid: None = no nulls.

    order: shape (n,), places in them; None where they already lie in order.
    """

    leaf: Leaf
    parts: Parts
    valid: Mask | None = None
    order: Longs | None = None

    def __len__(self) -> int:
        return len(self.parts[0] if self.order is None else self.order)

    def spread(self, n: int, at: Longs) -> Values:
        valid = np.zeros(n, np.bool_)
        valid[at] = True if self.valid is None else self.valid
        parts = tuple(np.zeros(n, part.dtype) for part in self.parts)
        for whole, part in zip(parts, self.parts, strict=True):
            whole[at] = part
        return Values(self.leaf, parts, valid)

    def taken(self, at: Longs) -> Values:
        valid = None if self.valid is None else self.valid[at]
        return Values(self.leaf, tuple(part[at] for part in self.parts), valid)

    def settled(self) -> Values:
        """The same with its parts in order."""
        return self if self.order is None else self.taken(self.order)

    def array(self, building: Building) -> pa.Array:
        valid = self.valid if self.valid is None or self.order is None else self.valid[self.order]
        return self.leaf.array(self.parts, bitmap(valid), building, self.order)


def in_order(leaf: Leaf, rounds: Sequence[Values], order: Longs | None) -> Values:
    """Values of several rounds as one column. order: of each place, where its value is among all rounds'."""
    if len(rounds) == 1:
        return replace(rounds[0], order=order)
    parts = tuple(np.concatenate(of_rounds) for of_rounds in zip(*(v.parts for v in rounds), strict=True))
    if all(v.valid is None for v in rounds):
        return Values(leaf, parts, order=order)
    valid = [np.ones(len(v), np.bool_) if v.valid is None else v.valid for v in rounds]
    return Values(leaf, parts, np.concatenate(valid), order)


@dataclass(frozen=True)
class Constant:
    """One value n times: the default of a field the writer does not have. value: an array of length 1."""

    value: pa.Array
    n: int

    def __len__(self) -> int:
        return self.n

    def spread(self, n: int, at: Longs) -> Constant:
        return Constant(self.value, n)

    def array(self, building: Building) -> pa.Array:
        return self.value.take(pa.array(np.zeros(self.n, np.int32)))


@dataclass(frozen=True)
class Lists:
    """Arrays and maps. counts: items per lane; items, keys: of all lanes, one lane after the other."""

    type: pa.DataType
    counts: Longs
    items: Values | None
    keys: Values | None = None
    valid: Mask | None = None

    def __len__(self) -> int:
        return len(self.counts)

    def spread(self, n: int, at: Longs) -> Lists:
        counts, valid = np.zeros(n, np.int64), np.zeros(n, np.bool_)
        counts[at] = self.counts
        valid[at] = True if self.valid is None else self.valid
        return Lists(self.type, counts, self.items, self.keys, valid)

    def array(self, building: Building) -> pa.Array:
        n = len(self)
        offsets = np.zeros(n + 1, np.int32)
        np.cumsum(self.counts, out=offsets[1:])
        building.offsets = offsets
        if pa.types.is_map(self.type):
            parts = [_child(self.keys, pa.string(), building), _child(self.items, self.type.item_type, building)]
            items = pa.StructArray.from_arrays(parts, fields=[self.type.key_field, self.type.item_field])
        else:
            items = _child(self.items, self.type.value_type, building)
        building.offsets = None
        return pa.Array.from_buffers(self.type, n, [bitmap(self.valid), pa.py_buffer(offsets)], children=[items])


def _child(values: Values | None, type_: pa.DataType, building: Building) -> pa.Array:
    return pa.array([], type_) if values is None else values.array(building)


@dataclass(frozen=True)
class Struct:
    """Nested records. children: one column per field, n long also where the record is null."""

    type: pa.StructType
    children: tuple[Column, ...]
    n: int
    valid: Mask | None = None

    def __len__(self) -> int:
        return self.n

    def spread(self, n: int, at: Longs) -> Struct:
        valid = np.zeros(n, np.bool_)
        valid[at] = True if self.valid is None else self.valid
        return Struct(self.type, tuple(child.spread(n, at) for child in self.children), n, valid)

    def array(self, building: Building) -> pa.Array:
        children = [child.array(building) for child in self.children]
        return pa.Array.from_buffers(self.type, self.n, [bitmap(self.valid)], children=children)


def bitmap(valid: Mask | None) -> pa.Buffer | None:
    """Arrow's validity bits."""
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))


def fixed_width(type_: pa.DataType, values: npt.NDArray[Any], valid: pa.Buffer | None, n: int) -> pa.Array:
    """An array over numbers as they are."""
    return pa.Array.from_buffers(type_, n, [valid, pa.py_buffer(np.ascontiguousarray(values))])


def copied(starts: Longs, lengths: Longs, block: Block, order: Longs | None = None) -> tuple[pa.Buffer, pa.Buffer]:
    """Pieces of the joined bytes, one after the other: their offsets (int32, n + 1) and the bytes. order: which first.

    The offsets of a binary array alternate between the pieces and what lies between them; taking every other value
    copies the pieces. The last offset is never followed: it tells Arrow how many bytes the taken ones will have.
    """
    n = len(starts)
    offsets = np.empty(2 * n + 1, np.int32)
    offsets[0:-1:2] = starts
    np.add(starts, lengths, out=offsets[1::2], casting="unsafe")
    offsets[-1] = min(int(offsets[0]) + 2 * int(lengths.sum()), len(block.data)) if n else 0
    whole = pa.Array.from_buffers(pa.binary(), 2 * n, [None, pa.py_buffer(offsets), pa.py_buffer(block.data)])
    taken = whole.take(_every_other(n) if order is None else pa.array(2 * order))
    _, lying, content = taken.buffers()
    return lying, content if content is not None else pa.py_buffer(b"")


@lru_cache(maxsize=4)
def _every_other(n: int) -> pa.Array:
    """0, 2, 4 and so on, n of them."""
    return pa.array(np.arange(0, 2 * n, 2, dtype=np.int32))


def repeated(content: bytes, n: int) -> tuple[pa.Buffer, pa.Buffer]:
    """One text n times, as `copied` gives pieces."""
    offsets = np.arange(n + 1, dtype=np.int32)
    offsets *= len(content)
    return pa.py_buffer(offsets), pa.py_buffer(content * n)


def check_utf8(array: pa.Array, name: str, building: Building) -> None:
    """Reject every row whose text is not UTF-8."""
    _, offsets, content = array.buffers()
    end = int(np.frombuffer(offsets, np.int32)[len(array)]) if len(array) else 0
    if np.frombuffer(content, np.uint8, end).max(initial=0) < 128:
        return
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        for at, value in enumerate(array.cast(pa.binary()).to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError as error:
                building.reject(at, (Reason.UNDECODABLE, f"{name}: byte {error.start} of the text is not UTF-8"))
