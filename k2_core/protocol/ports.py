"""What the protocol asks of the world: a log to read, a ledger to commit to. And what it hands to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa

from k2_core.contracts import Table
from k2_core.errors import K2Error
from k2_core.keys import offsets_in, paused_key
from k2_core.offsets import OffsetRange, Offsets
from k2_core.receipts import Committed, Receipt
from k2_core.records import Incarnation, LogBatch, Watermarks
from k2_core.verdict import State

Reach = Callable[[str], None]
"""Passes a named step of the protocol; a test may stop it there."""


class Outpaced(K2Error):
    """Raise when another commit came first and nothing of this one is in the table; it may be tried again."""

    code = "OUTPACED"


@dataclass(frozen=True)
class Head:
    """What one load of a table says to a writer: everything a batch plans from, and the fence compares.

    loaded: the ledger's own handle of that load.
    """

    table: Table
    table_uuid: str
    properties: Mapping[str, str]
    loaded: Any

    @cached_property
    def offsets(self) -> Offsets:
        """C: the next offset of every Kafka partition."""
        return offsets_in(self.properties)

    def property(self, key: str) -> str | None:
        return self.properties.get(key)

    def is_paused(self, topic: str, kafka_partition: int) -> bool:
        return self.property(paused_key(topic, kafka_partition)) is not None


@dataclass(frozen=True)
class Change:
    """All that one commit brings. properties: further k2.* keys to set, None removes one; they are fenced, too."""

    receipt: Receipt
    rows: pa.Table | None = None
    dead_letters: pa.Table | None = None
    gaps: pa.Table | None = None
    states: Mapping[str, State] = field(default_factory=dict)
    properties: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Staged:
    """A change whose files are all durable, and which nobody can see yet.

    properties: what the swap sets, None removes. summary: goes into the snapshot. handle: the ledger's own.
    """

    receipt: Receipt
    receipt_path: str
    properties: Mapping[str, str | None]
    summary: Mapping[str, str]
    handle: Any = None


@dataclass(frozen=True)
class Landed:
    """A commit that is in the table, and the head it made."""

    committed: Committed
    head: Head


@dataclass(frozen=True)
class SnapshotMark:
    """One retained snapshot: its place in the commit order."""

    snapshot_id: int
    sequence_number: int


Expected = Mapping[str, str | None]
"""Property -> the value a commit relies on; None is absent."""


class Log(Protocol):
    """A Kafka cluster as the protocol reads it."""

    def watermarks(self, topics: Iterable[str]) -> dict[tuple[str, int], Watermarks]:
        """[low, high) of every Kafka partition of those topics that exist."""

    def incarnation(self, topics: Iterable[str]) -> dict[str, Incarnation]:
        """Which cluster and which topic the offsets belong to, of those topics that exist."""

    def read(self, ranges: Sequence[OffsetRange], *, rows_max: int) -> Iterator[LogBatch]:
        """Read exactly the planned ranges in contiguous batches; never skips."""

    def commit_hint(self, group: str, positions: Mapping[tuple[str, int], int]) -> None:
        """Tell lag tools how far the lake is. Never raises."""


class Ledger(Protocol):
    """Tables as compare-and-swap over their properties plus receipts."""

    def head(self, table: Table) -> Head:
        """Load the head once."""

    def stage(self, at: Head, change: Change) -> Staged:
        """Write every file of a change durably; nothing refers to them yet."""

    def swap(self, at: Head, staged: Staged, expected: Expected) -> Landed:
        """Commit once, if every expected property still has its value in what is replaced.

        Raises FencedOut or Outpaced when nothing happened; any other error says nothing about the outcome.
        """

    def landed(self, at: Head, staged: Staged) -> Landed | None:
        """Look a staged change up in a head by its receipt: the only proof that it happened."""

    def receipts(self, at: Head, after: int) -> Sequence[Committed]:
        """Receipts of the retained snapshots past one sequence number, in commit order."""

    def copies(self, audit: Head, source: Head, fresh: Sequence[Committed]) -> Any:
        """What an audit table has to hold of these receipts; has a length."""

    def append(self, audit: Head, copies: Any, properties: Mapping[str, str], expected: Expected) -> None:
        """Append copies and set properties, both or neither, under the same fence. Raises FencedOut, Outpaced."""

    def snapshots(self, at: Head) -> Sequence[SnapshotMark]:
        """The retained history, oldest first."""

    def expire(self, at: Head, snapshot_ids: Sequence[int]) -> None:
        """Forget snapshots, then delete what only they referred to. Raises Outpaced."""

    def unreferenced(self, at: Head) -> Sequence[str]:
        """Files under the table that no retained snapshot, no property and no metadata of it refers to."""

    def delete(self, at: Head, files: Sequence[str]) -> None:
        """Delete files of a table; one that is gone already is no error."""
