"""What a market gives the simulated exchange to publish: trades and best quotes, in whole numbers of 1e-8."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

UNIT = 100_000_000
"""Parts of one unit of price or quantity: Binance writes eight decimals."""


@dataclass(frozen=True, slots=True)
class Print:
    """One trade. at_us: event time at which it is sent; time_us: its trade time; price and quantity in 1e-8."""

    symbol: str
    at_us: int
    trade_id: int
    time_us: int
    price: int
    quantity: int
    buyer_is_maker: bool


@dataclass(frozen=True, slots=True)
class Quote:
    """One best bid and ask, in 1e-8; a side nobody is on is a pair of zeros."""

    symbol: str
    at_us: int
    update_id: int
    bid: int
    bid_quantity: int
    ask: int
    ask_quantity: int


Tick = Print | Quote


def units(value: Decimal | None) -> int:
    """Turn a decimal of at most eight places into whole 1e-8; nothing is 0."""
    return 0 if value is None else int(value.scaleb(8))


def text(value: int) -> str:
    """Write whole 1e-8 as Binance does, always with eight decimals."""
    return f"{value // UNIT}.{value % UNIT:08d}"
