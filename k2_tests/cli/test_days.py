"""`k2 days list|show|files|close` over a real lake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from k2_cli.main import main
from k2_resources import clock
from k2_tests.lakes import DAY, FEED, full_lake


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("days") / "home"
    full_lake(home)
    return home


def called(home: Path, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["days", *arguments, "--home", str(home)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_a_day_is_closed_listed_and_shown_with_its_certificate(home: Path) -> None:
    day = str(DAY)
    assert called(home, "list").stdout == "0 days of symbols\n"
    closed = json.loads(called(home, "close", "binance", day, "--json").stdout)
    assert {(row["feed"], row["symbol"], row["verdict"]) for row in closed} == {
        (FEED.name, "BTCUSDT", "incomplete"),
        ("binance-quotes", "*", "not_collected"),
    }
    listed = called(home, "list", "--feed", FEED.name).stdout.splitlines()
    assert listed[1].split()[:8] == [FEED.name, "BTCUSDT", day, "1", "incomplete", "6", "5", "1"]
    assert json.loads(called(home, "list", "--verdict", "complete", "--json").stdout) == []
    shown = json.loads(called(home, "show", FEED.name, "BTCUSDT", day, "--json").stdout)
    assert (shown["version"], shown["present"], len(shown["sha256"])) == (1, 5, 64)
    assert f"sha256            {shown['sha256']}" in called(home, "show", FEED.name, "BTCUSDT", day).stdout
    paths = called(home, "files", FEED.name, day).stdout.split()
    assert len(paths) == 2
    assert all(Path(path).exists() for path in paths)


def test_what_was_never_closed_or_does_not_exist_is_said(home: Path, tmp_path: Path) -> None:
    assert "was never closed" in called(home, "show", FEED.name, "ETHUSDT", str(DAY), code=2).stderr
    assert "no feed nonsense" in called(home, "files", "nonsense", str(DAY), code=2).stderr
    assert "no exchange 'NYSE'" in called(home, "close", "NYSE", str(DAY), code=2).stderr
    assert "2100-01-01 is no date" in called(home, "close", "binance", "2100-01-01", code=2).stderr
    assert "it can be closed from" in called(home, "close", "binance", str(clock.now().date()), code=1).stderr
    assert "nothing was ever ingested" in called(tmp_path, "list", code=2).stderr
