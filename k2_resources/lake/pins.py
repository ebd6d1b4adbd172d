"""Which state of a table a reader means, by snapshot, version, instant or tag, and the files that hold its rows.

A state is known for ever: once its snapshot expired, the copy of its receipt tells its C, and its rows are those below
C in the files there are now.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NoReturn

from cachetools import LRUCache
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.refs import SnapshotRefType

from k2_core.contracts import RECEIPTS, Table
from k2_core.errors import Gone, NotFound
from k2_core.offsets import Offsets
from k2_resources.lake.catalog import Lake, TableState, commit_time
from k2_resources.lake.files import Extent
from k2_resources.lake.planning import field_ids, planned_files
from k2_resources.lake.points import Point, has_advanced, named_elsewhere, point_as_of, point_of_version

_STATES_MAX = 256
"""States in memory, of some kB each: more than the pages in flight pin at a time."""


@dataclass(frozen=True)
class Pin:
    """One state of one table and where its rows are.

    state.commit_time: of the first commit that reached its C, whatever rewrites came since. is_provisional: a commit
    to come may still be part of it.
    """

    state: TableState
    extent: Extent
    is_provisional: bool = False


class Pins:
    """The states of the tables of one lake. Safe to share between threads; several look for one at a time."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._heads: dict[str, Pin] = {}
        self._remembering = threading.Lock()
        self._states: LRUCache[tuple[str, int], TableState] = LRUCache(_STATES_MAX)
        self._kept: LRUCache[tuple[str, int, int], Extent] = LRUCache(_STATES_MAX)
        self._expired: LRUCache[tuple[str, int], Extent] = LRUCache(_STATES_MAX)
        self._points: LRUCache[tuple[str, str], Point] = LRUCache(_STATES_MAX)

    def head(self, table: Table) -> Pin | None:
        """The newest state: one row of the catalog where nothing changed; None for a table that does not exist."""
        try:
            location = self._lake.pointer(table)
        except NotFound:
            return None
        known = self._heads.get(table.name)
        if known is not None and known.state.metadata_location == location:
            return known
        state = self._lake.state(table)
        if state is None:
            return None
        found = Pin(self._reached(table, state), self._extent(table, state))
        self._heads[table.name] = found
        return found

    def of_snapshot(self, table: Table, snapshot_id: int) -> Pin:
        """The state one snapshot left. Raises NotFound for one that never was, Gone for one of a dropped table."""
        loaded = self._lake.load(table)
        key = (_uuid(loaded), snapshot_id)
        state = self._states.get(key)
        if state is None:
            try:
                state = self._lake.state(table, snapshot_id)
            except NotFound:
                state = None
            if state is None:
                self._refuse(table, loaded, f"snapshot {snapshot_id}", snapshot_id=snapshot_id)
            state = self._reached(table, state)
            with self._remembering:
                self._states[key] = state
        return Pin(state, self._extent(table, state))

    def of_version(self, table: Table, version: str) -> Pin | None:
        """The state with one digest of C: of the first commit that reached it; None for that of no commit at all.

        Raises NotFound, Gone as of_snapshot.
        """
        if version == Offsets().version:
            return None
        loaded = self._lake.load(table)
        key = (_uuid(loaded), version)
        point = self._points.get(key) or point_of_version(self._receipts(), loaded, table, version)
        if point is None:
            self._refuse(table, loaded, f"version {version}", version=version)
        with self._remembering:
            self._points[key] = point
        return self.of_snapshot(table, point.snapshot_id)

    def as_of(self, table: Table, instant: datetime) -> Pin | None:
        """The last state committed at or before an instant; None where nothing was by then.

        It is provisional until a commit after the instant is known.
        """
        loaded = self._lake.load(table)
        last = loaded.current_snapshot()
        if last is None:
            return None
        if commit_time(loaded, last) <= instant:
            return replace(self.of_snapshot(table, last.snapshot_id), is_provisional=True)
        key = (_uuid(loaded), instant.isoformat())
        point = self._points.get(key) or point_as_of(self._receipts(), loaded, table, instant)
        if point is None:
            return None
        with self._remembering:
            self._points[key] = point
        return self.of_snapshot(table, point.snapshot_id)

    def of_tag(self, table: Table, name: str) -> Pin:
        """The state a tag names. Raises NotFound."""
        ref = self._lake.load(table).metadata.refs.get(name)
        if ref is None or ref.snapshot_ref_type != SnapshotRefType.TAG:
            raise NotFound(f"{table.name} has no tag {name}")
        return self.of_snapshot(table, ref.snapshot_id)

    def _extent(self, table: Table, state: TableState) -> Extent:
        """Where the rows of a state are; as planned before, as long as its snapshot is retained."""
        if state.snapshot_id is None:
            return Extent((), None)
        loaded = self._lake.load(table)
        snapshot = loaded.snapshot_by_id(state.snapshot_id)
        if snapshot is None:
            return self._extent_of_expired(table, loaded, state.snapshot_id)
        key = (state.table_uuid, state.snapshot_id, loaded.metadata.current_schema_id)
        if (known := self._kept.get(key)) is not None:
            return known
        try:
            found = Extent(planned_files(loaded, snapshot), None, field_ids(loaded, table))
        except FileNotFoundError:  # it expired after the load: the receipts tell it, or it is damaged
            return self._extent_of_expired(table, loaded, state.snapshot_id)
        with self._remembering:
            self._kept[key] = found
        return found

    def _extent_of_expired(self, table: Table, loaded: IcebergTable, snapshot_id: int) -> Extent:
        """As found before, as long as none of its files was rewritten since."""
        key, head = (_uuid(loaded), snapshot_id), loaded.current_snapshot()
        known = self._expired.get(key)
        if known is not None and head is not None:
            alive = {file.path for file in planned_files(loaded, head)}
            if all(file.path in alive for file in known.files):
                return replace(known, field_ids=field_ids(loaded, table))
        found = self._lake.extent(table, snapshot_id)
        with self._remembering:
            self._expired[key] = found
        return found

    def _reached(self, table: Table, state: TableState) -> TableState:
        """A state with the time its C was reached, so that what is said of one C never changes."""
        loaded = self._lake.load(table)
        snapshot = None if state.snapshot_id is None else loaded.snapshot_by_id(state.snapshot_id)
        while snapshot is not None and not has_advanced(snapshot):  # the one before it may be forgotten
            parent = snapshot.parent_snapshot_id
            snapshot = None if parent is None else loaded.snapshot_by_id(parent)
        if snapshot is not None:
            return replace(state, commit_time=commit_time(loaded, snapshot))
        point = point_of_version(self._receipts(), loaded, table, state.offsets.version)
        return replace(state, commit_time=point.commit_time) if point else state

    def _receipts(self) -> IcebergTable | None:
        try:
            return self._lake.load(RECEIPTS)
        except NotFound:
            return None

    def _refuse(self, table: Table, loaded: IcebergTable, what: str, **named: object) -> NoReturn:
        receipts = self._receipts()
        if receipts is not None and named_elsewhere(receipts, loaded, table, **named):
            raise Gone(f"{table.name}: {what} was of a table that was dropped since")
        raise NotFound(f"{table.name} has no {what}")


def _uuid(loaded: IcebergTable) -> str:
    return str(loaded.metadata.table_uuid)
