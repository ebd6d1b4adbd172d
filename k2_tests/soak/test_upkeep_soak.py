"""The soak of upkeep, short: nothing grows, nothing a reader holds goes, and the table is proven at its end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from k2_tests.soak.upkeep import ROWS, next_evening, soak

BATCHES = 100


def test_hours_of_commits_with_their_upkeep_leave_a_lake_as_small_as_it_was(tmp_path: Path) -> None:
    soaked = soak(tmp_path, BATCHES, window=25, upkeep_every=25, deletion_grace_seconds=100, snapshot_hours_max=0.02)
    assert soaked.findings == ()
    assert soaked.rows == BATCHES * ROWS
    assert soaked.deleted > 0
    assert 0 < soaked.rewritten < 3 * soaked.rows
    first, last = soaked.points[0], soaked.points[-1]
    assert max(p.files for p in soaked.points) <= 50
    assert max(p.snapshots for p in soaked.points) <= 100
    assert last.metadata_bytes < 2 * first.metadata_bytes
    assert last.files_on_disk < 3 * first.files_on_disk


def test_a_soak_begins_in_the_evening_and_never_in_the_past() -> None:
    assert next_evening(datetime(2024, 8, 8, 22, 44, tzinfo=UTC)) == datetime(2024, 8, 8, 22, 45, tzinfo=UTC)
    assert next_evening(datetime(2024, 8, 8, 22, 46, tzinfo=UTC)) == datetime(2024, 8, 9, 22, 45, tzinfo=UTC)
