"""Avro fields of many rows at once: how many bytes each takes, and those bytes put where they belong.

Eight bytes are written at a time. What a word writes past the end of its value is written over by the next field of its
row, so fields are written in their order, and GAP_BYTES lie behind every row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.frames import Longs, words_of
from k2_core.tables import Column

GAP_BYTES = 16
"""Two words: no value is written further past its end."""
TEXT_BYTES_MAX = 256
"""Longer texts are left to others: copying takes a step for every eight bytes of the longest."""
ITEMS_MAX = 8
"""Likewise lists of more items: every further item is a step for all rows."""

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
_VARINT_FROM = np.array([1 << 7 * k for k in range(1, 10)], np.uint64)
"""Smallest value that takes one byte more, from two bytes on."""
_GOES_ON = np.array([0] + [0x8080808080808080 & ((1 << 8 * min(k - 1, 8)) - 1) for k in range(1, 11)], np.uint64)
"""By the bytes of a varint: the bits that say it goes on, of its first eight bytes."""
_EIGHT_BYTES_BITS = np.uint64(56)
_SPREAD = tuple(
    (np.uint64(low), np.uint64(high), np.uint64(shift))
    for low, high, shift in (
        (0x000000000FFFFFFF, 0x00FFFFFFF0000000, 4),
        (0x00003FFF00003FFF, 0x0FFFC0000FFFC000, 2),
        (0x007F007F007F007F, 0x3F803F803F803F80, 1),
    )
)
"""Opens a gap of one bit after every seven, in three steps."""
_SECOND_BRANCH = np.uint64(2)
"""Of a union, the one that is not null; zigzag."""
_DECIMAL_FROM = np.array([1 << 8 * k - 1 for k in range(1, 8)], np.int64)
"""Smallest size of a decimal that takes one byte more, from two bytes on."""


class Field(Protocol):
    """One field of n rows. sizes: bytes of each, shape (n,), or one number for all."""

    @property
    def sizes(self) -> Longs | int: ...

    def write(self, words: Words, at: Longs) -> None:
        """Put the value of each row at its place."""
        ...


def field_of(column: Column, values: pa.Array) -> Field:
    """Make the field of one column. Raises ValueError for a null where none may be, or a word that is no choice."""
    if not values.null_count:
        field = _encoding(column)(values)
        return _Present(field) if column.nullable else field
    if not column.nullable:
        raise ValueError(f"{column.name} holds {values.null_count} nulls, expected none")
    index = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
    inner = _encoding(column)(values.drop_null()) if len(index) else _Steps(0, ())
    return _Optional(index, inner, len(values))


def is_long(values: pa.Array) -> Mask:
    """Which rows hold a text or a list too long to be written in step with the others."""
    if pa.types.is_dictionary(values.type):
        return is_long(values.dictionary)[_numbers(values.indices.fill_null(0))]
    if pa.types.is_string(values.type):
        long: Mask = np.diff(_offsets(values)) > TEXT_BYTES_MAX
        return long
    if pa.types.is_list(values.type):
        return _long_lists(values, values.values)
    if pa.types.is_map(values.type):
        return _long_lists(values, values.keys, values.items)
    return np.zeros(len(values), np.bool_)


def _long_lists(values: pa.Array, *parts: pa.Array) -> Mask:
    offsets = _offsets(values)
    long: Mask = np.diff(offsets) > ITEMS_MAX
    for part in parts:
        items = np.flatnonzero(is_long(part))
        rows = np.searchsorted(offsets, items, side="right") - 1
        long[rows[(rows >= 0) & (rows < len(long))]] = True
    return long


@dataclass(frozen=True)
class _Steps:
    """Values of a few words. steps: distance from the start, and the words there; a later one wins."""

    sizes: Longs | int
    steps: tuple[tuple[int, Words], ...]

    def write(self, words: Words, at: Longs) -> None:
        for distance, word in self.steps:
            words[at + distance] = word


@dataclass(frozen=True)
class _Text:
    """Pieces of one buffer, behind their lengths. source: every eight neighbouring bytes of it."""

    source: Words
    starts: Longs
    lengths: Longs

    @cached_property
    def length(self) -> _Steps:
        return _varints(self.lengths)

    @cached_property
    def sizes(self) -> Longs:
        return self.lengths + self.length.sizes

    def write(self, words: Words, at: Longs) -> None:
        self.length.write(words, at)
        at = at + self.length.sizes
        shortest = int(self.lengths.min(initial=TEXT_BYTES_MAX))
        for done in range(0, int(self.lengths.max(initial=0)), 8):
            if done < shortest:
                words[at + done] = self.source[self.starts + done]
            else:
                index = np.flatnonzero(self.lengths > done)
                words[at[index] + done] = self.source[self.starts[index] + done]

    def some(self, index: Longs) -> _Text:
        return _Text(self.source, self.starts[index], self.lengths[index])


@dataclass(frozen=True)
class _Present:
    """A union with null of which no row is null."""

    inner: Field

    @cached_property
    def sizes(self) -> Longs | int:
        return self.inner.sizes + 1

    def write(self, words: Words, at: Longs) -> None:
        words[at] = _SECOND_BRANCH
        self.inner.write(words, at + 1)


@dataclass(frozen=True)
class _Optional:
    """A union with null. index: the rows that have a value; inner: those values."""

    index: Longs
    inner: Field
    n: int

    @cached_property
    def sizes(self) -> Longs:
        sizes = np.ones(self.n, np.int64)
        sizes[self.index] += self.inner.sizes
        return sizes

    def write(self, words: Words, at: Longs) -> None:
        branches = np.zeros(self.n, np.uint64)
        branches[self.index] = _SECOND_BRANCH
        words[at] = branches
        self.inner.write(words, at[self.index] + 1)


@dataclass(frozen=True)
class _Lists:
    """Arrays and maps, in one block each. offsets: shape (n + 1,); parts: texts of all items, a map's keys first."""

    offsets: Longs
    parts: tuple[_Text, ...]

    @cached_property
    def counts(self) -> Longs:
        return np.diff(self.offsets)

    @cached_property
    def sizes(self) -> Longs:
        sizes = 1 + (self.counts > 0)
        for index, text in self._items:
            sizes[index] += text.sizes
        return sizes

    def write(self, words: Words, at: Longs) -> None:
        words[at] = (2 * self.counts).astype(np.uint64)
        at = at + (self.counts > 0)
        for index, text in self._items:
            text.write(words, at[index])
            at[index] += text.sizes
        words[at] = np.uint64(0)  # no further block

    @cached_property
    def _items(self) -> list[tuple[Longs, _Text]]:
        """The first items of all rows, then the second ones; each with the rows that have it."""
        rounds = [np.flatnonzero(self.counts > number) for number in range(int(self.counts.max(initial=0)))]
        return [
            (index, part.some(self.offsets[:-1][index] + number))
            for number, index in enumerate(rounds)
            for part in self.parts
        ]


def _encoding(column: Column) -> Callable[[pa.Array], Field]:
    if column.choices:
        return lambda values: _choices(values, column)
    if pa.types.is_string(column.type):
        return _text
    if pa.types.is_decimal(column.type):
        return _decimals
    if pa.types.is_list(column.type):
        return lambda values: _Lists(_offsets(values), (_text(values.values),))
    if pa.types.is_map(column.type):
        return lambda values: _Lists(_offsets(values), (_text(values.keys), _text(values.items)))
    return lambda values: _varints(_numbers(values))


def _varints(values: Longs) -> _Steps:
    """Zigzag varints."""
    zigzag = ((values << 1) ^ (values >> 63)).view(np.uint64)
    largest = zigzag.max(initial=0)
    if largest < _VARINT_FROM[0]:
        return _Steps(1, ((0, zigzag),))
    sizes: Longs = np.searchsorted(_VARINT_FROM, zigzag, side="right") + 1
    word = zigzag
    if largest >> _EIGHT_BYTES_BITS:
        word = zigzag & np.uint64((1 << 56) - 1)
    for low, high, shift in _SPREAD:
        word = (word & low) | ((word & high) << shift)
    word |= _GOES_ON[sizes]
    if not largest >> _EIGHT_BYTES_BITS:
        return _Steps(sizes, ((0, word),))
    return _Steps(sizes, ((8, _ninth_and_tenth(zigzag, sizes)), (0, word)))


def _ninth_and_tenth(zigzag: Words, sizes: Longs) -> Words:
    """What follows the first eight bytes of a varint."""
    rest = zigzag >> _EIGHT_BYTES_BITS
    goes_on = (sizes > 9).astype(np.uint64) << np.uint64(7)
    tail: Words = (rest & np.uint64(0x7F)) | goes_on | (rest >> np.uint64(7) << np.uint64(8))
    return tail


def _decimals(values: pa.Array) -> _Steps:
    """The length of the unscaled value, then its bytes, highest first. It fits eight bytes: 18 digits."""
    wide = np.frombuffer(values.buffers()[1], np.int64).reshape(-1, 2)
    unscaled = wide[values.offset :][: len(values), 0]
    sizes = np.searchsorted(_DECIMAL_FROM, np.abs(unscaled), side="right") + 1
    highest_first = (unscaled << 8 * (8 - sizes)).byteswap().view(np.uint64)
    return _Steps(sizes + 1, ((0, (2 * sizes).astype(np.uint64)), (1, highest_first)))


def _choices(values: pa.Array, column: Column) -> _Steps:
    coded = pa.types.is_dictionary(values.type)
    places = pc.index_in(values.dictionary if coded else values, pa.array(column.choices, pa.string()))
    if coded:
        places = places.take(values.indices)
    if places.null_count:
        found = values.filter(places.is_null())[0].as_py()
        raise ValueError(f"{column.name} is {found!r}, expected one of {column.choices}")
    return _Steps(1, ((0, (2 * _numbers(places)).astype(np.uint64)),))


def _text(values: pa.Array) -> _Text:
    if pa.types.is_dictionary(values.type):
        return _text(values.dictionary).some(_numbers(values.indices))
    offsets = _offsets(values)
    end = int(offsets[-1])
    padded = np.zeros(end + 16, np.uint8)
    if end:
        padded[:end] = np.frombuffer(values.buffers()[2], np.uint8, end)
    return _Text(words_of(padded), offsets[:-1], np.diff(offsets))


def _offsets(values: pa.Array) -> Longs:
    """Where the text or the list of each row begins in its content, and where the last one ends."""
    if not len(values):
        return np.zeros(1, np.int64)
    return np.frombuffer(values.buffers()[1], np.int32)[values.offset :][: len(values) + 1].astype(np.int64)


def _numbers(values: pa.Array) -> Longs:
    stored: npt.NDArray[Any] = np.frombuffer(values.buffers()[1], f"i{values.type.bit_width // 8}")
    return stored[values.offset :][: len(values)].astype(np.int64)
