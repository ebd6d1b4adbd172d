"""Tables of the lake, resolved through the catalog and never by directory: losers of a race leave metadata behind."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pyiceberg.catalog.sql import IcebergTables
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import PrimitiveType
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from k2_core.contracts import RECEIPTS, TABLES, Table
from k2_core.errors import Damaged, NotFound, Unreachable
from k2_core.keys import offsets_in
from k2_core.offsets import Offsets
from k2_core.protocol.ports import Head
from k2_resources.lake.history import Past, copied_offsets, recall
from k2_resources.lake.iceberg import PROPERTIES, iceberg_schema, missing_columns, partition_spec, sort_order
from k2_resources.lake.metadata import SharingCatalog
from k2_resources.lake.receipts import from_ms, receipts_of, summary_of

CATALOG_NAME = "k2"
"""Rows of the catalog are keyed by it: Spark and Trino must use the same name."""

_WIDEN_ATTEMPTS_MAX = 20
"""Commits that may come in between: no writer makes more than a few a second."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class TableState:
    """One table at one snapshot, from one load: what a reader pins and what a writer plans from."""

    table: str
    table_uuid: str
    snapshot_id: int | None
    sequence_number: int
    commit_time: datetime | None
    offsets: Offsets
    properties: dict[str, str]
    metadata_location: str


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
class SnapshotEntry:
    """One snapshot of the table's history."""

    snapshot_id: int
    sequence_number: int
    timestamp: datetime
    operation: str
    summary: dict[str, str]
    manifest_list: str


class Lake:
    """The catalog and warehouse of one K2. Safe to share between threads for reading."""

    def __init__(self, catalog_uri: str, warehouse: str) -> None:
        self._named = catalog_uri.rpartition("@")[2]  # never its password
        try:
            self.catalog = SharingCatalog(
                CATALOG_NAME,
                uri=catalog_uri,
                warehouse=warehouse,
                **{"py-io-impl": "k2_resources.lake.durable.DurableFileIO", "pool_pre_ping": "true"},
            )
        except SQLAlchemyError as error:
            raise Unreachable(f"catalog {self._named}: {error.__class__.__name__}") from error
        self.warehouse = warehouse.rstrip("/")
        # connections wait in a pool for the next question; whoever drops a lake drops them, too
        weakref.finalize(self, self.catalog.engine.dispose)

    def ensure(self, tables: Iterable[Table] = TABLES) -> None:
        """Create what does not exist yet, at warehouse/namespace/table; add columns that older tables lack.

        Raises Unreachable, Misconfigured.
        """
        for table in tables:
            with suppress(NamespaceAlreadyExistsError):
                self.catalog.create_namespace_if_not_exists(table.namespace)
            if not self.catalog.table_exists(table.name):
                self._create(table)
            self._widen(table)

    def _widen(self, table: Table) -> None:
        """Add the columns a contract gained since a table was made; another process may do it first."""
        for _ in range(_WIDEN_ATTEMPTS_MAX):
            loaded = self.load(table)
            if not (missing := missing_columns(table, loaded.schema())):
                return
            with suppress(CommitFailedException), loaded.update_schema() as update:
                for column in missing:
                    update.add_column(column.name, column.field_type, column.doc)
        raise Unreachable(f"{table.name}: its columns could not be added: others commit all the time. Start again")

    def _create(self, table: Table) -> None:
        schema = iceberg_schema(table)
        with suppress(TableAlreadyExistsError):
            self.catalog.create_table(
                table.name,
                schema,
                location=f"{self.warehouse}/{table.namespace}/{table.short_name}",
                partition_spec=partition_spec(table, schema),
                sort_order=sort_order(table, schema),
                properties=PROPERTIES,
            )

    def load(self, table: Table) -> IcebergTable:
        """Load the head. Raises NotFound."""
        try:
            return self.catalog.load_table(table.name)
        except NoSuchTableError:
            raise NotFound(f"{table.name} is not in the catalog; `k2 up` or `k2 ingest` creates it") from None
        except SQLAlchemyError as error:
            raise Unreachable(f"catalog {self._named}: {error.__class__.__name__} at {table.name}") from error
        except OSError as error:
            raise Damaged(f"{table.name}: its metadata cannot be read: {error}") from error

    def head(self, table: Table) -> Head:
        """Load the head once, as a writer plans from it. Raises NotFound."""
        return head_of(table, self.load(table))

    def pointer(self, table: Table) -> str:
        """Where the head's metadata is; changes with every commit. One row of the catalog. Raises NotFound."""
        this = (
            IcebergTables.catalog_name == CATALOG_NAME,
            IcebergTables.table_namespace == table.namespace,
            IcebergTables.table_name == table.short_name,
        )
        try:
            with Session(self.catalog.engine) as session:
                location = session.scalar(select(IcebergTables.metadata_location).where(*this))
        except SQLAlchemyError as error:
            raise Unreachable(f"catalog {self._named}: {error.__class__.__name__} at {table.name}") from error
        if location is None:
            raise NotFound(f"{table.name} is not in the catalog; `k2 up` or `k2 ingest` creates it")
        return str(location)

    def state(self, table: Table, snapshot_id: int | None = None) -> TableState | None:
        """Describe the head, or an older snapshot; None for a table that does not exist.

        One that expired is told by the copy of its receipt. Raises NotFound for one that never was.
        """
        try:
            loaded = self.load(table)
        except NotFound:
            return None
        head = loaded.current_snapshot()
        snapshot = head if snapshot_id is None else loaded.snapshot_by_id(snapshot_id)
        if snapshot is None and snapshot_id is not None:
            return self._forgotten(loaded, table, snapshot_id)
        if snapshot is None or head is None or snapshot.snapshot_id == head.snapshot_id:
            offsets = offsets_in(loaded.properties)
        else:
            offsets = self._offsets_at(loaded, table, snapshot)
        return TableState(
            table.name,
            str(loaded.metadata.table_uuid),
            snapshot.snapshot_id if snapshot else None,
            (snapshot.sequence_number or 0) if snapshot else 0,
            commit_time(loaded, snapshot) if snapshot else None,
            offsets,
            dict(loaded.properties),
            loaded.metadata_location,
        )

    def _offsets_at(self, loaded: IcebergTable, table: Table, snapshot: Snapshot) -> Offsets:
        """C of an older snapshot: the collector wrote it; what it has not reached yet is folded on from there."""
        number = snapshot.sequence_number or 0
        offsets, told = copied_offsets(self.load(RECEIPTS), table, str(loaded.metadata.table_uuid), number)
        for committed in receipts_of(loaded, told):
            if committed.sequence_number <= number:
                offsets = offsets.advanced(committed.receipt.ends())
        return offsets

    def _forgotten(self, loaded: IcebergTable, table: Table, snapshot_id: int) -> TableState:
        past, table_uuid = self._recall(loaded, table, snapshot_id), str(loaded.metadata.table_uuid)
        return TableState(
            table.name,
            table_uuid,
            snapshot_id,
            past.sequence_number,
            past.commit_time,
            past.offsets,
            dict(loaded.properties),
            loaded.metadata_location,
        )

    def _files_of_forgotten(self, loaded: IcebergTable, table: Table, snapshot_id: int) -> tuple[DataFileEntry, ...]:
        past = self._recall(loaded, table, snapshot_id)
        kept = [task.file for task in loaded.scan().plan_files() if task.file.file_path in past.files]
        if len(kept) != len(past.files):
            raise NotFound(f"{table.name}: snapshot {snapshot_id} expired, and its files were rewritten since")
        return tuple(_file_entry(loaded, file) for file in kept)

    def _recall(self, loaded: IcebergTable, table: Table, snapshot_id: int) -> Past:
        past = recall(self.load(RECEIPTS), table, str(loaded.metadata.table_uuid), snapshot_id)
        if past is None:
            raise NotFound(f"{table.name} has no snapshot {snapshot_id}")
        return past

    def committed(self, table: Table, topic: str) -> dict[int, int]:
        """Next offset per Kafka partition of one topic; empty where nothing was committed."""
        try:
            properties = self.load(table).properties
        except NotFound:
            return {}
        return {p: at.next for p, at in offsets_in(properties).of_topic(topic).items()}

    def snapshots(self, table: Table, limit: int | None = None) -> list[SnapshotEntry]:
        """The retained history, newest first; empty for a table that does not exist."""
        try:
            history = self.load(table).metadata.snapshots
        except NotFound:
            return []
        ordered = sorted(history, key=lambda s: s.sequence_number or 0, reverse=True)
        return [_snapshot_entry(s) for s in ordered[:limit]]

    def files(self, table: Table, snapshot_id: int) -> tuple[DataFileEntry, ...]:
        """Every data file of one snapshot. Raises NotFound, also where one expired and its files were rewritten."""
        loaded = self.load(table)
        if loaded.snapshot_by_id(snapshot_id) is None:
            return self._files_of_forgotten(loaded, table, snapshot_id)
        return tuple(_file_entry(loaded, task.file) for task in loaded.scan(snapshot_id=snapshot_id).plan_files())


def head_of(table: Table, loaded: IcebergTable) -> Head:
    """What a load says now; the handle itself moves on with every commit made through it."""
    return Head(table, str(loaded.metadata.table_uuid), dict(loaded.properties), loaded)


def commit_time(loaded: IcebergTable, snapshot: Snapshot) -> datetime:
    """Running maximum of snapshot timestamps up to one snapshot: clocks may step back, knowledge does not."""
    last = snapshot.sequence_number or 0
    return from_ms(max(s.timestamp_ms for s in loaded.metadata.snapshots if (s.sequence_number or 0) <= last))


def _snapshot_entry(snapshot: Snapshot) -> SnapshotEntry:
    summary = summary_of(snapshot)
    return SnapshotEntry(
        snapshot.snapshot_id,
        snapshot.sequence_number or 0,
        from_ms(snapshot.timestamp_ms),
        summary.get("operation", ""),
        summary,
        snapshot.manifest_list,
    )


def _file_entry(loaded: IcebergTable, file: DataFile) -> DataFileEntry:
    lowest, highest = _Bounds(loaded, file.lower_bounds), _Bounds(loaded, file.upper_bounds)
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


class _Bounds:
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
