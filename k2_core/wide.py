"""Exact sums beyond 64 bits, vectorised: numbers in limbs of 30 bits, so that billions of them add up without carrying.

Numbers are not negative. Limbs have shape (k, n), int64, the lowest first; a limb may have grown beyond its 30 bits
until `carried` puts it right. 128 bits hold what a decimal of 38 digits can.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Int64s = npt.NDArray[np.int64]
Limbs = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LIMB_BITS = 30
_LIMB = (1 << LIMB_BITS) - 1
_LIMBS = 5
"""150 bits: 128 and room to see what is beyond them."""


def units_of(decimals: pa.ChunkedArray) -> Int64s:
    """Decimals of at most 18 digits in units of the last one; what a null becomes is not said."""
    return _words(decimals)[:, 0]


def limbs_of(values: Int64s) -> Limbs:
    """Integers as limbs."""
    return np.stack([values & _LIMB, (values >> LIMB_BITS) & _LIMB, values >> 2 * LIMB_BITS])


def limbs_of_decimals(decimals: pa.ChunkedArray) -> Limbs:
    """Decimals of up to 38 digits, in units of the last one, as limbs; a null is 0."""
    words = _words(decimals).view(np.uint64)
    low, high = words[:, 0], words[:, 1]
    limbs = np.stack(
        [
            low & _LIMB,
            (low >> 30) & _LIMB,
            (low >> 60) | ((high & ((1 << 26) - 1)) << 4),
            (high >> 26) & _LIMB,
            high >> 56,
        ]
    ).view(np.int64)
    if decimals.null_count:
        limbs[:, decimals.is_null().to_numpy()] = 0
    return limbs


def products(a: Int64s, b: Int64s) -> Limbs:
    """a x b. Both below 2^60."""
    a0, a1, b0, b1 = a & _LIMB, a >> LIMB_BITS, b & _LIMB, b >> LIMB_BITS
    low, middle, high = a0 * b0, a0 * b1 + a1 * b0, a1 * b1
    return np.stack(
        [
            low & _LIMB,
            (low >> LIMB_BITS) + (middle & _LIMB),
            (middle >> LIMB_BITS) + (high & _LIMB),
            high >> LIMB_BITS,
        ]
    )


def summed(limbs: Limbs, starts: npt.NDArray[np.intp]) -> Limbs:
    """Sums of consecutive numbers. starts: where each sum begins, ascending, the first 0; none of them is empty."""
    out: Limbs = np.add.reduceat(limbs, starts, axis=1)
    return out


def added(one: Limbs, other: Limbs) -> Limbs:
    """one + other, of as many limbs as the longer has."""
    shorter, longer = sorted((one, other), key=len)
    out = longer.copy()
    out[: len(shorter)] += shorter
    return out


def integers(limbs: Limbs) -> list[int]:
    """Limbs as Python's integers."""
    low, high = _halves(_carried(limbs))
    return [(h << 64) | one for h, one in zip(high.tolist(), low.tolist(), strict=True)]


def decimals_of(limbs: Limbs, type_: pa.Decimal128Type) -> pa.Array:
    """Limbs, in units of the last digit, as decimals; null where the type has too few digits."""
    carried = _carried(limbs)
    low, high = _halves(carried)
    most = 10**type_.precision
    most_low, most_high = np.uint64(most & (2**64 - 1)), most >> 64
    fits = (high < most_high) | ((high == most_high) & (low < most_low))
    return _from_words(low.view(np.int64), high.view(np.int64), type_, ~(fits & (carried[4] < 1 << 7)))


def decimals_from(values: Int64s, type_: pa.Decimal128Type, absent: Mask | None = None) -> pa.Array:
    """Integers, in units of the last digit, as decimals; null where absent."""
    return _from_words(values, np.zeros(len(values), np.int64), type_, absent)


def ratios(numerators: Sequence[int], denominators: Sequence[int]) -> tuple[Int64s, Mask]:
    """numerator / denominator, rounded half to even, and where there is none because the denominator is 0."""
    pairs = zip(numerators, denominators, strict=True)
    # one expression, since a bar has two of these: a half is added, and taken back where it made an even number odd
    found = [(2 * n + d) // (2 * d) - (not (2 * n + d) % (2 * d) and not n // d & 1) if d else -1 for n, d in pairs]
    values = np.array(found, np.int64)
    return values, values < 0


def narrow_ratios(numerators: Int64s, denominators: Int64s) -> Int64s:
    """The same of 64-bit integers, no denominator 0 or above 2^62."""
    whole, rest = np.divmod(numerators, denominators)
    out: Int64s = whole + ((2 * rest > denominators) | ((2 * rest == denominators) & (whole & 1 == 1)))
    return out


def _carried(limbs: Limbs) -> Limbs:
    out = np.zeros((_LIMBS, limbs.shape[1]), np.int64)
    out[: len(limbs)] = limbs
    for i in range(_LIMBS - 1):
        out[i + 1] += out[i] >> LIMB_BITS
        out[i] &= _LIMB
    return out


def _halves(carried: Limbs) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The low and the high 64 bits."""
    limbs = carried.astype(np.uint64)
    low = limbs[0] | (limbs[1] << 30) | (limbs[2] << 60)
    high = (limbs[2] >> 4) | (limbs[3] << 26) | (limbs[4] << 56)
    return low, high


def _words(decimals: pa.ChunkedArray) -> Int64s:
    """Decimals as pairs of 64 bits, the low one first, shape (n, 2)."""
    array = decimals.combine_chunks() if isinstance(decimals, pa.ChunkedArray) else decimals
    words = np.frombuffer(array.buffers()[1], np.int64).reshape(-1, 2)
    return words[array.offset : array.offset + len(array)]


def _from_words(low: Int64s, high: Int64s, type_: pa.Decimal128Type, absent: Mask | None) -> pa.Array:
    words = np.ascontiguousarray(np.stack([low, high], axis=1))
    validity = None
    if absent is not None and absent.any():
        validity = pa.py_buffer(np.packbits(~absent, bitorder="little"))
    return pa.Array.from_buffers(type_, len(low), [validity, pa.py_buffer(words)])
