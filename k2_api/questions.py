"""What is asked of a tick table, in the engine's own words: whatever route or format it came by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from k2_core.windows import FIRST_US, LAST_US

View = Literal["raw", "clean", "eligible"]
Revisions = Literal["latest", "first", "all"]


@dataclass(frozen=True)
class At:
    """Which state of a table is asked for; one member at most is set, none is the head.

    version: digest of C. as_of: the last C committed at or before that instant.
    """

    snapshot_id: int | None = None
    version: str | None = None
    as_of: datetime | None = None
    tag: str | None = None

    @property
    def is_head(self) -> bool:
        return self == HEAD


HEAD = At()


@dataclass(frozen=True)
class Ticks:
    """Rows of one tick table: which, in which order, and how they are shown.

    symbols, exchanges, sides: any of them; empty = all. conditions: rows that carry any of these codes.
    [start_us, end_us): event time, µs since the epoch. Bounds of price and quantity are inclusive; a quote has none.
    fields: names of shown columns, in contract order whatever the order given; empty = all. limit: None = every row.
    """

    symbols: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    start_us: int = FIRST_US
    end_us: int = LAST_US
    view: View = "raw"
    revisions: Revisions = "latest"
    sides: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    price_min: Decimal | None = None
    price_max: Decimal | None = None
    quantity_min: Decimal | None = None
    quantity_max: Decimal | None = None
    descending: bool = True
    limit: int | None = 100
    fields: tuple[str, ...] = ()
    decimals: Literal["string", "number"] = "string"
