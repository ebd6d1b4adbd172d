"""What is said of a day, against a plain model of which ids are where."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_core.days import by_ids, by_issue, changed, without_rows
from k2_core.gap_ids import ABSENT_AT_SOURCE, ACCEPTED, NOT_COLLECTED, OPEN, UNRECOVERABLE
from k2_core.issues import Difference, Issue, Sketch, difference, ids_of
from k2_core.sequences import EVER_MS, Intervals, ScopeState, Stretch

FEED = "binance-trades"


def state(seen, dead=()):
    ids = [Intervals.of(np.array(sorted(some), np.int64)) for some in (seen, dead)]
    return ScopeState(*ids, stretches=(Stretch(EVER_MS, 0, 0),))


def rows(ids, session=0):
    keys = [f"BINANCE:BTCUSDT:trade:{n}{f'~{session}' if session else ''}" for n in ids]
    columns = {"message_id": keys, "symbol": ["BTCUSDT"] * len(keys), "source_sequence": pa.array(ids, pa.int64())}
    return pa.table(columns)


def gap(first, last, told, session=0):
    return {"session": session, "first_id": first, "last_id": last, "state": told}


@settings(max_examples=50)
@given(st.sets(st.integers(0, 30), min_size=1), st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_a_day_is_complete_exactly_when_nothing_between_its_neighbours_is_missing(here, elsewhere, dead):
    seen = here | elsewhere
    found = by_ids(FEED, rows(sorted(here)), state(seen, dead - seen), [])
    span = range(min(here), max(here) + 1)
    missing = len(set(span) - seen)
    edges = {max(span.start - 1, 0), span.stop}
    assert (found.missing, found.expected) == (missing, len(here) + missing)
    assert found.verdict == ("incomplete" if missing else "complete" if edges <= seen else "not_verifiable")
    holes = [(h.gap.first_id, h.gap.last_id) for h in found.holes]
    known = seen | {n for n in dead if min(seen) < n < max(seen)}
    lost = [n for n in range(min(known), max(known)) if n not in known]
    touching = {n for first, last in holes for n in range(first, last + 1)}
    assert touching <= set(lost)
    assert {n for n in lost if span.start - 1 <= n <= span.stop} <= touching


@pytest.mark.parametrize(
    ("told", "verdict", "missing", "holds_up"),
    [(OPEN, "incomplete", 200, True), (UNRECOVERABLE, "incomplete", 200, True), (ACCEPTED, "incomplete", 200, False),
     (NOT_COLLECTED, "incomplete", 200, False), (ABSENT_AT_SOURCE, "complete", 0, False)],
)  # fmt: skip
def test_a_large_hole_holds_up_the_day_until_it_is_explained_or_accepted(told, verdict, missing, holds_up):
    around = {4, *range(5, 20), *range(220, 230), 230}
    found = by_ids(FEED, rows([*range(5, 20), *range(220, 230)]), state(around), [gap(20, 219, told)])
    assert (found.verdict, found.missing, bool(found.obstacles)) == (verdict, missing, holds_up)
    assert [(str(h.gap), h.state) for h in found.holes] == [(f"{FEED}:BTCUSDT:0:20-219", told)]


@pytest.mark.parametrize(("size", "holds_up"), [(100, False), (101, True)])
def test_a_hole_of_more_than_a_hundred_ids_holds_up_the_days_on_both_of_its_sides(size, holds_up):
    seen = {*range(10), *range(10 + size, 20 + size)}
    for ids in (range(10), range(10 + size, 20 + size)):
        found = by_ids(FEED, rows(list(ids)), state(seen), [])
        assert (bool(found.obstacles), found.verdict, found.missing) == (holds_up, "not_verifiable", 0)


def test_a_dead_letter_is_missing_but_no_hole():
    found = by_ids(FEED, rows([5, 7]), state({4, 5, 7, 8}, dead={6}), [])
    assert (found.verdict, found.missing, found.holes) == ("incomplete", 1, ())


def test_a_row_that_moved_to_the_next_date_is_not_missing():
    found = by_ids(FEED, rows([5, 7]), state({4, 5, 6, 7, 8}), [])
    assert (found.verdict, found.expected, found.missing) == ("complete", 2, 0)


def test_each_numbering_is_judged_by_itself():
    both = pa.concat_tables([rows([100, 101]), rows([1, 3], session=1)])
    seen = [Intervals.of(np.array(ids, np.int64)) for ids in ([99, 100, 101, 102], [0, 1, 3, 4])]
    stretches = (Stretch(EVER_MS, 0, 0), Stretch(1, 2, 1))
    known = ScopeState.of({0: ScopeState(seen[0]), 1: ScopeState(seen[1], session=1)}, stretches, frozenset())
    found = by_ids(FEED, both, known, [gap(2, 2, ACCEPTED, session=1)])
    assert (found.verdict, found.missing) == ("incomplete", 1)
    assert [(h.gap.session, h.state) for h in found.holes] == [(1, ACCEPTED)]


def issue(keys):
    return Issue(date(2014, 3, 11), len(keys), Sketch.of(ids_of(keys)))


@settings(max_examples=50)
@given(st.sets(st.integers(0, 99)), st.sets(st.integers(0, 99)))
def test_a_file_source_is_measured_by_its_latest_load_and_never_called_complete(stored, issued):
    found = by_issue(difference(pa.array(map(str, stored), pa.string()), issue([str(n) for n in issued])))
    differ = bool(issued - stored) or len(stored ^ issued) > 20
    assert found.verdict in (("incomplete",) if issued - stored else ("incomplete", "not_verifiable"))
    assert found.verdict == "not_verifiable" or differ
    assert found.expected == len(issued)
    assert found.missing <= len(issued - stored)
    if len(stored ^ issued) <= 10:
        assert (found.missing, found.withdrawn) == (len(issued - stored), len(stored - issued))


def test_without_a_load_or_a_row_nobody_can_know():
    assert by_issue(None).verdict == "not_verifiable"
    assert by_issue(Difference(5, 9, (), 2, is_whole=False)).missing == 4
    assert [without_rows(is_collected=told).verdict for told in (True, False)] == ["not_verifiable", "not_collected"]


def test_only_what_is_said_of_the_day_makes_a_new_version():
    said = dict.fromkeys(
        ("verdict", "expected", "present", "missing", "duplicates", "superseded", "withdrawn", "dead_letters", "gaps",
         "sums", "digest_columns", "sha256", "rules", "ranges", "table_uuid"), 1
    )  # fmt: skip
    assert changed(None, said)
    assert not changed({**said, "offsets": 1}, {**said, "offsets": 2})
    assert all(changed(said, {**said, name: 2}) for name in said)
