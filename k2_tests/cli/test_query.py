"""`k2 query`: the rows of the lake in every format, by the engine itself."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from k2_cli.main import main
from k2_resources.settings import Settings
from k2_tests.api import oracle
from k2_tests.api.conftest import filled, quote_rows, rows
from k2_tests.api.homes import Row, lake_of, settings_of
from k2_tests.ticks import NOON

__all__ = ["filled", "quote_rows", "rows"]


def called(settings: Settings, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["query", *arguments, "--home", str(settings.home)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def ids(rows: list[Row]) -> list[str]:
    return [row["message_id"] for row in rows]


def test_every_format_has_the_rows_of_the_lake_newest_first(filled: Settings, rows: list[Row], tmp_path: Path) -> None:
    expected = oracle.newest(rows)[::-1]
    lines = called(filled, "trades", "--format", "ndjson").stdout.splitlines()
    assert [json.loads(line)["message_id"] for line in lines[:-1]] == ids(expected)
    assert json.loads(lines[-1])["_end"]["rows"] == len(expected)
    assert [row["message_id"] for row in json.loads(called(filled, "trades", "--format", "json").stdout)] == ids(
        expected
    )
    table = list(csv.DictReader(io.StringIO(called(filled, "trades", "--format", "csv").stdout)))
    assert [row["price"] for row in table] == [f"{row['price']:.8f}" for row in expected]
    for form in ("parquet", "arrow"):
        file = tmp_path / f"trades.{form}"
        called(filled, "trades", "--format", form, "--output", str(file))
        found = pq.read_table(file) if form == "parquet" else pa.ipc.open_stream(file.read_bytes()).read_all()
        assert found["message_id"].to_pylist() == ids(expected)
        assert found["price"].to_pylist() == [row["price"] for row in expected]
    assert {file.name for file in tmp_path.iterdir()} == {"trades.parquet", "trades.arrow"}


def test_filters_order_and_limit_choose_the_rows(filled: Settings, rows: list[Row]) -> None:
    start, end = NOON.isoformat(), NOON.replace(hour=20).isoformat()
    asked = ("trades", "DUAL", "--exchange", "ASX", "--start", start, "--end", end, "--order", "asc", "--side", "SELL")
    expected = [
        row
        for row in oracle.asked(rows, symbol="DUAL", exchange="ASX", start=NOON, end=NOON.replace(hour=20))
        if row["side"] == "SELL"
    ]
    shown = json.loads(
        called(filled, *asked, "--format", "json", "--fields", "price,message_id", "--limit", "5").stdout
    )
    assert [list(row) for row in shown] == [["message_id", "price"]] * min(5, len(expected))
    assert [row["message_id"] for row in shown] == ids(expected)[:5]
    assert int(called(filled, *asked, "--count").stdout) == len(expected)


def test_a_table_is_for_people(filled: Settings, quote_rows: list[Row]) -> None:
    result = called(filled, "quotes", "BTCUSDT", "--limit", "3", "--fields", "message_id,bid_price")
    header, *lines = result.stdout.splitlines()
    newest = [row for row in oracle.newest(quote_rows) if row["symbol"] == "BTCUSDT"][::-1][:3]
    assert header.split() == ["message_id", "bid_price"]
    assert [line.split()[0] for line in lines] == ids(newest)
    assert "3 rows of market_data.quotes as of version" in result.stderr


def test_bars_are_those_of_the_prints(filled: Settings, rows: list[Row]) -> None:
    expected = oracle.bars(rows, "1h", symbol="DUAL", exchange="BINANCE")
    asked = ("bars", "DUAL", "1h", "--exchange", "BINANCE", "--order", "asc")
    found = json.loads(called(filled, *asked, "--format", "json").stdout)
    assert [bar["window_start"] for bar in found] == [
        f"{bar['window_start']:%Y-%m-%dT%H:%M:%S.%f}Z" for bar in expected
    ]
    table = list(csv.DictReader(io.StringIO(called(filled, *asked, "--format", "csv", "--limit", "2").stdout)))
    assert [row["volume"] for row in table] == [bar["volume"] for bar in found[:2]]
    assert called(filled, *asked, "--limit", "2").stdout.splitlines()[0].split()[:2] == ["symbol", "exchange"]


def test_a_version_that_was_told_can_be_asked_for_again(filled: Settings) -> None:
    version = called(filled, "trades", "--limit", "1").stderr.split()[-1]
    again = called(filled, "trades", "--limit", "1", "--version", version)
    assert again.stdout == called(filled, "trades", "--limit", "1").stdout
    assert "never was in that state" in called(filled, "trades", "--version", "0" * 64, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("trades", "--start", "yesterday"), "start_time: "),
        (("trades", "--start", "2024-01-02", "--end", "2024-01-01"), "start_time must be before end_time"),
        (("trades", "--fields", "prise"), "no such field: prise"),
        (("trades", "--side", "buy"), "sides"),
        (("bars", "DUAL", "7m"), "7m is none of"),
        (("trades", "--limit", "0"), "--limit"),
        (("trades", "--as-of", "2024-01-01", "--tag", "x"), "at most one of"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(filled: Settings, arguments: tuple[str, ...], said: str) -> None:
    assert said in called(filled, *arguments, code=2).stderr


def test_a_home_without_a_lake_or_without_rows_says_so(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "none")
    assert "nothing was ever ingested" in called(settings, "trades", code=2).stderr
    empty = settings_of(tmp_path / "empty")
    lake_of(empty)
    assert called(empty, "trades", "--format", "csv").stdout.startswith("message_id,")
    assert json.loads(called(empty, "trades", "--format", "json").stdout) == []
    assert int(called(empty, "trades", "--count").stdout) == 0
    assert "0 rows" in called(empty, "bars", "DUAL").stderr


def test_a_file_that_cannot_be_written_leaves_nothing_behind(filled: Settings, tmp_path: Path) -> None:
    target = tmp_path / "missing" / "trades.csv"
    assert "UNWRITABLE" in called(filled, "trades", "--format", "csv", "--output", str(target), code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_early_is_no_crash(filled: Settings) -> None:
    command = [sys.executable, "-m", "k2_cli.main", "query", "trades", "--format", "ndjson", "--home", str(filled.home)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.close()
    _, said = child.communicate(timeout=60)
    assert child.returncode in (0, 1)
    assert b"Traceback" not in said
