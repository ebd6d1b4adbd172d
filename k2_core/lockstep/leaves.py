"""Types without parts of their own: what each reads from its lanes, and the Arrow array that becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2_core.frames import Longs
from k2_core.lockstep.columns import Building, Parts, Values, check_utf8, copied, fixed_width, repeated
from k2_core.lockstep.lanes import Block, Lanes, Mask, Words
from k2_core.quality import Reason

DECIMAL_BYTES_MAX = 16
"""What decimal128 holds; a longer one has more digits than any contract."""
_WORD_BYTES = 8
_LONG_DIGITS = 18
"""Every decimal of so many digits fits int64."""
_INT64 = np.iinfo(np.int64)
_INT32_MAX = np.iinfo(np.int32).max
_EXACT = Context(prec=100)


@dataclass(frozen=True)
class Boolean:
    name: str

    @property
    def type(self) -> pa.DataType:
        return pa.bool_()

    def read(self, lanes: Lanes) -> Values:
        return Values(self, (lanes.booleans(self.name),))

    def array(self, parts: Parts, valid: pa.Buffer | None, building: Building, order: Longs | None) -> pa.Array:
        values = _ordered(parts[0], order)
        bits = pa.py_buffer(np.packbits(values, bitorder="little"))
        return pa.Array.from_buffers(self.type, len(values), [valid, bits])


@dataclass(frozen=True)
class Number:
    """int, long, float or double of the writer, promoted. times: what one unit is in the reader's (1,000 for ms)."""

    name: str
    wire: str
    type: pa.DataType
    times: int = 1

    def read(self, lanes: Lanes) -> Values:
        if self.wire == "int":
            wire: npt.NDArray[Any] = lanes.ints(self.name)
        elif self.wire == "long":
            wire = self._longs(lanes)
        else:
            words = lanes.words()
            lanes.at = lanes.at + (8 if self.wire == "double" else 4)
            wire = words.view(np.float64) if self.wire == "double" else words.astype(np.uint32).view(np.float32)
        return Values(self, (wire.astype(self._stored, copy=False),))

    def _longs(self, lanes: Lanes) -> Longs:
        values = lanes.longs(self.name)
        if self.times == 1:
            return values
        edge = _INT64.max // self.times
        bad = (values > edge) | (values < -edge)
        if bad.any():
            lanes.fail(bad, Reason.UNDECODABLE, lambda i: f"{self.name} {values[i]} does not fit 64 bits")
        return values * self.times

    @property
    def _stored(self) -> npt.DTypeLike:
        if pa.types.is_timestamp(self.type):
            return np.int64
        return np.int32 if pa.types.is_date32(self.type) else self.type.to_pandas_dtype()

    def array(self, parts: Parts, valid: pa.Buffer | None, building: Building, order: Longs | None) -> pa.Array:
        values = _ordered(parts[0], order)
        return fixed_width(self.type, values, valid, len(values))


@dataclass(frozen=True)
class Text:
    """string or bytes of the writer, as the reader's string or bytes. Parts: starts and lengths in the block."""

    name: str
    type: pa.DataType

    def read(self, lanes: Lanes) -> Values:
        lengths = lanes.lengths(self.name)
        starts = lanes.at
        lanes.at = starts + lengths
        return Values(self, (starts, lengths))

    def array(self, parts: Parts, valid: pa.Buffer | None, building: Building, order: Longs | None) -> pa.Array:
        starts, lengths = parts
        n = len(starts if order is None else order)
        same = _same_text(starts, lengths, building.block)
        pieces = copied(starts, lengths, building.block, order) if same is None else repeated(same, n)
        array = pa.Array.from_buffers(self.type, n, [valid, *pieces])
        if pa.types.is_string(self.type):
            check_utf8(array, self.name, building)
        return array


@dataclass(frozen=True)
class FixedBytes:
    name: str
    size: int

    @property
    def type(self) -> pa.DataType:
        return pa.binary(self.size)

    def read(self, lanes: Lanes) -> Values:
        starts = lanes.at
        lanes.at = starts + self.size
        return Values(self, (starts, np.full(len(lanes), self.size)))

    def array(self, parts: Parts, valid: pa.Buffer | None, building: Building, order: Longs | None) -> pa.Array:
        """Absent ones get bytes too: a fixed array has a place for each."""
        starts = _ordered(parts[0], order)
        _, content = copied(starts, np.full(len(starts), self.size), building.block)
        return pa.Array.from_buffers(self.type, len(starts), [valid, content])


@dataclass(frozen=True)
class Choice:
    """An enum. codes: the reader's symbol for each of the writer's, -1 for one it neither has nor takes for another."""

    name: str
    written: tuple[str, ...]
    symbols: tuple[str, ...]
    codes: tuple[int, ...]

    @property
    def type(self) -> pa.DataType:
        return pa.string()

    def read(self, lanes: Lanes) -> Values:
        index = lanes.choices(self.name, len(self.written))
        codes = np.array(self.codes, np.int32).take(index, mode="clip")
        if codes.min(initial=0) < 0:
            detail = f"none of {self.symbols}"
            lanes.fail(codes < 0, Reason.UNDECODABLE, lambda i: f"{self.name} {self.written[index[i]]!r} is {detail}")
        return Values(self, (codes,))

    def array(self, parts: Parts, valid: pa.Buffer | None, building: Building, order: Longs | None) -> pa.Array:
        codes = _ordered(parts[0], order)
        if codes.min(initial=_INT32_MAX) == codes.max(initial=0):
            pieces = repeated(self.symbols[codes[0]].encode(), len(codes))
        else:
            _, *pieces = _texts(self.symbols).take(pa.array(codes)).buffers()
        return pa.Array.from_buffers(self.type, len(codes), [valid, *pieces])


@dataclass(frozen=True)
class Exact:
    """A decimal in bytes, or in a fixed of `size`. Parts: the unscaled value, and its upper half beyond 18 digits."""

    name: str
    precision: int
    scale: int
    size: int | None = None

    @property
    def type(self) -> pa.DataType:
        return pa.decimal128(self.precision, self.scale)

    def read(self, lanes: Lanes) -> Values:
        sizes = np.full(len(lanes), self.size) if self.size else lanes.lengths(self.name)
        if sizes.min(initial=1) < 1 or sizes.max(initial=1) > DECIMAL_BYTES_MAX:
            bad = (sizes < 1) | (sizes > DECIMAL_BYTES_MAX)
            lanes.fail(bad, Reason.DECIMAL_OVERFLOW, lambda i: self._of_bytes(int(sizes[i])))
        starts = lanes.at
        lanes.at = starts + sizes
        if self.precision <= _LONG_DIGITS and sizes.max(initial=1) <= _WORD_BYTES:
            parts: tuple[Longs, ...] = (_signed(lanes, starts, sizes),)
        else:
            parts = _wide(lanes, starts, sizes)
        if not self._is_within(*parts):
            bad = self._beyond(*parts)
            lanes.fail(bad, Reason.DECIMAL_OVERFLOW, lambda i: self._too_large(i, *parts))
        return Values(self, parts[:1] if self.precision <= _LONG_DIGITS else parts)

    def _is_within(self, low: Longs, high: Longs | None = None) -> bool:
        """Whether no value has more digits than the precision, told without looking at each."""
        limit = 10**self.precision
        return high is None and low.max(initial=0) < limit and low.min(initial=0) > -limit

    def _beyond(self, low: Longs, high: Longs | None = None) -> Mask:
        """Which values have more digits than the precision."""
        limit = 10**self.precision
        if self.precision > _LONG_DIGITS:
            assert high is not None, "values of more than 18 digits have two words"
            return ~_less(high, low, limit) | _less(high, low, 1 - limit)
        beyond: Mask = (low >= limit) | (low <= -limit)
        if high is not None:
            beyond |= high != low >> 63
        return beyond

    def _of_bytes(self, size: int) -> str:
        return f"{self.name} is a decimal of {size} bytes; expected 1 to {DECIMAL_BYTES_MAX}"

    def _too_large(self, i: int, low: Longs, high: Longs | None = None) -> str:
        unscaled = int(low[i]) if high is None else (int(high[i]) << 64) + int(low[i : i + 1].view(np.uint64)[0])
        value = Decimal(unscaled).scaleb(-self.scale, _EXACT)
        return f"{self.name} {value} does not fit decimal({self.precision},{self.scale})"

    def array(self, parts: Parts, valid: pa.Buffer | None, building: Building, order: Longs | None) -> pa.Array:
        low = _ordered(parts[0], order)
        words = np.empty((len(low), 2), np.int64)
        words[:, 0] = low
        words[:, 1] = _ordered(parts[1], order) if len(parts) > 1 else low >> 63
        return pa.Array.from_buffers(self.type, len(low), [valid, pa.py_buffer(words)])


def _ordered(part: npt.NDArray[Any], order: Longs | None) -> npt.NDArray[Any]:
    return part if order is None else part[order]


@lru_cache(maxsize=64)
def _texts(symbols: tuple[str, ...]) -> pa.Array:
    return pa.array(symbols, pa.string())


def _same_text(starts: Longs, lengths: Longs, block: Block) -> bytes | None:
    """The text every lane holds, where all hold one of at most eight bytes, as columns that name a place do."""
    if not len(lengths) or lengths[0] > _WORD_BYTES or lengths[0] != lengths[-1]:
        return None
    size, ends = int(lengths[0]), (int(starts[0]), int(starts[-1]))
    first, last = (block.data[at : at + size].tobytes() for at in ends)
    if first != last or (lengths != size).any():
        return None
    words = block.words[np.minimum(starts, block.word_last)]
    words &= np.uint64((1 << 8 * size) - 1)
    return first if (words == np.uint64(int.from_bytes(first, "little"))).all() else None


def _signed(lanes: Lanes, starts: Longs, sizes: Longs) -> Longs:
    """Big-endian two's complement of 1 to 8 bytes. A size of 0 gives nonsense, which its lane has died of."""
    words = lanes.words(starts).byteswap().view(np.int64)
    words >>= 8 * (_WORD_BYTES - sizes)
    return words


def _wide(lanes: Lanes, starts: Longs, sizes: Longs) -> tuple[Longs, Longs]:
    """Big-endian two's complement of 1 to 16 bytes as its lower and upper eight."""
    short = sizes <= _WORD_BYTES
    low = _signed(lanes, starts, np.minimum(sizes, _WORD_BYTES))
    upper = _signed(lanes, starts, np.clip(sizes - _WORD_BYTES, 1, _WORD_BYTES))
    lower: Words = lanes.words(np.maximum(starts + sizes - _WORD_BYTES, 0)).byteswap()
    return np.where(short, low, lower.view(np.int64)), np.where(short, low >> 63, upper)


def _less(high: Longs, low: Longs, limit: int) -> Mask:
    """Whether a value of two words is below a limit."""
    limit_high, limit_low = limit >> 64, np.uint64(limit & (1 << 64) - 1)
    below: Mask = (high < limit_high) | ((high == limit_high) & (low.view(np.uint64) < limit_low))
    return below
