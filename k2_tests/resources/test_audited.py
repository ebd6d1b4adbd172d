from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k2_core.contracts import COVERAGE, DEAD_LETTERS, GAPS, RECEIPTS, TRADES, Table
from k2_core.keys import collected_key
from k2_resources.lake.catalog import Lake
from k2_resources.lake.verify import verify
from k2_tests.lakes import TOPIC, Batch, collect, expire, full_lake, letter_rows, put, register, rewrite, set_property

Rows = list[dict[str, Any]]


@pytest.fixture
def full(tmp_path: Path) -> Lake:
    return full_lake(tmp_path / "k2")


def found(lake: Lake) -> list[tuple[str, str]]:
    return findings(lake, TRADES)


def findings(lake: Lake, table: Table) -> list[tuple[str, str]]:
    return [(f.where, f.problem) for f in verify(lake, table).findings]


def altered(rows: Rows) -> None:
    rows[0]["value"] = b"another"


def reasoned(rows: Rows) -> None:
    rows[0]["reason"] = "empty"


def removed(rows: Rows) -> None:
    del rows[0]


def doubled(rows: Rows) -> None:
    rows.append(rows[0])


def swapped(rows: Rows) -> None:
    """A letter of one receipt in the place of one of the other: every sum stays."""
    first, last = min(rows, key=lambda r: r["kafka_offset"]), max(rows, key=lambda r: r["kafka_offset"])
    first["value"], last["value"] = last["value"], first["value"]
    assert first["value"] != last["value"]


def moved(rows: Rows) -> None:
    """One letter at an offset another has."""
    offsets = sorted(row["kafka_offset"] for row in rows)
    next(row for row in rows if row["kafka_offset"] == offsets[0])["kafka_offset"] = offsets[-1]


def invented(rows: Rows) -> None:
    rows[0]["kafka_offset"] = 999


@pytest.mark.parametrize("lie", [altered, reasoned, removed, doubled, swapped, moved, invented])
def test_dead_letters_that_are_not_those_of_the_sidecars_are_named(full: Lake, lie: Callable[[Rows], None]) -> None:
    rewrite(full, DEAD_LETTERS, lie)
    assert found(full)
    assert all(where.startswith(DEAD_LETTERS.name) for where, _ in found(full))


@pytest.mark.parametrize("lie", [removed, doubled, moved, invented])
def test_dead_letters_are_counted_per_range_without_their_sidecars(full: Lake, lie: Callable[[Rows], None]) -> None:
    shutil.rmtree(Path(full.load(TRADES).location(), "k2/dead_letters"))
    before = set(found(full))
    rewrite(full, DEAD_LETTERS, lie)
    assert {where.split(" ")[0] for where, _ in set(found(full)) - before} == {DEAD_LETTERS.name}


def renumbered(rows: Rows) -> None:
    rows[0]["event_number"] += 2


def filled(rows: Rows) -> None:
    rows[0]["state"] = "filled"


def versioned(rows: Rows) -> None:
    rows[0]["version"] = "0" * 64


def unsnapped(rows: Rows) -> None:
    rows.append({**rows[0], "snapshot_id": 7, "event_number": 1})


def retabled(rows: Rows) -> None:
    rows[0]["table_name"] = COVERAGE.name


def homeless(rows: Rows) -> None:
    rows.append({**rows[0], "snapshot_id": 7, "event_number": 1, "table_name": "nonsense"})


GAP_LIES = [list.clear, removed, doubled, renumbered, filled, versioned, unsnapped, retabled, homeless]


@pytest.mark.parametrize("lie", GAP_LIES)
def test_gap_events_that_are_not_those_of_the_sidecars_are_named(full: Lake, lie: Callable[[Rows], None]) -> None:
    rewrite(full, GAPS, lie)
    assert found(full)
    assert all(where.startswith(GAPS.name) for where, _ in found(full))


def test_gap_events_that_an_older_k2_copied_name_no_table_and_are_nobodys_fault(full: Lake) -> None:
    rewrite(full, GAPS, lambda rows: [row.update(table_name=None) for row in rows])
    assert found(full) == []
    rewrite(full, GAPS, unsnapped)
    assert [where.split(" ")[0] for where, _ in found(full)] == [GAPS.name]


def test_gap_events_of_another_table_are_not_this_ones(full: Lake) -> None:
    other = {"table_name": COVERAGE.name, "snapshot_id": 7, "event_number": 1}
    rewrite(full, GAPS, lambda rows: rows.append({**rows[0], **other}))
    assert found(full) == []
    assert [where.split(" ")[0] for where, _ in findings(full, COVERAGE)] == [GAPS.name]


def test_gap_events_are_counted_per_receipt_without_their_sidecars(full: Lake) -> None:
    shutil.rmtree(Path(full.load(TRADES).location(), "k2/gaps"))
    before = set(found(full))
    rewrite(full, GAPS, removed)
    assert [problem for _, problem in set(found(full)) - before] == ["1 events, its receipt counts 2"]


def last_of(rows: Rows) -> dict[str, Any]:
    return max(rows, key=lambda row: row["sequence_number"])


RECEIPT_LIES: dict[str, Callable[[Rows], object]] = {
    "is not there": removed,
    "is there more than once": doubled,
    "differs from its receipt file": lambda rows: last_of(rows).update(run_id="another"),
    "another version": lambda rows: last_of(rows).update(version="0" * 64),
    "other offsets": lambda rows: last_of(rows)["offsets"][0].update(next=4),
    "only those up to 3": lambda rows: rows.append({**last_of(rows), "sequence_number": 4}),
}


@pytest.mark.parametrize("problem", RECEIPT_LIES)
def test_copies_of_receipts_that_are_not_what_was_committed_are_named(full: Lake, problem: str) -> None:
    rewrite(full, RECEIPTS, RECEIPT_LIES[problem])
    assert any(problem in told for _, told in found(full))


def test_a_copy_is_compared_with_its_file_when_its_snapshot_has_expired(full: Lake) -> None:
    put(full, Batch([10]))
    expire(full)
    assert found(full) == []
    paths: list[Path] = []

    def lie(rows: Rows) -> None:
        paths.extend(Path(row["receipt_path"]) for row in rows)
        rows[0]["run_id"] = "another"

    rewrite(full, RECEIPTS, lie)
    assert [problem for _, problem in found(full)] == ["differs from its receipt file"]
    paths[0].unlink()
    assert found(full) == []
    paths[1].write_bytes(b"{}")
    assert [problem for _, problem in found(full)] == ["differs from its receipt file"]


def test_an_audit_table_that_says_it_is_ahead_of_the_table_is_named(full: Lake) -> None:
    set_property(full, GAPS, collected_key(TRADES.name), f"{full.load(TRADES).metadata.table_uuid}:99")
    assert [where for where, _ in found(full)] == [GAPS.name]


def test_a_table_made_anew_is_not_accused_of_what_its_predecessor_left_in_the_audit_tables(full: Lake) -> None:
    full.catalog.drop_table(TRADES.name)
    full.ensure()
    register(full)
    put(full, Batch([1, 2, 5], letters=[b"junk", b""], gaps=[(3, 3)]))
    collect(full, TRADES)
    assert found(full) == []
    rewrite(full, DEAD_LETTERS, lambda rows: rows.extend(letter_rows(50, [b"one more"]).to_pylist()))
    assert [where for where, _ in found(full)] == [f"{DEAD_LETTERS.name} {TOPIC}[0] offset 50"]
