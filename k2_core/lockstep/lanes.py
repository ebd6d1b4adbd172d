"""One cursor per record, all moving in step over the same bytes.

A lane that meets something malformed is recorded as a fault and parked on zero bytes behind the last record: zeros read
as empty values, so the others go on as if it were not there. Nothing is reserved that a record merely claims.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from k2_core.frames import PAD_BYTES, Bytes, Frames, Longs, words_of
from k2_core.quality import Reason

Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]
Fault = tuple[Reason, str]

_ONE, _TWO = np.uint64(1), np.uint64(2)
_MORE = np.uint64(0x8080808080808080)
"""The bit of each byte that says the varint goes on."""
_SEVEN = np.uint64(0x7F7F7F7F7F7F7F7F)
_ODD_SEVENS = np.uint64(0x7F007F007F007F00)
_ODD_FOURTEENS = np.uint64(0x3FFF00003FFF0000)
_UPPER_TWENTY_EIGHT = np.uint64(0x0FFFFFFF00000000)
_FOUR = np.uint64(4)
_SHORT = np.array([(b >> 1) ^ -(b & 1) for b in range(128)], np.int64)
"""What a varint of one byte means, zigzag undone."""
_LONG_FROM = 128
"""A byte that is not the last of its varint."""
_WORD_BYTES = 8
_LANES_FEW = 4
"""Where fewer than one lane in four has a longer varint, the others keep the one-byte way."""


class Block:
    """The bytes of one slice and the faults found in it. faults: row -> the first thing found wrong with it."""

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.words = words_of(data)
        self.word_last = len(self.words) - 1
        self.parking = len(data) - PAD_BYTES + 8
        self.faults: dict[int, Fault] = {}

    @property
    def view(self) -> memoryview:
        """The bytes for plain Python."""
        return self.data.data


class Lanes:
    """Cursors of some rows of a block. at, ends: positions in its bytes; rows: which row each lane belongs to.

    Arrays handed out are never written to again: every step makes a new `at`.
    """

    __slots__ = ("at", "block", "ends", "rows")

    def __init__(self, block: Block, at: Longs, ends: Longs, rows: Longs) -> None:
        self.block, self.at, self.ends, self.rows = block, at, ends, rows

    @classmethod
    def over(cls, frames: Frames) -> Lanes:
        """A lane for every frame."""
        return cls(Block(frames.data), frames.starts.copy(), frames.ends.copy(), np.arange(len(frames)))

    def __len__(self) -> int:
        return len(self.at)

    def some(self, index: Longs) -> Lanes:
        """Lanes of their own at the places of some of these."""
        return Lanes(self.block, self.at[index], self.ends[index], self.rows[index])

    def put(self, index: Longs, moved: Lanes) -> None:
        """Move these lanes to where some of them went on their own."""
        self.at[index] = moved.at
        if self.block.faults:
            self.ends[index] = moved.ends

    def fail(self, bad: Mask, reason: Reason, detail: Callable[[int], str]) -> None:
        """Record a fault for each lane that is bad, and park it. A cursor past its end has read what is not its own."""
        index = np.flatnonzero(bad)
        faults = self.block.faults
        for i in index.tolist():
            if (row := int(self.rows[i])) not in faults:
                past = self.at[i] > self.ends[i]
                faults[row] = (Reason.TRUNCATED, "the record ends inside a field") if past else (reason, detail(i))
        self.at[index] = self.ends[index] = self.block.parking

    @property
    def is_parked(self) -> Mask:
        parked: Mask = self.at >= self.block.parking
        return parked

    def byte(self) -> Bytes:
        """The byte under each cursor."""
        return self.block.data.take(self.at, mode="clip")

    def words(self, at: Longs | None = None) -> Words:
        """Eight bytes from each cursor, or from other places, the first one lowest."""
        places = self.at if at is None else at
        return self.block.words[np.minimum(places, self.block.word_last)]

    def short(self) -> Bytes | None:
        """Varints as they lie there, zigzag not undone, if each is one byte; None, and nothing moved, if not."""
        first = self.byte()
        if first.max(initial=0) >= _LONG_FROM:
            return None
        self.at = self.at + 1
        return first

    def varints(self, name: str) -> Longs:
        """Zigzag varints, most of them of one byte."""
        if (short := self.short()) is not None:
            return _SHORT.take(short)
        first = self.byte()
        longer = np.flatnonzero(first >= _LONG_FROM)
        if len(longer) * _LANES_FEW > len(self):
            return self.longs(name)
        sub = self.some(longer)
        values = _SHORT.take(first, mode="clip")
        values[longer] = sub.longs(name)
        self.at = self.at + 1
        self.put(longer, sub)
        return values

    def longs(self, name: str) -> Longs:
        """Zigzag varints of any length. One of more than ten bytes or 64 bits is a fault."""
        word = self.words()
        goes_on = word & _MORE
        width = _same_width(goes_on)
        if width:
            word &= _SEVEN >> np.uint64(8 * (_WORD_BYTES - width))
            self.at = self.at + width
        else:
            stops = goes_on ^ _MORE
            lowest = stops & -stops
            kept = lowest - _ONE
            kept ^= lowest
            word &= kept
            word &= _SEVEN
            self.at = self.at + (np.bitwise_count(kept) >> 3)
        _pack(word)
        if not width and not lowest.all():
            self._ninth_and_tenth(np.flatnonzero(lowest == 0), word, name)
        sign = word & _ONE
        word >>= _ONE
        word ^= -sign
        return word.view(np.int64)

    def _ninth_and_tenth(self, index: Longs, word: Words, name: str) -> None:
        """Bits 56 to 63 of varints whose first eight bytes all go on."""
        sub = self.some(index)
        ninth = sub.byte().astype(np.uint64)
        goes_on = ninth > 127
        sub.at = sub.at + 1
        tenth = np.where(goes_on, sub.byte(), 0).astype(np.uint64)
        sub.at = sub.at + goes_on
        word[index] |= (ninth & np.uint64(127)) << np.uint64(56) | (tenth & _ONE) << np.uint64(63)
        bad = tenth > _ONE
        if bad.any():
            sub.fail(bad, Reason.UNDECODABLE, lambda i: f"{name} is an integer of more than 64 bits")
        self.put(index, sub)

    def ints(self, name: str) -> Longs:
        """Varints of the type int. One beyond 32 bits is a fault."""
        if (short := self.short()) is not None:
            return _SHORT.take(short)
        values = self.varints(name)
        bad = values != values.astype(np.int32)
        if bad.any():
            self.fail(bad, Reason.UNDECODABLE, lambda i: f"{name} {values[i]} does not fit 32 bits")
        return values

    def lengths(self, name: str) -> Longs:
        """Lengths of what follows each cursor, none of them negative or, where long, beyond the record.

        A short one may reach past the end of its record, but no further than _LONG_FROM / 2 bytes.
        """
        short = self.short()
        if short is not None and not (short & 1).any():
            return _SHORT.take(short)
        values = self.varints(name) if short is None else _SHORT.take(short)
        if values.min(initial=0) < 0:
            self.fail(values < 0, Reason.UNDECODABLE, lambda i: f"{name} has the length {values[i]}")
        bad = values > self.ends - self.at
        if bad.any():
            self.fail(
                bad, Reason.TRUNCATED, lambda i: f"{name} claims {values[i]} bytes, more than the record has left"
            )
        return np.where(self.is_parked, 0, values) if self.block.faults else values

    def choices(self, name: str, count: int) -> Bytes | Longs:
        """Branches of a union or symbols of an enum: numbers from 0, below count."""
        short = self.short()
        if short is not None and short.max(initial=0) < 2 * count and not (short & 1).any():
            return short >> 1
        values = self.varints(name) if short is None else _SHORT.take(short)
        bad = (values < 0) | (values >= count)
        if bad.any():
            self.fail(bad, Reason.UNDECODABLE, lambda i: f"{name} is choice {values[i]} of {count}")
        return values

    def booleans(self, name: str) -> Bytes:
        """Zero or one, a byte each; any other byte is a fault."""
        values = self.byte()
        if values.max(initial=0) > 1:
            self.fail(values > 1, Reason.UNDECODABLE, lambda i: f"{name} is the boolean {values[i]:#04x}")
        self.at = self.at + 1
        return values

    def check_inside(self) -> None:
        """Fail every lane whose cursor has passed its end."""
        past = self.at > self.ends
        if past.any():
            self.fail(past, Reason.TRUNCATED, lambda i: "the record ends inside a field")


def _same_width(goes_on: Words) -> int:
    """Bytes of every lane's varint where all are alike, at most eight; else 0. goes_on: the bits that say so."""
    if not len(goes_on):
        return 0
    first = int(goes_on[0])
    stop = ~first & int(_MORE)
    below = (stop & -stop) - 1 if stop else 0
    if not below or not ((goes_on & np.uint64(below * 2 + 1)) == np.uint64(first & below)).all():
        return 0
    return below.bit_length() // 8 + 1


def _pack(word: Words) -> None:
    """Close the gaps between eight groups of seven bits, in place."""
    high = word & _ODD_SEVENS
    high >>= _ONE
    word -= high
    for shift, mask in ((_TWO, _ODD_FOURTEENS), (_FOUR, _UPPER_TWENTY_EIGHT)):
        high = word & mask
        word ^= high
        high >>= shift
        word |= high
