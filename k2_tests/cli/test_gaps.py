"""`k2 gaps list|show` over a real lake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from k2_cli.main import main
from k2_tests.lakes import FEED, full_lake


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("gaps") / "home"
    full_lake(home)
    return home


def called(home: Path, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["gaps", *arguments, "--home", str(home)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_open_gaps_are_listed_with_their_size_and_severity(home: Path) -> None:
    found = json.loads(called(home, "list", "--json").stdout)
    assert [(gap["first_id"], gap["last_id"], gap["severity"]) for gap in found] == [
        (n, n, "warn") for n in (3, 4, 7, 8)
    ]
    assert "4 open gaps" in called(home, "list", "--feed", FEED.name).stdout
    assert called(home, "list", "--feed", "asx-trades").stdout == "0 open gaps\n"


def test_a_gap_is_shown_with_its_events(home: Path) -> None:
    gap_id = f"{FEED.name}:BTCUSDT:0:3-3"
    (event,) = json.loads(called(home, "show", gap_id, "--json").stdout)
    assert (event["state"], event["actor"]) == ("open", "judge")
    assert called(home, "show", gap_id).stdout.splitlines()[1].split()[1] == "open"
    assert "NOT_FOUND" in called(home, "show", "nonsense", code=2).stderr


def test_a_home_without_a_catalog_has_no_gaps_to_list(tmp_path: Path) -> None:
    assert "nothing was ever ingested" in called(tmp_path, "list", code=2).stderr
