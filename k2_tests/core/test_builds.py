from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.builds import Built, Touch, built_in, built_key, due

DAYS = [date(2024, 8, 8) + timedelta(days=n) for n in range(4)]
states = st.dictionaries(
    st.sampled_from(DAYS), st.builds(Built, st.integers(1, 9), st.integers(0, 12), st.booleans(), st.sampled_from("ab"))
)
touches = st.lists(
    st.builds(Touch, st.integers(1, 12), st.frozensets(st.sampled_from(DAYS))), unique_by=lambda t: t.sequence_number
)


def everything(days):
    return len(days)


def nothing_is_over(_):
    return False


@given(st.builds(Built, st.integers(0), st.integers(0), st.booleans(), st.text("0123456789abcdef")))
def test_a_build_is_read_as_it_was_written(built):
    assert Built.parse(str(built)) == built
    assert built_in({built_key(DAYS[0]): str(built), "k2.contract": "1"}) == {DAYS[0]: built}


@given(states, touches, st.sets(st.sampled_from(DAYS)))
def test_a_date_is_due_when_trades_rules_or_its_end_came_since(built, told, over):
    found = due(built, told, "a", over.__contains__, everything)
    for day in DAYS:
        own = built.get(day)
        named = any(day in t.days and (own is None or t.sequence_number > own.sequence_number) for t in told)
        assert (day in found.days) == (named or (own is not None and (own.by != "a" or (own.is_open and day in over))))
    assert list(found.days) == sorted(found.days, reverse=True)


@given(states, touches, st.integers(0, 4))
def test_no_receipt_is_passed_before_its_dates_are_built(built, told, room):
    """Whatever a run has room for, what it leaves is due again from the mark it sets."""
    head = Touch(13, frozenset())
    told = [*told, head]
    before = due(built, told, "a", nothing_is_over, everything)
    now = due(built, told, "a", nothing_is_over, lambda days: min(room, len(days)))
    after = {**built, **{day: Built(1, 13, False, "a") for day in now.days}}
    later = [t for t in told if t.sequence_number > now.until]
    rest = due(after, later, "a", nothing_is_over, everything)
    assert set(rest.days) == set(before.days) - set(now.days)
    assert now.until == 13 or rest.days


@pytest.mark.parametrize("change", [{"number": 2}, {"sequence_number": 8}, {"is_open": True}, {"by": "b"}])
def test_two_builds_are_the_same_whatever_their_number(change):
    one = Built(1, 7, False, "a")
    assert one.is_same(Built(**{**vars(one), **change})) == ("number" in change)
    assert not one.is_same(None)
