from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.issues import Issue, Sketch, difference, ids_of, latest_issues
from k2_core.quality import Reason
from k2_tests.core.test_judge import Lake
from k2_tests.ticks import FEEDS

DAY = date(2014, 3, 11)
NOW = datetime(2026, 11, 21, tzinfo=UTC)
KEYS = [f"ASX:BHP:trade:2014-03-11:{n}:36.55:400:5:0" for n in range(300)]

key_sets = st.sets(st.sampled_from(KEYS))


def issue_of(keys, day=DAY):
    return Issue(day, len(keys), Sketch.of(ids_of(keys)))


def compared(stored, issued):
    return difference(pa.array(stored, pa.string()), issue_of(issued))


def test_a_withdrawn_key_is_named():
    found = compared(KEYS, KEYS[:7] + KEYS[8:])
    assert (found.withdrawn, found.missing, found.stored, found.issued) == ((KEYS[7],), 0, 300, 299)
    assert found.is_whole


def test_the_same_keys_in_another_order_do_not_differ():
    found = compared(KEYS, KEYS[::-1])
    assert (found.withdrawn, found.missing, found.is_whole) == ((), 0, True)
    assert issue_of(KEYS).evidence() == issue_of(KEYS[::-1]).evidence()


@given(st.sets(st.sampled_from(KEYS), max_size=6), st.sets(st.integers(0, 9), max_size=6))
def test_few_differences_are_named_and_counted_both_ways(withdrawn, waiting):
    issued = [key for key in KEYS if key not in withdrawn] + [f"not stored {n}" for n in waiting]
    found = compared(KEYS, issued)
    if found.is_whole:
        assert (set(found.withdrawn), found.missing) == (withdrawn, len(waiting))
    assert set(found.withdrawn) <= withdrawn
    assert found.missing <= len(waiting)


def test_few_differences_are_nearly_always_all_named():
    draw = np.random.default_rng(7)
    whole = [compared(KEYS, draw.choice(KEYS, 280, replace=False).tolist()) for _ in range(50)]
    assert sum(found.is_whole and len(found.withdrawn) == 20 for found in whole) >= 48


def test_where_too_many_differ_nothing_false_is_named_and_the_counts_are_told():
    found = compared(KEYS, KEYS[:100])
    assert not found.is_whole
    assert set(found.withdrawn) <= set(KEYS[100:])
    assert (found.stored, found.issued) == (300, 100)


@given(key_sets, key_sets)
def test_sketches_add_up_like_the_keys_they_are_of(one, other):
    apart = other - one
    together = Sketch.of(ids_of(one)) + Sketch.of(ids_of(apart))
    assert together.digest == Sketch.of(ids_of(one | apart)).digest
    assert (together - Sketch.of(ids_of(apart)) - Sketch.of(ids_of(one))).is_empty
    assert (Sketch.of(ids_of(one)).digest == Sketch.of(ids_of(other)).digest) == (one == other)


@given(key_sets)
def test_an_issue_is_read_back_as_it_was_stated(keys):
    stated = issue_of(sorted(keys))
    read = Issue.parse(stated.evidence())
    assert (read.exchange_date, read.keys, read.sketch.digest) == (DAY, len(keys), stated.sketch.digest)


def test_evidence_is_of_one_size_whatever_the_keys():
    assert len(issue_of(KEYS).evidence()) - len(issue_of(KEYS[:10]).evidence()) == 1
    assert len(issue_of(KEYS).evidence()) < 1_600


@pytest.mark.parametrize(
    "change", [{"sketch": "!"}, {"sketch": "AAAA"}, {"digest": "0"}, {"keys": None}, {"exchange_date": "today"}]
)
def test_evidence_that_was_changed_is_refused(change):
    stated = json.loads(issue_of(KEYS).evidence())
    with pytest.raises(ValueError, match="issue"):
        Issue.parse(json.dumps({**stated, **change}))


def statement(number, keys, **changes):
    return {
        "message_id": f"COVERAGE:{number}",
        "timestamp": NOW + timedelta(seconds=number),
        "event": "issued",
        "feed": "asx-trades",
        "symbol": "BHP",
        "evidence": issue_of(keys).evidence(),
        **changes,
    }


def test_the_latest_issue_of_a_day_is_the_one_stated_last():
    again = statement(3, KEYS[:10])
    told = [again, statement(1, KEYS[:10]), statement(2, KEYS[:9]), statement(9, [], event="closed", evidence=None)]
    latest = latest_issues(pa.Table.from_pylist(told))
    assert {at: issue.keys for at, issue in latest.items()} == {("asx-trades", "BHP", DAY): 10}
    other = issue_of(KEYS, date(2014, 3, 12)).evidence()
    latest = latest_issues(pa.Table.from_pylist([*told, statement(4, [], evidence=other)]))
    assert {at[2]: issue.keys for at, issue in latest.items()} == {DAY: 10, date(2014, 3, 12): 300}


def test_a_garbled_issue_is_named_and_never_passed_over():
    with pytest.raises(ValueError, match="COVERAGE:5"):
        latest_issues(pa.Table.from_pylist([statement(1, KEYS), statement(5, KEYS, evidence="{}")]))


def test_a_statement_of_an_issue_that_is_none_is_a_dead_letter_and_its_neighbours_are_rows():
    lake = Lake(FEEDS["coverage"])
    lake.feed_in(coverage(1, KEYS), coverage(2, KEYS, evidence="{}"), coverage(3, [], event="closed", evidence=None))
    assert [dead.reason for dead in lake.dead] == [Reason.BAD_ISSUE]
    assert sorted(lake.rows["message_id"].to_pylist()) == ["COVERAGE:1", "COVERAGE:3"]


def coverage(number, keys, **changes):
    """A statement with every column of its contract."""
    nothing = dict.fromkeys(("first_id", "last_id", "opened", "closed", "letter", "delivered", "gap_id"))
    told = {"collection_id": "run", "source": "a test", "exchange": "ASX", "rows": len(keys), "rejected": 0}
    stated = statement(number, keys, **changes)
    return {**nothing, **told, **stated, "ingestion_timestamp": stated["timestamp"]}
