"""Types with parts: unions with null, arrays and maps of leaves, records."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import pyarrow as pa

from k2_core.frames import Longs
from k2_core.lockstep import walk
from k2_core.lockstep.blocks import Blocks
from k2_core.lockstep.columns import Column, Constant, Lists, Struct, Values, in_order
from k2_core.lockstep.duplicate_keys import last_of_each, suspects
from k2_core.lockstep.lanes import Lanes
from k2_core.lockstep.leaves import Boolean, Choice, Exact, FixedBytes, Number, Text
from k2_core.lockstep.skips import entry, skip
from k2_core.lockstep.types import Type
from k2_core.quality import Reason


class Node(Protocol):
    """How the values of one field of the writer become a column of the reader's type."""

    @property
    def type(self) -> pa.DataType: ...

    def read(self, lanes: Lanes) -> Column: ...


LeafNode = Boolean | Number | Text | FixedBytes | Choice | Exact


@dataclass(frozen=True)
class Default:
    """A field the writer does not have, or has as null. value: array of length 1."""

    value: pa.Array

    @property
    def type(self) -> pa.DataType:
        return self.value.type

    def read(self, lanes: Lanes) -> Column:
        return Constant(self.value, len(lanes))


@dataclass(frozen=True)
class Optional:
    """A union of one type and null, in either order, or of one type alone. null_index: -1 where it has no null."""

    name: str
    inner: Node
    null_index: int
    branches: int
    is_required: bool
    """Whether the reader has no null, which makes a null of the writer a fault."""

    @property
    def type(self) -> pa.DataType:
        return self.inner.type

    def read(self, lanes: Lanes) -> Column:
        taken = lanes.choices(self.name, self.branches)
        null = taken == self.null_index
        if not null.any():
            return self.inner.read(lanes)
        if self.is_required:
            lanes.fail(null, Reason.WRONG_RECORD, lambda i: f"{self.name} is null")
            return self.inner.read(lanes)
        at = np.flatnonzero(~null)
        sub = lanes.some(at)
        values = self.inner.read(sub)
        lanes.put(at, sub)
        return values.spread(len(lanes), at)


@dataclass(frozen=True)
class Listing:
    """An array of leaves, or a map of them. written: the type of an item on the wire; key: None for an array."""

    name: str
    type: pa.DataType
    written: Type
    item: LeafNode | Optional
    key: Text | None = None

    def read(self, lanes: Lanes) -> Lists:
        wire = self.written if self.key is None else entry(self.written)
        blocks = Blocks(lanes, self.name, partial(walk.skip, wire))
        items: list[tuple[Values, Longs, Longs]] = []
        keys: list[Values] = []
        for sub, owners, ordinals in blocks.rounds():
            if self.key is not None:
                keys.append(self.key.read(sub))
            items.append((self._values(sub), owners, ordinals))
        if not items:
            return Lists(self.type, blocks.counts, None)
        rounds = [values for values, _, _ in items]
        order = _order(blocks.counts, [owners for _, owners, _ in items], [ordinals for _, _, ordinals in items])
        values = in_order(rounds[0].leaf, rounds, order)
        if self.key is None:
            return Lists(self.type, blocks.counts, values)
        lists = Lists(self.type, blocks.counts, values, in_order(self.key, keys, order))
        doubtful = suspects([owners for _, owners, _ in items], keys, lanes.block)
        return last_of_each(lists, doubtful, lanes.block) if len(doubtful) else lists

    def _values(self, lanes: Lanes) -> Values:
        values = self.item.read(lanes)
        assert isinstance(values, Values), "the items of a list are leaves"
        return values


def _order(counts: Longs, owners: list[Longs], ordinals: list[Longs]) -> Longs | None:
    """For each item of all lists, one list after the other, its place in the rounds; None where it is its own."""
    firsts = np.cumsum(counts) - counts
    places = np.concatenate([firsts[of_round] + n for of_round, n in zip(owners, ordinals, strict=True)])
    order = np.empty(len(places), np.int64)
    order[places] = np.arange(len(places))
    return None if len(owners) == 1 and (places[1:] > places[:-1]).all() else order


@dataclass(frozen=True)
class Step:
    """One field of the writer. node: None to move past it; place: of the reader's field it fills."""

    name: str
    written: Type
    node: Node | None = None
    place: int = -1


@dataclass(frozen=True)
class RecordNode:
    """A record. steps: in the order of the writer; defaults: place -> what the writer does not have."""

    type: pa.StructType
    steps: tuple[Step, ...]
    defaults: dict[int, Default]

    def read(self, lanes: Lanes) -> Struct:
        columns: dict[int, Column] = {}
        for step in self.steps:
            if step.node is None:
                skip(step.written, lanes, step.name)
            else:
                columns[step.place] = step.node.read(lanes)
        for place, default in self.defaults.items():
            columns[place] = default.read(lanes)
        return Struct(self.type, tuple(columns[place] for place in sorted(columns)), len(lanes))
