"""Names for states of a table, as Iceberg keeps them: a tagged snapshot is never forgotten, and any engine reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.refs import SnapshotRefType

from k2_core.contracts import Table
from k2_core.errors import BadInput, NotFound
from k2_core.protocol.ports import Outpaced
from k2_resources.lake.catalog import Lake

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A name that needs no quoting in a URL, in SQL or in a shell."""
_ATTEMPTS_MAX = 20
"""Commits that may come in between: no writer makes more than a few a second."""


@dataclass(frozen=True)
class Tag:
    """One name and the snapshot it stands for."""

    name: str
    snapshot_id: int


def tags(lake: Lake, table: Table) -> list[Tag]:
    """The tags of a table by name; none for a table that does not exist."""
    try:
        refs = lake.load(table).metadata.refs
    except NotFound:
        return []
    named = {name: ref.snapshot_id for name, ref in refs.items() if ref.snapshot_ref_type == SnapshotRefType.TAG}
    return [Tag(name, snapshot_id) for name, snapshot_id in sorted(named.items())]


def create_tag(lake: Lake, table: Table, name: str, snapshot_id: int) -> None:
    """Name a retained snapshot. Raises BadInput for a bad or a taken name, NotFound for a snapshot that expired."""
    if not NAME.fullmatch(name):
        raise BadInput(f"{name[:120]!r} is no name for a tag: letters, digits, `.`, `_` and `-`, at most 100")
    for _ in range(_ATTEMPTS_MAX):
        loaded = lake.load(table)
        if (known := loaded.metadata.refs.get(name)) is not None:
            raise BadInput(f"{table.name} has {name} already, for snapshot {known.snapshot_id}; delete it first")
        if loaded.snapshot_by_id(snapshot_id) is None:
            raise NotFound(f"{table.name} does not retain snapshot {snapshot_id}; cite its version instead of a tag")
        try:
            loaded.manage_snapshots().create_tag(snapshot_id, name).commit()
        except CommitFailedException:  # somebody else committed; look again
            continue
        return
    raise Outpaced(f"{table.name}: others commit all the time; try again")


def delete_tag(lake: Lake, table: Table, name: str) -> None:
    """Forget a name; its snapshot expires as others do. Raises NotFound."""
    for _ in range(_ATTEMPTS_MAX):
        if name not in {tag.name for tag in tags(lake, table)}:
            raise NotFound(f"{table.name} has no tag {name!r}")
        try:
            lake.load(table).manage_snapshots().remove_tag(name).commit()
        except CommitFailedException:
            continue
        return
    raise Outpaced(f"{table.name}: others commit all the time; try again")
