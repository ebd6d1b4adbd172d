"""The fence: at commit, only what this requirement compares is true.

pyiceberg re-applies an append that lost a race on the new head without any check. A requirement is checked against
the metadata being replaced, survives those retries, and so turns the table's properties into a compare-and-swap.
"""

from __future__ import annotations

from typing import Literal

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import ValidatableTableRequirement

from k2_core.errors import FencedOut


class Fence(ValidatableTableRequirement):
    """Every `k2.*` key a commit sets or relied on must still have the value read at plan time; None is absent."""

    type: Literal["k2-fence"] = "k2-fence"
    table: str
    expected: dict[str, str | None]

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]  # pydantic's old name
        """Compare with the metadata being replaced. Raises FencedOut."""
        properties = base_metadata.properties if base_metadata else {}
        moved = {k: (v, properties.get(k)) for k, v in self.expected.items() if properties.get(k) != v}
        if moved:
            detail = "; ".join(f"{key} was {planned}, is {now}" for key, (planned, now) in sorted(moved.items()))
            raise FencedOut(f"{self.table}: another writer committed first: {detail}. Plan again from the new head.")
