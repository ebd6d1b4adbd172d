"""Fields of source records as exact values. A field that is not what it must be raises Unusable."""

from __future__ import annotations

import re
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation
from functools import lru_cache

from k2_core.identity import symbol_problem
from k2_feeds.outcomes import Refusal, Unusable

SCALE = 8
"""Fractional digits of every price and quantity: decimal(18,8)."""
LIMIT = Decimal(10) ** 10
"""First value decimal(18,8) cannot hold."""
ID_MAX = 2**63 - 1
"""Largest id an int64 column holds."""

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_NUMBER_CHARACTERS_MAX = 64
"""Four times what decimal(18,8) can hold; longer text is not a number of a market."""
_REMEMBERED = 1 << 16
"""Texts whose values are kept: prices and sizes of a market repeat, and reading one is the costliest step of a line."""
_EXACT = Context(prec=80, Emin=-9_999, Emax=9_999, traps=[Inexact, InvalidOperation])
"""Wide enough for every accepted text, so that a digit too many is seen and never rounded away."""
_STEP = Decimal(1).scaleb(-SCALE)


def number(value: object, name: str) -> Decimal:
    """A finite decimal from text or from a JSON number, at most 8 decimals and below 10^10 in size."""
    if type(value) is str:
        return _from_text(value, name)
    if type(value) is int or type(value) is Decimal:
        return _fitting(Decimal(value), name)
    raise Unusable(Refusal.WRONG_TYPE, f"{name} is {_shown(value)}, expected a decimal")


@lru_cache(maxsize=_REMEMBERED)
def _from_text(text: str, name: str) -> Decimal:
    if len(text) > _NUMBER_CHARACTERS_MAX or not _NUMBER.fullmatch(text):
        raise Unusable(Refusal.NOT_A_NUMBER, f"{name} is {_shown(text)}, expected a decimal")
    return _fitting(Decimal(text), name)


def _fitting(found: Decimal, name: str) -> Decimal:
    """The value as decimal(18,8) can hold it."""
    if not found.is_finite():
        raise Unusable(Refusal.NOT_A_NUMBER, f"{name} is {found}")
    if not -LIMIT < found < LIMIT:  # comparing is exact at any exponent; abs() would overflow
        raise Unusable(Refusal.DECIMAL_OVERFLOW, f"{name} is {_shown(found)}, decimal(18,8) ends below 10^10")
    if found.as_tuple().exponent < -SCALE:  # type: ignore[operator]  # finite: the exponent is an int
        return _at_scale(found, name)
    return found


def positive(value: object, name: str) -> Decimal:
    """A number above 0."""
    found = number(value, name)
    if found <= 0:
        raise Unusable(Refusal.NOT_POSITIVE, f"{name} is {_shown(value)}, expected more than 0")
    return found


def side(price: object, size: object, name: str) -> tuple[Decimal, Decimal] | tuple[None, None]:
    """Price and size of one side of a quote; a pair of zeros means nobody is there."""
    pair = number(price, f"{name} price"), number(size, f"{name} size")
    if min(pair) < 0:
        raise Unusable(Refusal.NOT_POSITIVE, f"{name} is {_shown(price)} x {_shown(size)}, expected at least 0")
    if not any(pair):
        return None, None
    if not all(pair):
        raise Unusable(Refusal.HALF_A_SIDE, f"{name} is {_shown(price)} x {_shown(size)}: one of the two is zero")
    return pair


def whole(value: object, name: str) -> int:
    """An integer; true and false are none."""
    if type(value) is not int:
        raise Unusable(Refusal.WRONG_TYPE, f"{name} is {_shown(value)}, expected an integer")
    return value


def identifier(value: object, name: str) -> int:
    """An id in [0, 2^63)."""
    found = whole(value, name)
    if not 0 <= found <= ID_MAX:
        raise Unusable(Refusal.BAD_ID, f"{name} is {_shown(value)}, expected 0 to 2^63 - 1")
    return found


def symbol(value: object) -> str:
    """A symbol that can be part of a key."""
    if not isinstance(value, str):
        raise Unusable(Refusal.WRONG_TYPE, f"symbol is {_shown(value)}, expected text")
    problem = symbol_problem(value)
    if problem:
        raise Unusable(Refusal.BAD_SYMBOL, problem)
    return value


def unscaled(value: Decimal) -> int:
    """The integer decimal(18,8) stores: value times 10^8. Raises decimal.Inexact for more than 8 decimals."""
    return int(_EXACT.quantize(value, _STEP).scaleb(SCALE, _EXACT))


def _at_scale(value: Decimal, name: str) -> Decimal:
    try:
        return _EXACT.quantize(value, _STEP)
    except DecimalException:
        raise Unusable(Refusal.TOO_MANY_DECIMALS, f"{name} is {value!s:.40}, at most {SCALE} decimals fit") from None


def _shown(value: object) -> str:
    """A value for a message: short, whatever its size, and never converting a huge integer to decimal text."""
    if type(value) is int and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
