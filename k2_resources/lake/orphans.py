"""Files that nothing refers to: of killed and defeated writers, of rewrites, of expired snapshots. They go, in time.

When a file was last referred to is written nowhere, and its age says nothing: a data file of a rewrite may be years
old. So a sweep notes what it finds and when, and deletes what an earlier sweep found long enough ago. Whoever planned
a read or a write from a snapshot that still referred to it has ended by then, or is fenced out by the sweep number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pyiceberg.expressions import And, EqualTo

from k2_core.contracts import CONTRACT_VERSION, RECEIPTS, Table
from k2_core.protocol import retain
from k2_core.protocol.ports import Head
from k2_resources.lake.catalog import Lake
from k2_resources.lake.durable import sync_directory, write_bytes
from k2_resources.lake.ledger import IcebergLedger

_REWRITES = EqualTo("kind", "maintenance")
_NOTE = "upkeep/unreferenced.json"
"""Under a table, in a folder of its own, which no sweep looks into. Without it the wait begins anew."""


@dataclass(frozen=True)
class Swept:
    """What one sweep of a table found: files nothing refers to, those it deleted, and the bytes that came free."""

    table: str
    waiting: int
    deleted: int
    bytes_freed: int


def sweep(lake: Lake, table: Table, *, now: datetime, grace: timedelta, run_id: str, code_version: str) -> Swept:
    """Note what nothing refers to now, and delete what a sweep noted `grace` ago or earlier and is still so.

    A file that a rewrite took out was committed once, and nobody commits it again. Before anything else is deleted
    k2.swept is raised, so that a writer that planned earlier is fenced out. Raises FencedOut, Outpaced.
    """
    at = lake.head(table)
    noted, ledger = _noted(at), IcebergLedger(lake)
    found = {path: noted.get(path, now) for path in ledger.unreferenced(at)}
    due = {path: _bytes(path) for path, first in found.items() if now - first >= grace}
    _note(at, found)
    replaced = due.keys() & _replaced(lake, at) if due else set()
    ledger.delete(at, sorted(replaced))
    deleted = len(replaced)
    if strays := due.keys() - replaced:
        said = {"run_id": run_id, "code_version": code_version, "contract_version": CONTRACT_VERSION}
        deleted += retain.sweep(_Among(lake, strays), table, **said)
    freed = sum(size for path, size in due.items() if not Path(path).exists())
    return Swept(table.name, len(found) - deleted, deleted, freed)


class _Among(IcebergLedger):
    """The ledger as a sweep of some files sees it: of what nothing refers to, only those."""

    def __init__(self, lake: Lake, files: Set[str]) -> None:
        super().__init__(lake)
        self._files = files

    def unreferenced(self, at: Head) -> Sequence[str]:
        """Those of the files that nothing refers to."""
        return [path for path in super().unreferenced(at) if path in self._files]


def _replaced(lake: Lake, at: Head) -> set[str]:
    """Data files that rewrites of a table took out, as their receipts say."""
    this = And(And(EqualTo("table_name", at.table.name), EqualTo("table_uuid", at.table_uuid)), _REWRITES)
    rows = lake.load(RECEIPTS).scan(this, selected_fields=("replaced",)).to_arrow().to_pylist()
    return {file["path"] for row in rows for file in row["replaced"] or ()}


def _bytes(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0


def _noted(at: Head) -> dict[str, datetime]:
    try:
        content = json.loads(Path(at.loaded.location(), _NOTE).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return {path: datetime.fromisoformat(first) for path, first in content.items()}


def _note(at: Head, found: Mapping[str, datetime]) -> None:
    """Replace the note of a table; a rival's is lost, which only makes files wait longer."""
    note = Path(at.loaded.location(), _NOTE)
    fresh = f"{note}.next"
    write_bytes(fresh, json.dumps({path: first.isoformat() for path, first in sorted(found.items())}).encode())
    os.replace(fresh, note)
    sync_directory(note.parent)
