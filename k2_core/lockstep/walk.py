"""One value after another in plain Python: for the few lanes whose lists go on when the others have ended."""

from __future__ import annotations

from collections.abc import Callable

from k2_core.lockstep.types import Array, Enum, Fixed, Map, Primitive, Record, Type, Union
from k2_core.quality import Reason

VARINT_BITS_MAX = 63
"""The last byte of the longest varint starts at bit 63 and may hold that bit only."""
_WIDTHS = {"null": 0, "boolean": 1, "float": 4, "double": 8}


class Malformed(ValueError):
    """What a walk met."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """A zigzag varint and where it ends. Raises Malformed."""
    value = shift = 0
    while True:
        if at >= end:
            raise Malformed(Reason.TRUNCATED, "the record ends inside an integer")
        byte = data[at]
        at += 1
        if shift == VARINT_BITS_MAX and byte > 1:
            raise Malformed(Reason.UNDECODABLE, "an integer of more than 64 bits")
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7


def skip(type_: Type, data: memoryview, at: int, end: int) -> int:
    """Where the value that starts here ends. Raises Malformed."""
    if isinstance(type_, Record):
        for field in type_.fields:
            at = skip(field.type, data, at, end)
        return at
    if isinstance(type_, Union):
        branch, at = varint(data, at, end)
        if not 0 <= branch < len(type_.branches):
            raise Malformed(Reason.UNDECODABLE, f"branch {branch} of {len(type_.branches)}")
        return skip(type_.branches[branch], data, at, end)
    if isinstance(type_, Array):
        return list_end(data, at, end, lambda here: skip(type_.items, data, here, end))
    if isinstance(type_, Map):
        return list_end(data, at, end, lambda here: skip(type_.values, data, _text(data, here, end), end))
    return _skip_leaf(type_, data, at, end)


def list_end(data: memoryview, at: int, end: int, item: Callable[[int], int], *, left: int = 0, claim: int = -1) -> int:
    """Where an array or map ends. left, claim: items and end of the block already begun, -1 for no claim."""
    while True:
        if left == 0:
            if claim not in (-1, at):
                raise Malformed(Reason.UNDECODABLE, "a block is not as long as it says")
            left, claim, at = _block(data, at, end)
            if left == 0:
                return at
        at = item(at)
        left -= 1


def _block(data: memoryview, at: int, end: int) -> tuple[int, int, int]:
    """Items, end where it is claimed, and first item of the block that starts here."""
    count, at = varint(data, at, end)
    if count >= 0:
        return count, -1, at
    size, at = varint(data, at, end)
    if not 0 <= size <= end - at:
        raise Malformed(Reason.TRUNCATED, f"a block claims {size} bytes, the record has {end - at} left")
    return -count, at + size, at


def _skip_leaf(type_: Primitive | Fixed | Enum, data: memoryview, at: int, end: int) -> int:
    if isinstance(type_, Enum):
        index, at = varint(data, at, end)
        if not 0 <= index < len(type_.symbols):
            raise Malformed(Reason.UNDECODABLE, f"symbol {index} of {len(type_.symbols)}")
        return at
    if isinstance(type_, Primitive):
        if type_.kind in ("bytes", "string"):
            return _text(data, at, end)
        if type_.kind in ("int", "long"):
            value, at = varint(data, at, end)
            if type_.kind == "int" and not -(1 << 31) <= value < 1 << 31:
                raise Malformed(Reason.UNDECODABLE, f"{value} does not fit 32 bits")
            return at
        if type_.kind == "boolean" and at < end and data[at] > 1:
            raise Malformed(Reason.UNDECODABLE, f"the boolean {data[at]:#04x}")
    size = type_.size if isinstance(type_, Fixed) else _WIDTHS[type_.kind]
    return _inside(at + size, end)


def _text(data: memoryview, at: int, end: int) -> int:
    length, at = varint(data, at, end)
    if length < 0:
        raise Malformed(Reason.UNDECODABLE, f"the length {length}")
    return _inside(at + length, end)


def _inside(at: int, end: int) -> int:
    if at > end:
        raise Malformed(Reason.TRUNCATED, "the record ends inside a field")
    return at
