"""Many lines read in step: a cursor on each, and a mask of those that are still as plain as expected.

Nothing here decides what a line means: a line that is not plain is only told apart, and read by the parser of its kind.
A cursor whose line failed goes on over foreign bytes; it is never looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from k2_core.frames import Bytes, Longs, words_of
from k2_feeds.values import SCALE

PAD_BYTES = 1024
"""Zeros behind the last line: more than every cursor together goes past the end of a line that is not plain."""
TEXT_BYTES_MAX = 16
"""Two words; a longer symbol is rare enough to be read alone."""

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_EIGHT = 8
_ONES = np.uint64(0x0101010101010101)
_HIGHS = np.uint64(0x8080808080808080)
_ZEROS = np.uint64(0x3030303030303030)
_SIXES = np.uint64(0x0606060606060606)
_UPPER_HALVES = np.uint64(0xF0F0F0F0F0F0F0F0)
_LOWER_CASE = np.uint64(0x2020202020202020)
_KEPT = np.array([(1 << 8 * k) - 1 for k in range(_EIGHT)] + [(1 << 64) - 1], np.uint64)
"""By a number of bytes: the word that keeps as many."""
_POWERS = np.array([10**k for k in range(19)], np.int64)


@dataclass(frozen=True)
class Texts:
    """A piece of each line. words: its first 16 bytes, zeros behind its end."""

    starts: Longs
    lengths: Longs
    words: tuple[Words, Words]

    def some(self, index: Longs) -> Texts:
        return Texts(self.starts[index], self.lengths[index], (self.words[0][index], self.words[1][index]))

    def is_lower_case_of(self, other: Texts) -> Mask:
        """Whether a piece is the other in lower case. Only where the other has nothing but A to Z and 0 to 9."""
        same: Mask = self.lengths == other.lengths
        for done, own, upper in zip((0, _EIGHT), self.words, other.words, strict=True):
            same &= own == (upper | _LOWER_CASE & _KEPT[np.clip(other.lengths - done, 0, _EIGHT)])
        return same


class Scan:
    """Cursors over lines. data: the bytes of all, PAD_BYTES zeros behind them; at: where each cursor stands."""

    def __init__(self, data: Bytes, at: Longs, words: Words | None = None) -> None:
        self.data = data
        self.at = at
        self.words = words_of(data) if words is None else words
        self.plain: Mask = np.ones(len(at), np.bool_)

    def some(self, index: Longs) -> Self:
        """Cursors of their own where some of these stand; all of them plain so far."""
        return type(self)(self.data, self.at[index], self.words)

    def word(self) -> Words:
        """The eight bytes at each cursor."""
        return self.words[self.at]

    def literal(self, text: bytes) -> None:
        """Expect these bytes."""
        for done in range(0, len(text), _EIGHT):
            expected = text[done : done + _EIGHT]
            self.plain &= is_at(self.words[self.at + done], expected)
        self.at = self.at + len(text)

    def choice(self, first: bytes, second: bytes) -> Mask:
        """Expect one of two texts of at most eight bytes. Returns which lines have the first."""
        word = self.word()
        is_first = is_at(word, first)
        self.plain &= is_first | is_at(word, second)
        self.at = self.at + np.where(is_first, len(first), len(second))
        return is_first

    def digits(self, most: int) -> tuple[Longs, Longs]:
        """Expect 1 to `most` digits, at most 18. Returns their value and their number."""
        value, number = _digits(self.word())
        for done in range(_EIGHT, most, _EIGHT):
            if number.max(initial=0) < done:
                break
            more, further = _digits(self.words[self.at + done])
            further = np.where(number == done, further, 0)
            value = np.where(further > 0, value * _POWERS[further] + more, value)
            number = number + further
        self.plain &= (number > 0) & (number <= most)
        self.at = self.at + number
        return value, number

    def whole(self, most: int) -> tuple[Longs, Longs]:
        """Expect an integer as JSON writes it: no zero before another digit. Returns value and number of digits."""
        leading_zero = self.word() & np.uint64(0xFF) == np.uint64(ord("0"))
        value, number = self.digits(most)
        self.plain &= ~leading_zero | (number == 1)
        return value, number

    def decimal(self) -> Longs:
        """Expect up to ten digits, a point, and up to eight digits. Returns the unscaled value of decimal(18,8)."""
        whole, _ = self.digits(10)
        self.literal(b".")
        fraction, number = self.digits(SCALE)
        unscaled: Longs = whole * _POWERS[SCALE] + fraction * _POWERS[SCALE - np.minimum(number, SCALE)]
        return unscaled

    def until(self, end: bytes) -> Texts:
        """Expect one character within 16 bytes. Returns what lies before it; the cursor then stands on it."""
        starts, wanted = self.at, _ONES * np.uint64(end[0])
        first, second = self.word(), self.words[self.at + _EIGHT]
        lengths = _before(first, wanted)
        lengths = np.where(lengths == _EIGHT, _EIGHT + _before(second, wanted), lengths)
        self.plain &= lengths < TEXT_BYTES_MAX
        self.at = starts + lengths
        kept = first & _KEPT[np.minimum(lengths, _EIGHT)], second & _KEPT[np.maximum(lengths - _EIGHT, 0)]
        return Texts(starts, lengths, kept)


def is_at(word: Words, expected: bytes) -> Mask:
    """Which words begin with these bytes, at most eight."""
    same: Mask = word & _KEPT[len(expected)] == np.uint64(int.from_bytes(expected, "little"))
    return same


def _digits(word: Words) -> tuple[Longs, Longs]:
    """Value and number of the digits a word begins with, in the order of its bytes."""
    digits = word ^ _ZEROS
    # what a carry spoils lies behind the first byte that is no digit
    others = (digits | (digits + _SIXES)) & _UPPER_HALVES
    lowest = others & -others
    number = (np.bitwise_count(lowest - np.uint64(1)) >> 3).astype(np.int64)
    packed = digits << (8 * (_EIGHT - number)).astype(np.uint64)  # the digits last, zeros before them
    packed = (packed * np.uint64(10) + (packed >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    packed = (packed * np.uint64(100) + (packed >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    packed = (packed * np.uint64(10_000) + (packed >> np.uint64(32))) & np.uint64(0x00000000FFFFFFFF)
    return packed.view(np.int64), number


def _before(word: Words, wanted: Words | np.uint64) -> Longs:
    """Bytes of a word before the first that is wanted; eight where it has none. wanted: eight times that byte."""
    other = word ^ wanted
    found = (other - _ONES) & ~other & _HIGHS
    lowest = found & -found
    return (np.bitwise_count(lowest - np.uint64(1)) >> 3).astype(np.int64)
