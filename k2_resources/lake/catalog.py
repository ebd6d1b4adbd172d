"""Tables of the lake, resolved through the catalog and never by directory: losers of a race leave metadata behind."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from pyiceberg.catalog.sql import IcebergTables
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from k2_core.contracts import RECEIPTS, TABLES, Table
from k2_core.errors import Damaged, NotFound, Unreachable
from k2_core.keys import offsets_in
from k2_core.offsets import Offsets
from k2_core.protocol.ports import Head
from k2_resources.lake.files import DataFileEntry, Extent
from k2_resources.lake.history import Past, copied_offsets, recall
from k2_resources.lake.iceberg import PROPERTIES, iceberg_schema, missing_columns, partition_spec, sort_order
from k2_resources.lake.metadata import SharingCatalog
from k2_resources.lake.planning import field_ids, planned_files
from k2_resources.lake.receipts import from_ms, receipts_of, summary_of

CATALOG_NAME = "k2"
"""Rows of the catalog are keyed by it: Spark and Trino must use the same name."""

_WIDEN_ATTEMPTS_MAX = 20
"""Commits that may come in between: no writer makes more than a few a second."""


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
        wanted = tuple(tables)
        for namespace in {table.namespace for table in wanted}:
            with suppress(NamespaceAlreadyExistsError):
                self.catalog.create_namespace_if_not_exists(namespace)
        for table in wanted:
            try:
                self._widen(table)
            except NotFound:
                self._create(table)

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
        """Create a table; where another process was faster, it may be one of another K2."""
        schema = iceberg_schema(table)
        try:
            self.catalog.create_table(
                table.name,
                schema,
                location=f"{self.warehouse}/{table.namespace}/{table.short_name}",
                partition_spec=partition_spec(table, schema),
                sort_order=sort_order(table, schema),
                properties=PROPERTIES,
            )
        except TableAlreadyExistsError:
            self._widen(table)

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

    def _extent_of_forgotten(self, loaded: IcebergTable, table: Table, snapshot_id: int) -> Extent:
        past, head = self._recall(loaded, table, snapshot_id), loaded.current_snapshot()
        alive = planned_files(loaded, head) if head else ()
        kept = tuple(file for file in alive if file.path in past.files)
        if len(kept) == len(past.files):
            return Extent(kept, None, field_ids(loaded, table))
        # its rows are in what was kept and in what rewrites put in since, among rows that came later
        own = (c.receipt for c in receipts_of(loaded, past.sequence_number) if c.receipt.kind == "maintenance")
        rewrites = past.rewrites | {f.path for receipt in own for f in receipt.files_of("data")}
        holding = tuple(file for file in alive if file.path in past.files | rewrites)
        return Extent(holding, past.offsets, field_ids(loaded, table))

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
        extent = self.extent(table, snapshot_id)
        if extent.below is not None:
            raise NotFound(f"{table.name}: snapshot {snapshot_id} expired, and its files were rewritten since")
        return extent.files

    def extent(self, table: Table, snapshot_id: int) -> Extent:
        """Where the rows of one snapshot are, long after it expired and its files were rewritten.

        Raises NotFound, and Damaged where it has delete files.
        """
        loaded = self.load(table)
        if (snapshot := loaded.snapshot_by_id(snapshot_id)) is None:
            return self._extent_of_forgotten(loaded, table, snapshot_id)
        try:
            return Extent(planned_files(loaded, snapshot), None, field_ids(loaded, table))
        except FileNotFoundError:
            if (now := self.load(table)).snapshot_by_id(snapshot_id) is not None:
                raise
            return self._extent_of_forgotten(now, table, snapshot_id)  # it expired between the two looks


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
