from __future__ import annotations

from pathlib import Path

from k2_tests.soak.answers import run


def test_a_crowd_of_readers_gets_no_wrong_answer_while_rows_come_in_and_the_api_dies(tmp_path: Path) -> None:
    """The short form of `make soak`."""
    outcome = run(tmp_path, seconds=60.0, kills=2, seed=20241122)
    assert outcome.is_right, outcome.line()
    assert (outcome.kills, outcome.answers > 500) == (2, True)
