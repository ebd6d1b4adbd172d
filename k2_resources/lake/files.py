"""Data files as a reader chooses among them: where each is, and the bounds of what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.types import PrimitiveType

from k2_core.offsets import Offsets

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FieldIds = tuple[tuple[str, int], ...]
"""Column of a contract and its Iceberg field id, which stays when a column is renamed."""


@dataclass(frozen=True)
class DataFileEntry:
    """One data file with the bounds that decide whether a query needs it. Bounds are wide, never narrow."""

    path: str
    rows: int
    size_bytes: int
    exchange_date: date | None
    timestamp_min: datetime | None
    timestamp_max: datetime | None
    symbol_min: str | None
    symbol_max: str | None
    revised: bool


@dataclass(frozen=True)
class Extent:
    """Files that hold every row of one snapshot. below: they hold later rows, too; only those below this C are its.

    field_ids: by which columns are found, where the files may differ in them; none where all are alike.
    """

    files: tuple[DataFileEntry, ...]
    below: Offsets | None
    field_ids: FieldIds = ()


def file_entry(loaded: IcebergTable, file: DataFile) -> DataFileEntry:
    """Describe a data file by the bounds its manifest states."""
    lowest, highest = ColumnBounds(loaded, file.lower_bounds), ColumnBounds(loaded, file.upper_bounds)
    day, revision = lowest.of("exchange_date"), highest.of("revision")
    return DataFileEntry(
        path=file.file_path,
        rows=file.record_count,
        size_bytes=file.file_size_in_bytes,
        exchange_date=None if day is None else _EPOCH.date() + timedelta(days=day),
        timestamp_min=lowest.instant("timestamp"),
        timestamp_max=highest.instant("timestamp"),
        symbol_min=lowest.of("symbol"),
        symbol_max=highest.of("symbol"),
        revised=revision is None or revision > 0,
    )


class ColumnBounds:
    """The bounds of one data file by column name."""

    def __init__(self, loaded: IcebergTable, bounds: dict[int, bytes] | None) -> None:
        self._fields = {field.name: field for field in loaded.schema().fields}
        self._bounds = bounds or {}

    def of(self, name: str) -> Any:
        """The bound of a column; None where the column or its bound is not there."""
        field = self._fields.get(name)
        raw = self._bounds.get(field.field_id) if field else None
        if field is None or raw is None:
            return None
        assert isinstance(field.field_type, PrimitiveType), "only primitive columns have bounds"
        return from_bytes(field.field_type, raw)

    def instant(self, name: str) -> datetime | None:
        microseconds = self.of(name)
        return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)
