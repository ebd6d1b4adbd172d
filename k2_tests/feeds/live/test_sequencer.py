from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from k2_core.sequences import Intervals
from k2_feeds.live.sequencer import QUOTES_REMEMBERED, Admitted, Sequencer


def naive(ids):
    """New or not, and the hole each opens: by a plain set."""
    seen, out = set(), []
    for number in ids:
        hole = (max(seen) + 1, number - 1) if seen and number > max(seen) + 1 else None
        out.append(Admitted(number not in seen, hole))
        seen.add(number)
    return seen, out


@given(st.lists(st.integers(0, 60), min_size=1, max_size=120))
def test_it_agrees_with_a_plain_set_whatever_the_order(ids):
    ours = Sequencer()
    seen, expected = naive(ids)
    # nothing is newer than the first: the order of ids alone tells
    assert [ours.trade("S", number, 5) for number in ids] == expected
    assert ours.trades["S"].seen == Intervals.of(np.array(sorted(seen), np.int64))


@given(st.lists(st.integers(0, 60), min_size=1, max_size=80), st.integers(0, 60), st.integers(0, 60))
def test_what_is_missing_of_a_hole_is_what_did_not_come(ids, one, other):
    ours = Sequencer()
    for number in ids:
        ours.trade("S", number, 5)
    first, last = sorted((one, other))
    expected = [number for number in range(first, last + 1) if number not in ids]
    found = [number for a, b in ours.missing("S", (first, last)) for number in range(a, b + 1)]
    assert found == expected


def test_a_frame_that_comes_late_closes_its_hole_and_opens_none():
    ours = Sequencer()
    assert [ours.trade("S", number, number).hole for number in (1, 2, 5, 4)] == [None, None, (3, 4), None]
    assert ours.missing("S", (3, 4)) == [(3, 3)]
    assert ours.trade("S", 3, 3).is_new
    assert [ours.trade("S", number, number).hole for number in (6, 7)] == [None, None]
    assert ours.missing("S", (3, 4)) == []


def test_what_came_before_the_start_is_where_the_first_hole_begins():
    ours = Sequencer()
    ours.begin("S", 100)
    assert ours.trade("S", 104, 7) == Admitted(True, (101, 103))
    ours.begin("T", 100)
    assert ours.trade("T", 101, 7) == Admitted(True)


def test_ids_that_begin_anew_are_neither_late_nor_repeated():
    ours = Sequencer()
    for number in (1, 2, 3, 4):
        ours.trade("S", number, 1_000 + number)
    assert not ours.trade("S", 2, 1_002).is_new
    assert ours.trade("S", 2, 2_000) == Admitted(True, began_anew=True)
    assert ours.trade("S", 3, 2_001) == Admitted(True)
    assert ours.trade("S", 5, 2_002) == Admitted(True, (4, 4))


HOUR_US = 3_600_000_000


def test_a_numbering_is_the_next_one_by_the_rule_of_the_judge():
    ours = Sequencer()
    ours.begin("S", 100, newest_us=0, session=2)
    assert (ours.trade("S", 101, 5).hole, ours.session("S")) == (None, 2)
    # half of the highest, or within the hour: the exchange went back, and the judge sees no other numbering
    assert ours.trade("S", 51, 6 + HOUR_US + 1_000) == Admitted(True, began_anew=True)
    assert ours.trade("S", 1, 7 + HOUR_US + 1_000) == Admitted(True, began_anew=True)
    assert ours.session("S") == 2
    assert ours.trade("S", 9, 7 + HOUR_US + 1_000) == Admitted(True, (2, 8))
    assert ours.trade("S", 1, 9 + 2 * HOUR_US + 2_000) == Admitted(True, (0, 0), began_anew=True)
    assert ours.session("S") == 3
    assert ours.missing("S", (0, 0)) == [(0, 0)]
    assert ours.fill("S", 0)
    assert ours.missing("S", (0, 0)) == []


def test_a_numbering_may_begin_while_nobody_listens():
    ours = Sequencer()
    ours.begin("S", 100, newest_us=5, session=0)
    assert ours.trade("S", 2, 5 + HOUR_US + 1_000) == Admitted(True, (0, 1), began_anew=True)
    assert (ours.session("S"), ours.session("T")) == (1, 0)
    ours.begin("T", 100, newest_us=5, session=0)
    assert ours.trade("T", 90, 5 + HOUR_US + 1_000) == Admitted(True)
    assert ours.session("T") == 0


def test_an_id_from_before_the_start_is_no_new_numbering():
    ours = Sequencer()
    ours.begin("S", 100)
    assert [ours.trade("S", number, number) for number in (90, 91, 92)] == [Admitted(True)] * 3
    assert ours.trade("S", 100, 100) == Admitted(True, (93, 99))


def test_what_was_asked_for_is_told_apart_and_says_nothing_of_the_exchange():
    ours = Sequencer()
    assert ours.fill("T", 5)
    ours.begin("S", 100)
    assert [ours.fill("S", number) for number in (97, 98, 98, 100)] == [True, True, False, False]
    assert ours.trade("S", 103, 7) == Admitted(True, (101, 102))
    assert [ours.fill("S", number) for number in (102, 101, 101)] == [True, True, False]
    assert ours.trade("S", 104, 8) == Admitted(True)
    assert ours.missing("S", (95, 104)) == [(95, 96), (99, 99)]


def test_quotes_are_told_by_their_last_ids():
    ours = Sequencer()
    assert [ours.quote("S", number) for number in (5, 9, 5, 7, 9, 12)] == [True, True, False, True, False, True]
    assert ours.quote("T", 5)
    for number in range(100, 100 + QUOTES_REMEMBERED):
        assert ours.quote("S", number)
    assert ours.quote("S", 5)
