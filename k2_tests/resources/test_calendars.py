from __future__ import annotations

from datetime import date

import pytest

from k2_core.errors import Misconfigured
from k2_resources.calendars import ExchangeDays
from k2_resources.rule_sets import load_conditions, load_sessions

ASX = ExchangeDays("XASX")


@pytest.mark.parametrize(
    ("day", "is_open", "early"),
    [
        (date(2014, 3, 11), True, False),
        (date(2014, 3, 15), False, False),
        (date(2014, 4, 18), False, False),
        (date(2022, 9, 22), False, False),
        (date(2022, 12, 23), True, False),
        (date(2023, 12, 29), True, True),
        (date(2026, 12, 24), True, True),
        (date(2026, 12, 28), False, False),
        (date(2009, 12, 25), True, False),
        (date(2041, 1, 5), False, False),
    ],
)
def test_the_days_of_the_asx(day, is_open, early):
    assert (ASX.is_open(day), ASX.closes_early(day)) == (is_open, early)


def test_a_calendar_nobody_has_is_refused_by_name():
    with pytest.raises(Misconfigured, match="XNOT"):
        ExchangeDays("XNOT").is_open(date(2020, 1, 2))


def test_the_rules_of_a_folder_come_before_those_of_the_project(tmp_path):
    assert load_conditions(tmp_path, "asx").of("0", date(2020, 1, 1))
    (tmp_path / "conditions").mkdir()
    own = tmp_path / "conditions" / "asx.yaml"
    own.write_text("exchange: ASX\nunlisted: all\nrules: [{code: '0', updates: none}]\n")
    assert not load_conditions(tmp_path, "asx").of("0", date(2020, 1, 1))
    for broken in ("rules: [", "- a\n", "exchange: ASX\n"):
        own.write_text(broken)
        with pytest.raises(Misconfigured, match=r"asx\.yaml"):
            load_conditions(tmp_path, "asx")


def test_sessions_nobody_wrote_are_refused_by_path(tmp_path):
    with pytest.raises(Misconfigured, match=r"nowhere\.yaml"):
        load_sessions(tmp_path, "nowhere")
