"""Tables of an older home gain the columns a newer contract has."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from k2_core.compaction import Limits
from k2_core.contracts import GAPS, RECEIPTS, TABLES, TRADES, Table
from k2_core.errors import Misconfigured
from k2_core.keys import collected_key
from k2_resources.lake.catalog import Lake
from k2_resources.lake.compaction import compact
from k2_resources.lake.scans import gap_events, receipt_rows, unfilled_gaps
from k2_resources.lake.verify import verify
from k2_resources.settings import Settings
from k2_tests.lakes import Batch, collect, put, register

NEW = ("table_name", "stated")


def older(table: Table, without: tuple[str, ...]) -> Table:
    return replace(table, columns=tuple(c for c in table.columns if c.name not in without))


def lake_of(home: Path) -> Lake:
    home.mkdir(exist_ok=True)
    settings = Settings(home=home)
    return Lake(settings.catalog(), settings.warehouse_path())


@pytest.fixture
def old(tmp_path: Path) -> Lake:
    """A home whose audit.gaps has no `table_name` and no `stated`, and two events."""
    lake = lake_of(tmp_path / "k2")
    lake.ensure(older(table, NEW) if table is GAPS else table for table in TABLES)
    register(lake)
    put(lake, Batch([1, 2, 5], letters=[b"junk"], gaps=[(3, 3), (4, 4)]))
    collect(lake, TRADES)
    return lake


def test_an_older_table_can_be_read_and_proven_before_it_is_widened(old: Lake) -> None:
    assert old.load(GAPS).schema().column_names == [c.name for c in GAPS.columns if c.name not in NEW]
    assert [gap["state"] for gap in unfilled_gaps(old)] == ["open", "open"]
    assert verify(old, TRADES).findings == ()


def test_missing_columns_are_added_and_what_was_there_stays(old: Lake) -> None:
    before = gap_events(old).to_pylist()
    old.ensure(TABLES)
    assert set(old.load(GAPS).schema().column_names) == {c.name for c in GAPS.columns}
    assert gap_events(old).to_pylist() == [{**row, **dict.fromkeys(NEW)} for row in before]
    put(old, Batch([9], gaps=[(6, 6)]))
    collect(old, TRADES)
    assert [row["table_name"] for row in gap_events(old).to_pylist()] == [None, None, TRADES.name]
    assert verify(old, TRADES).findings == ()
    assert old.load(GAPS).properties[collected_key(TRADES.name)]


def test_a_table_that_has_every_column_is_left_alone(old: Lake) -> None:
    old.ensure(TABLES)
    before = {table.name: old.pointer(table) for table in TABLES}
    old.ensure(TABLES)
    assert {table.name: old.pointer(table) for table in TABLES} == before


def test_two_processes_may_widen_at_once(old: Lake, tmp_path: Path) -> None:
    lakes = [lake_of(tmp_path / "k2") for _ in range(4)]
    with ThreadPoolExecutor(len(lakes)) as pool:
        list(pool.map(lambda lake: lake.ensure([GAPS]), lakes))
    names = old.load(GAPS).schema().column_names
    assert sorted(names) == sorted(c.name for c in GAPS.columns)


def test_a_column_that_may_not_be_null_cannot_come_later(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "k2")
    lake.ensure([older(GAPS, ("actor",))])
    with pytest.raises(Misconfigured, match=r"audit\.gaps was made by another K2: it has no actor"):
        lake.ensure([GAPS])


def test_nested_columns_are_added_whole(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "k2")
    lake.ensure([older(TRADES, ("vendor_data",))])
    lake.ensure([TRADES])
    schema = lake.load(TRADES).schema()
    assert schema.as_arrow().field("vendor_data").type.key_type == pa.large_string()
    ids = [field.field_id for field in schema.fields]
    assert len(set(ids)) == len(ids)


def test_receipts_of_a_k2_that_rewrote_nothing_are_proven_and_gain_what_a_rewrite_says(tmp_path: Path) -> None:
    lake, said = lake_of(tmp_path / "k2"), ("replaced", "moved")
    lake.ensure(older(table, said) if table is RECEIPTS else table for table in TABLES)
    register(lake)
    for n in range(2):
        put(lake, Batch([n]))
    collect(lake, TRADES)
    assert verify(lake, TRADES).findings == ()
    lake.ensure(TABLES)
    assert len(list(compact(lake, TRADES, Limits(100, 4), date.max, run_id="u", code_version="0"))) == 1
    collect(lake, TRADES)
    assert [len(row["replaced"] or ()) for row in receipt_rows(lake, TRADES).to_pylist()] == [0, 0, 0, 2]
    assert verify(lake, TRADES).findings == ()
