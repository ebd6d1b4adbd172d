"""`k2 verify` as a command, and what only the rows can show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from k2_cli.verify import UNBALANCED, proof_of, verify
from k2_core.contracts import TRADES
from k2_core.receipts import DateRows
from k2_resources.duck import Duck
from k2_resources.lake.catalog import Lake
from k2_tests.lakes import DAY, FEED, TOPIC, Batch, collect, new_lake, put, register


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "k2 [of] *"


@pytest.fixture
def lake(home: Path) -> Lake:
    lake = new_lake(home)
    register(lake)
    return lake


@pytest.fixture
def duck() -> Iterator[Duck]:
    duck = Duck(threads=1, memory="200MB", seconds_max=60)
    yield duck
    duck.close()


def called(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(verify, ["--home", str(home), *arguments], catch_exceptions=False)


def deep(lake: Lake, duck: Duck) -> list[str]:
    assert proof_of(lake, duck, TRADES).findings == (), "only the rows show it"
    return [finding.problem for finding in proof_of(lake, duck, TRADES, deep=True).findings]


def test_a_balanced_lake_exits_with_0_and_says_its_sums(home: Path, lake: Lake) -> None:
    put(lake, Batch([1, 2], letters=[b"junk"]))
    put(lake, Batch([3], revisions=[1]))
    collect(lake, TRADES)
    result = called(home, "--deep", "--json")
    proof = next(p for p in json.loads(result.stdout) if p["table"] == TRADES.name)
    assert (result.exit_code, proof["findings"]) == (0, [])
    assert (proof["read"], proof["written"], proof["revisions"], proof["dead"], proof["rows"]) == (5, 3, 1, 1, 4)


def test_an_unbalanced_lake_exits_with_1_and_names_what_is_not(home: Path, lake: Lake) -> None:
    put(lake, Batch([1, 2]))
    (file,) = Path(lake.load(TRADES).location(), "data").rglob("*.parquet")
    file.unlink()
    result = called(home, "--table", "trades")
    assert result.exit_code == UNBALANCED
    assert f"{file}: No such file or directory; its receipt names it as data" in result.stdout


def test_an_unreadable_data_file_is_named_and_the_others_are_still_proven(home: Path, lake: Lake) -> None:
    put(lake, Batch([1]))
    (file,) = Path(lake.load(TRADES).location(), "data").rglob("*.parquet")
    put(lake, Batch([2, 2]))
    file.write_bytes(b"not Parquet")
    result = called(home, "--deep")
    assert result.exit_code == UNBALANCED
    assert f"{file}: SHA-256 is" in result.stdout
    assert "trade:2 revision 0: is stored 2 times" in result.stdout


def test_a_key_without_its_first_revision_is_named(lake: Lake, duck: Duck) -> None:
    put(lake, Batch([1, 2]))
    put(lake, Batch(revisions=[1, 7]))
    assert deep(lake, duck) == ["1 revisions, 1 to 1"]


def test_a_key_that_skips_a_revision_is_named(lake: Lake, duck: Duck) -> None:
    put(lake, Batch([1]))
    put(lake, Batch(revisions=[1], places={"revision": [2]}))
    assert deep(lake, duck) == ["2 revisions, 0 to 2"]


def test_a_receipt_that_calls_a_written_row_a_revision_is_named(lake: Lake, duck: Duck) -> None:
    put(lake, Batch([1, 2], counts={"written": 1, "revisions": 1}))
    assert deep(lake, duck) == [f"0 revisions of {TOPIC} 0 0 are stored, its receipt says 1"]


def test_receipts_that_count_the_revisions_of_each_other_are_named_each(lake: Lake, duck: Duck) -> None:
    put(lake, Batch([1, 2], counts={"written": 1, "revisions": 1}))
    put(lake, Batch([3], revisions=[1], counts={"written": 2, "revisions": 0}))
    assert len(deep(lake, duck)) == 2


def test_rows_of_a_date_its_receipt_does_not_name_are_named(lake: Lake, duck: Duck) -> None:
    other = DAY.replace(day=9)
    put(lake, Batch([1, 2], dates=[DateRows(DAY, FEED.name, 1), DateRows(other, FEED.name, 1)]))
    assert deep(lake, duck) == [
        "2 rows of 2024-08-08 are stored, its receipt says 1",
        "0 rows of 2024-08-09 are stored, its receipt says 1",
    ]


def test_rows_outside_the_range_their_receipt_read_are_named(lake: Lake, duck: Duck) -> None:
    put(lake, Batch([1, 2], places={"kafka_offset": [1, 2]}))
    assert deep(lake, duck) == [f"offsets 1 to 2 of {TOPIC}[0] epoch 0 lie outside what its receipt read"]


def test_an_offset_that_became_two_rows_is_named(lake: Lake, duck: Duck) -> None:
    put(lake, Batch([1, 2], places={"kafka_offset": [1, 1]}))
    assert deep(lake, duck) == ["2 rows came from 1 offsets"]
