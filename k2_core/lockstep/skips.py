"""Moving past values nobody asks for: fields of the writer that the reader does not have, of whatever type.

What the encoding itself says is still checked: lengths, counts, branches, symbols. Text is not.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from k2_core.lockstep import walk
from k2_core.lockstep.blocks import Blocks
from k2_core.lockstep.lanes import Lanes
from k2_core.lockstep.types import (
    Array,
    Enum,
    Field,
    Fixed,
    Map,
    Primitive,
    Record,
    Type,
    Uncovered,
    Union,
    bytes_min,
)


def check_skippable(type_: Type, name: str) -> None:
    """Raise Uncovered for a list whose items take no bytes: a short record could claim any number of them."""
    if isinstance(type_, Array):
        if bytes_min(type_.items) < 1:
            raise Uncovered(f"{name} is an array whose items take no bytes")
        check_skippable(type_.items, name)
    elif isinstance(type_, Map):
        check_skippable(type_.values, name)
    elif isinstance(type_, Union):
        for branch in type_.branches:
            check_skippable(branch, name)
    elif isinstance(type_, Record):
        for field in type_.fields:
            check_skippable(field.type, f"{name}.{field.name}")


def skip(type_: Type, lanes: Lanes, name: str) -> None:
    """Move every lane past one value of a type."""
    if isinstance(type_, Record):
        for field in type_.fields:
            skip(field.type, lanes, f"{name}.{field.name}")
    elif isinstance(type_, Union):
        _skip_union(type_, lanes, name)
    elif isinstance(type_, Array):
        for items, _, _ in Blocks(lanes, name, partial(walk.skip, type_.items)).rounds():
            skip(type_.items, items, name)
    elif isinstance(type_, Map):
        pair = entry(type_.values)
        for items, _, _ in Blocks(lanes, name, partial(walk.skip, pair)).rounds():
            skip(pair, items, name)
    else:
        _skip_leaf(type_, lanes, name)


def entry(values: Type) -> Record:
    """A map's key and value, which lie on the wire as a record would."""
    return Record("entry", (Field("key", Primitive("string")), Field("value", values)))


def _skip_union(type_: Union, lanes: Lanes, name: str) -> None:
    taken = lanes.choices(name, len(type_.branches))
    for number, branch in enumerate(type_.branches):
        index = np.flatnonzero(taken == number)
        if len(index) == len(lanes):
            skip(branch, lanes, name)
        elif len(index):
            sub = lanes.some(index)
            skip(branch, sub, name)
            lanes.put(index, sub)


def _skip_leaf(type_: Primitive | Fixed | Enum, lanes: Lanes, name: str) -> None:
    if isinstance(type_, Enum):
        lanes.choices(name, len(type_.symbols))
    elif isinstance(type_, Fixed):
        lanes.at = lanes.at + type_.size
    elif type_.kind in ("string", "bytes"):
        lengths = lanes.lengths(name)
        lanes.at = lanes.at + lengths
    elif type_.kind == "int":
        lanes.ints(name)
    elif type_.kind == "long":
        lanes.longs(name)
    elif type_.kind == "boolean":
        lanes.booleans(name)
    elif type_.kind != "null":
        lanes.at = lanes.at + (8 if type_.kind == "double" else 4)
