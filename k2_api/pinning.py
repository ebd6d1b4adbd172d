"""One state of one table, resolved once per request: what every read of the request goes by."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from cachetools import LRUCache

from k2_api.plans import Plan
from k2_api.problems import Problem
from k2_api.questions import At
from k2_core.contracts import TABLES, Table
from k2_core.errors import Gone, NotFound
from k2_core.offsets import Offsets
from k2_resources.lake.catalog import TableState
from k2_resources.lake.files import DataFileEntry, FieldIds
from k2_resources.lake.pins import Pin, Pins

HEAD_SECONDS = 0.01
"""How old the last look at the catalog may be: a new snapshot is seen that much later at most, and a thousand requests
a second cost a hundred looks."""

_NAMED_MAX = 1_000
"""States asked for by name that stay resolved while the head does not change."""


@dataclass(frozen=True)
class Pinned:
    """One table at one snapshot. state: None while nothing was ever committed.

    below: the files hold later rows, too; only those below this C are of the snapshot. field_ids: by which columns are
    found, where the files differ in them. is_fixed: the question named this state and no other, for ever.
    is_provisional: it was asked for by an instant, and a commit to come may still be part of it.
    """

    table: Table
    state: TableState | None
    files: tuple[DataFileEntry, ...]
    below: Offsets | None = None
    field_ids: FieldIds = ()
    is_fixed: bool = False
    is_provisional: bool = False

    @property
    def version(self) -> str:
        """Digest of C: what the answer contains, whatever the files look like."""
        return self.offsets.version

    @property
    def offsets(self) -> Offsets:
        """C: per topic and Kafka partition the next offset."""
        return self.state.offsets if self.state else Offsets()

    @property
    def snapshot_id(self) -> int | None:
        """The snapshot; None while nothing was ever committed."""
        return self.state.snapshot_id if self.state else None

    @property
    def commit_time(self) -> datetime | None:
        """When it was committed; None while nothing was."""
        return self.state.commit_time if self.state else None

    @cached_property
    def plan(self) -> Plan:
        """Its files, to choose from."""
        return Plan(self.files)


class Pinner:
    """Resolves states. Requests that arrive together share one look at the catalog."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._named: LRUCache[tuple[str, At], tuple[Pinned, Pinned]] = LRUCache(_NAMED_MAX)
        self._heads = {table.name: _Head(Pinned(table, None, ())) for table in TABLES}

    async def pin(self, table: Table, at: At) -> Pinned:
        """Resolve a state. Raises Problem 404 for one that never was, and 410 for one that is gone for good."""
        head = await self._head(table)
        if at.is_head:
            return head
        known = self._named.get((table.name, at))
        if known is not None and known[0] is head:  # nothing was committed, rewritten or forgotten since
            return known[1]
        try:
            found = await asyncio.to_thread(self._found, table, at)
            self._named[table.name, at] = head, found
            return found
        except Gone:
            raise Problem(410, "SNAPSHOT_EXPIRED", "the table of that state was dropped; start again") from None
        except NotFound:
            raise Problem(404, "SNAPSHOT_NOT_FOUND", f"{table.short_name} never was in that state") from None

    def at_hand(self, table: Table, at: At) -> Pinned | None:
        """The state without waiting, where the catalog was looked at just now and it was resolved before."""
        head = self._heads[table.name]
        if time.monotonic() - head.looked >= HEAD_SECONDS:
            return None
        if at.is_head:
            return head.pinned
        known = self._named.get((table.name, at))
        return known[1] if known is not None and known[0] is head.pinned else None

    async def _head(self, table: Table) -> Pinned:
        head = self._heads[table.name]
        asked = time.monotonic()
        if asked - head.looked < HEAD_SECONDS:
            return head.pinned
        async with head.lock:  # one reader plans a new snapshot, the others find it planned
            if head.looked < asked:
                began = time.monotonic()
                pin = await asyncio.to_thread(self._pins.head, table)
                if pin is not head.pin:
                    head.pin, head.pinned = pin, _pinned(table, pin)
                head.looked = began
            return head.pinned

    def _found(self, table: Table, at: At) -> Pinned:
        pin = self._find(table, at)
        is_provisional = pin is not None and pin.is_provisional
        # a tag may be moved, and an instant may lie ahead
        is_fixed = at.tag is None and not is_provisional and (at.as_of is None or pin is not None)
        return replace(_pinned(table, pin), is_fixed=is_fixed, is_provisional=is_provisional)

    def _find(self, table: Table, at: At) -> Pin | None:
        if at.snapshot_id is not None:
            return self._pins.of_snapshot(table, at.snapshot_id)
        if at.version is not None:
            return self._pins.of_version(table, at.version)
        if at.tag is not None:
            return self._pins.of_tag(table, at.tag)
        assert at.as_of is not None, "one of the four is set"
        return self._pins.as_of(table, at.as_of)


class _Head:
    """The newest state of one table that was seen, and when the catalog was looked at last."""

    def __init__(self, nothing: Pinned) -> None:
        self.pin: Pin | None = None
        self.pinned = nothing
        self.looked = -HEAD_SECONDS
        self.lock = asyncio.Lock()


def _pinned(table: Table, pin: Pin | None) -> Pinned:
    if pin is None:
        return Pinned(table, None, ())
    extent = pin.extent
    return Pinned(table, pin.state, extent.files, extent.below, extent.field_ids)
