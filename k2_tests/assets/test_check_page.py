"""docs/CHECKS.md and the code say the same of every check."""

from pathlib import Path

from k2_assets.check_page import checks_page
from k2_assets.checks import CHECKS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "CHECKS.md"


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == checks_page(), "run `k2 docs`"


def test_every_check_says_what_must_hold_in_a_sentence() -> None:
    assert [check.name for check in CHECKS if not check.holds.endswith(".")] == []
    assert len({check.name for check in CHECKS}) == len(CHECKS)
