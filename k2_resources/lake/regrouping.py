"""Manifests of a table written anew, the files of a partition side by side: one fenced commit that brings no file."""

from __future__ import annotations

from pyiceberg.table import Table as IcebergTable

from k2_core.contracts import CONTRACT_VERSION, Table
from k2_core.protocol.commit import commit
from k2_core.protocol.ports import Change, Head, Staged
from k2_core.receipts import Receipt
from k2_resources.lake.catalog import Lake
from k2_resources.lake.fence import Fence
from k2_resources.lake.ledger import IcebergLedger, transact
from k2_resources.lake.manifests import is_scattered, manifests_of, regroup


def regroup_manifests(lake: Lake, table: Table, *, run_id: str, code_version: str) -> int:
    """Write the manifests of a table anew once they are many for its files; returns how many there were, or 0."""
    at = lake.head(table)
    head = at.loaded.current_snapshot()
    if head is None or not is_scattered(head, at.loaded.io):
        return 0
    why = "manifests written anew"
    receipt = Receipt(table.name, "maintenance", run_id, code_version, CONTRACT_VERSION, (), why=why)
    commit(_Regrouper(lake), at, Change(receipt))
    return len(manifests_of(head, at.loaded.io))


class _Regrouper(IcebergLedger):
    """The ledger as one commits to it who brings no file, only order among the manifests."""

    def _transacted(self, at: Head, staged: Staged, fence: Fence) -> IcebergTable:
        return transact(at.loaded, (), staged.properties, fence, staged.summary, produce=regroup)
