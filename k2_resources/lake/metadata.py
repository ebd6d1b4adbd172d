"""Table metadata, parsed once and shared: a metadata file never changes, so its location says all about its content.

pyiceberg parses the whole file at every load and copies the whole history several times a commit; both grow with
every snapshot kept. Here a load is one row of the catalog, and a commit copies what it changes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Self

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata, TableMetadataV2
from pyiceberg.table.update import TableRequirement, TableUpdate
from sqlalchemy.exc import SQLAlchemyError

from k2_core.errors import Unreachable

KNOWN_MAX = 16
"""Metadata kept in memory: two of each table there is, at most a megabyte each with a hundred snapshots."""


class SharedMetadata(TableMetadataV2):
    """Metadata that several tables may hold at once: every change of it makes another, so nothing in it is copied."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the fields, never what is in them: pyiceberg changes metadata by replacing fields only."""
        return super().model_copy(update=update, deep=False)


class SharingCatalog(SqlCatalog):
    """A SQL catalog that reads each metadata file once, and those it wrote itself never."""

    def __init__(self, name: str, **properties: str) -> None:
        self._known: OrderedDict[str, TableMetadata] = OrderedDict()
        self._knowing = threading.Lock()
        super().__init__(name, **properties)

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Commit as the catalog does, and remember the metadata that was written. Raises Unreachable."""
        try:
            response = super().commit_table(table, requirements, updates)
        except SQLAlchemyError as error:
            told = getattr(error, "orig", None) or error
            name = ".".join(table.name())
            raise Unreachable(f"catalog: {error.__class__.__name__} at a commit of {name}: {told}") from error
        self._remember(response.metadata_location, response.metadata)
        return response

    def _convert_orm_to_iceberg(self, orm_table: IcebergTables) -> Table:
        location = orm_table.metadata_location
        with self._knowing:
            known = self._known.get(location) if location else None
        if location is None or known is None:
            loaded = super()._convert_orm_to_iceberg(orm_table)
            loaded.metadata = _shared(loaded.metadata)
            self._remember(loaded.metadata_location, loaded.metadata)
            return loaded
        identifier = (*Catalog.identifier_to_tuple(orm_table.table_namespace), orm_table.table_name)
        return Table(identifier, known, location, self._load_file_io(known.properties, location), self)

    def _remember(self, location: str, metadata: TableMetadata) -> None:
        with self._knowing:
            self._known[location] = metadata
            self._known.move_to_end(location)
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)


def _shared(metadata: TableMetadata) -> TableMetadata:
    """The same metadata, shared; that of another format version stays as pyiceberg made it."""
    return SharedMetadata.model_construct(**dict(metadata)) if type(metadata) is TableMetadataV2 else metadata
