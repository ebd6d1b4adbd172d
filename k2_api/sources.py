"""What a question reads and what it selects, as steps of one SQL statement and the values they bind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import cached_property
from typing import Any

from k2_api.pinning import Pinned
from k2_api.plans import FIRST_DATE, LAST_DATE, Span
from k2_api.questions import Revisions, Ticks, View
from k2_api.texts import composed
from k2_core.contracts import Table
from k2_core.offsets import Offsets
from k2_core.projections import duckdb_type
from k2_core.quality import DOUBTFUL_FLAGS, Flag
from k2_core.windows import from_us
from k2_resources.duck import Statement, parquet_paths
from k2_resources.lake.files import DataFileEntry, FieldIds

EXCLUDED: dict[View, Flag] = {
    "raw": Flag(0),
    "clean": DOUBTFUL_FLAGS,
    "eligible": Flag.VENDOR_EXCLUDED,
}
"""Flags whose rows each view leaves out."""
_LARGEST = Decimal(10) ** 18
"""Beyond every price and quantity a column holds, and small enough for the type that compares them."""
_STEP = Decimal("1e-8")
"""The last digit of prices and quantities."""


@dataclass(frozen=True)
class Source:
    """What a question reads: the files that may hold its symbols, and which rows of them count.

    below: the C their rows must be below, if any. field_ids: by which columns are found, where the files differ.
    """

    table: Table
    files: tuple[DataFileEntry, ...]
    below: Offsets | None = None
    field_ids: FieldIds = ()
    revisions: Revisions = "latest"

    @cached_property
    def corrected(self) -> tuple[DataFileEntry, ...]:
        """The files that hold corrections; where there are none, nothing is decided about revisions."""
        return tuple(f for f in self.files if f.revised)

    def over(self, body: str, **steps: str) -> Statement:
        """A statement of k2_core/sql over `rows`: the revisions asked for, below C. steps: further ones, in order."""
        return composed(body, **self._rows(), **steps)

    def values(self) -> dict[str, Any]:
        """What the steps of `rows` bind, but for the files and symbols."""
        positions = sorted(self.below.positions.items()) if self.below else []
        return {
            "columns": self._columns(),
            "corrected_files": parquet_paths(f.path for f in self.corrected),
            "topics": [topic for (topic, _), _ in positions],
            "kafka_partitions": [partition for (_, partition), _ in positions],
            "epochs": [at.epoch for _, at in positions],
            "nexts": [at.next for _, at in positions],
        }

    def _rows(self) -> dict[str, str]:
        decided = {"latest": "newest_rows", "first": "first_rows"}.get(self.revisions) if self.corrected else None
        stored = "stored" if decided else "rows"
        steps = {"below": "below"} if self.below is not None else {}
        steps |= self._read("stored", "in_files", stored)
        if decided == "newest_rows":
            steps |= self._read("corrections", "corrections_in_files", "corrections")
        return {**steps, "rows": decided} if decided else steps

    def _read(self, text: str, in_files: str, name: str) -> dict[str, str]:
        read = f"{text}_by_id" if self.field_ids else text
        return {name: read} if self.below is None else {in_files: read, name: f"{text}_below"}

    def _columns(self) -> dict[str, list[Any]]:
        """A map of field ids as DuckDB takes one."""
        types = {column.name: duckdb_type(column.type) for column in self.table.columns}
        columns = [{"name": name, "type": types[name], "default_value": None} for name, _ in self.field_ids]
        return {"key": [field_id for _, field_id in self.field_ids], "value": columns}


def source_of(pinned: Pinned, symbols: tuple[str, ...] = (), revisions: Revisions = "latest") -> Source:
    """What a question about some symbols reads of a state; none is all of them."""
    return Source(pinned.table, pinned.plan.holding(symbols), pinned.below, pinned.field_ids, revisions)


def reading(files: Sequence[DataFileEntry], span: Span) -> dict[str, Any]:
    """The values of one stretch of a read: its files and its bounds."""
    return {
        "files": parquet_paths(f.path for f in files),
        "start": from_us(span.start_us),
        "end": from_us(span.end_us),
        "date_start": None if span.date_start == FIRST_DATE else span.date_start,
        "date_end": None if span.date_end == LAST_DATE else span.date_end,
    }


def steps_of(ticks: Ticks) -> dict[str, str]:
    """The steps that select the rows of a question; those of trades only where it asks for them."""
    return {"chosen": "selected", "selected": "prints"} if _asks_for_prints(ticks) else {"selected": "selected"}


def values_of(ticks: Ticks) -> dict[str, Any]:
    """What the steps of a question bind, but for its range."""
    return {
        "symbols": list(ticks.symbols) or None,
        "exchanges": list(ticks.exchanges) or None,
        "excluded_flags": int(EXCLUDED[ticks.view]) or None,
        "sides": list(ticks.sides) or None,
        "conditions": list(ticks.conditions) or None,
        "price_min": _bound(ticks.price_min, ROUND_CEILING),
        "price_max": _bound(ticks.price_max, ROUND_FLOOR),
        "quantity_min": _bound(ticks.quantity_min, ROUND_CEILING),
        "quantity_max": _bound(ticks.quantity_max, ROUND_FLOOR),
    }


def _asks_for_prints(ticks: Ticks) -> bool:
    bounds = (ticks.price_min, ticks.price_max, ticks.quantity_min, ticks.quantity_max)
    return bool(ticks.sides or ticks.conditions) or any(bound is not None for bound in bounds)


def _bound(value: Decimal | None, rounding: str) -> str | None:
    """A bound in the digits a column has, rounded so that it selects exactly the same rows."""
    if value is None:
        return None
    within = max(-_LARGEST, min(_LARGEST, value))
    return f"{within.quantize(_STEP, rounding=rounding):f}"
