"""Rows no commit holds yet, as data files of their table: same schema, same field ids, same bounds; nowhere named.

Belongs here: writing them beside the lake and describing them as its manifests would. Which rows, and who may see
them, is the caller's. They are scratch: not synced, gone with whoever holds them.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2_core.contracts import Table
from k2_core.protocol.ports import Head
from k2_resources.lake.catalog import Lake
from k2_resources.lake.durable import ROW_GROUP_ROWS, Written
from k2_resources.lake.files import DataFileEntry, file_entry
from k2_resources.lake.layout import data_file, layout_of


@dataclass(frozen=True)
class Base:
    """One load of a table's head: what rows are judged against, and the snapshot it is. location: tells two apart."""

    head: Head
    snapshot_id: int | None
    location: str


def base_of(lake: Lake, table: Table) -> Base:
    """Load the head. Raises NotFound, Unreachable."""
    head = lake.head(table)
    snapshot = head.loaded.current_snapshot()
    return Base(head, snapshot.snapshot_id if snapshot else None, str(head.loaded.metadata_location))


class _Scratch:
    """A file that goes when nobody refers to it any more."""

    def __init__(self, path: Path) -> None:
        weakref.finalize(self, path.unlink, missing_ok=True)


@dataclass(frozen=True)
class ScratchFile(DataFileEntry):
    """A data file of uncommitted rows; the file lives as long as this entry."""

    scratch: object = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, entry: DataFileEntry, path: Path) -> Self:
        stated: dict[str, Any] = {f.name: getattr(entry, f.name) for f in fields(entry)}
        return cls(**{**stated, "scratch": _Scratch(path)})


def write_uncommitted(at: Head, rows: pa.Table, folder: Path) -> tuple[ScratchFile, ...]:
    """Write contract rows of a table to a folder, one file for each of its partitions, as a commit at `at` would."""
    return tuple(_written(at, part, folder) for part in _parts(at.table, rows))


def _parts(table: Table, rows: pa.Table) -> Iterator[pa.Table]:
    if table.partition is None:
        yield rows
        return
    values = rows[table.partition]
    days = pc.unique(values)
    for day in days:
        yield rows if len(days) == 1 else rows.filter(pc.equal(values, day))


def _written(at: Head, rows: pa.Table, folder: Path) -> ScratchFile:
    layout, path = layout_of(at.loaded), folder / f"{uuid.uuid4().hex}.parquet"
    with pq.ParquetWriter(
        path, layout.schema, compression="lz4", use_dictionary=False, write_statistics=layout.bounded
    ) as writer:
        writer.write_table(rows.select(layout.schema.names).cast(layout.schema), row_group_size=ROW_GROUP_ROWS)
    written = Written(str(path), len(rows), path.stat().st_size, "", writer.writer.metadata)
    return ScratchFile.of(file_entry(at.loaded, data_file(at.loaded, written)), path)
