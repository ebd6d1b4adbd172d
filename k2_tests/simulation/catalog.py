"""A catalog: the head of each table, moved by compare-and-swap of its version, and every version there ever was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from k2_core.contracts import CONTRACT_VERSION
from k2_core.keys import CONTRACT_KEY, PREFIX


@dataclass(frozen=True)
class Snapshot:
    """What one commit left: the data files alive at it, its manifest, and the path of its receipt."""

    snapshot_id: int
    sequence_number: int
    files: frozenset[str]
    manifest: str
    receipt_path: str | None


@dataclass(frozen=True)
class Version:
    """One metadata file of a table. An expiry makes a version without a snapshot of its own.

    previous: metadata files of the versions before that are kept, newest first.
    """

    table: str
    table_uuid: str
    metadata: str
    properties: Mapping[str, str]
    snapshots: tuple[Snapshot, ...]
    sequence_number: int
    previous: tuple[str, ...] = ()

    @property
    def files(self) -> frozenset[str]:
        """Data files of the head snapshot."""
        return self.snapshots[-1].files if self.snapshots else frozenset()


class Catalog:
    """Heads by table name. seen is told of every swap, with the version before and after it."""

    def __init__(self, tables: Iterable[str]) -> None:
        made = {CONTRACT_KEY: CONTRACT_VERSION}
        self.heads = {name: Version(name, f"uuid:{name}", "", made, (), 0) for name in tables}
        self.seen: Callable[[Version, Version], None] = lambda before, after: None

    def swap(self, base: Version, after: Version) -> bool:
        """Make a version the head if its base still is; whether it did."""
        if self.heads[base.table] is not base:
            return False
        self.heads[base.table] = after
        self.seen(base, after)
        return True


def state_files(properties: Mapping[str, str]) -> set[str]:
    """Files that properties name."""
    return {value for key, value in properties.items() if key.startswith(f"{PREFIX}state.")}
