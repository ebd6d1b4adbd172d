"""Which files are rewritten, how often a row is, and how a sort order is cut: against what a person would count."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.compaction import Group, Limits, StoredFile, bundles, groups, moved, open_from, slices
from k2_core.provenance import UNREAD, Readers
from k2_core.receipts import Committed, RangeCount, Receipt

TODAY = date(2024, 8, 8)
BEFORE = date(2024, 8, 7)
LIMITS = Limits(rows_max=1_000, fragments_max=4)


def stored(number: int, rows: int = 10, day: date = TODAY, *, is_sorted: bool = False, mixed: bool = False):
    return StoredFile(f"{day}/{number}", number, day, rows, is_sorted, mixed)


def planned(files, open_date: date = TODAY):
    return groups(files, open_date, LIMITS)


def test_a_date_is_open_until_it_has_settled_after_its_end_in_utc():
    settle = timedelta(hours=12)
    assert open_from(datetime(2024, 8, 9, 11, 59, tzinfo=UTC), settle) == date(2024, 8, 8)
    assert open_from(datetime(2024, 8, 9, 12, tzinfo=UTC), settle) == date(2024, 8, 9)


def test_a_closed_date_of_several_files_is_rewritten_whole_whatever_their_size():
    files = [stored(2, 900, BEFORE), stored(1, 5_000, BEFORE)]
    assert planned(files) == [Group(BEFORE, (files[1], files[0]), closes=True)]


@pytest.mark.parametrize("files", [[stored(1, day=BEFORE)], [stored(n, day=TODAY) for n in range(4)], []])
def test_one_file_of_a_closed_date_and_few_of_an_open_one_are_left_alone(files):
    assert planned(files) == []


def test_a_closed_date_whose_one_file_mixes_revisions_with_first_versions_is_rewritten():
    assert [g.closes for g in planned([stored(1, day=BEFORE, mixed=True)])] == [True]


def test_what_comes_late_to_a_closed_date_is_folded_by_itself_and_never_touches_what_is_sorted():
    closed = stored(1, 800, BEFORE, is_sorted=True)
    late = [stored(n, 3, BEFORE) for n in range(2, 7)]
    assert planned([closed, *late[:4]]) == []
    assert planned([closed, *late]) == [Group(BEFORE, tuple(late), closes=False)]


def test_files_of_an_open_date_are_folded_with_others_of_their_size_only():
    small, large = [stored(n, 3) for n in range(5)], [stored(n, 700) for n in range(10, 14)]
    assert planned([*small, *large]) == [Group(TODAY, tuple(small), closes=False)]
    assert planned([stored(n, 1_000) for n in range(9)]) == []


@given(st.lists(st.integers(1, 40), min_size=1, max_size=600))
def test_an_open_date_keeps_few_files_and_no_row_is_written_often(batches):
    files: list[StoredFile] = []
    written = 0
    limits = Limits(rows_max=100_000, fragments_max=8)
    for number, rows in enumerate(batches):
        files.append(stored(number, rows))
        for group in groups(files, TODAY, limits):
            files = [f for f in files if f not in group.files] + [stored(number, group.rows)]
            written += group.rows
    assert sum(f.rows for f in files) == sum(batches)
    assert len(files) <= 4 * 8, "four tiers up to a million rows"
    assert written <= 4 * sum(batches)


@given(st.lists(st.integers(1, 2_000), max_size=30))
def test_bundles_hold_every_group_once_and_are_no_larger_than_a_file_or_one_group(sizes):
    found = [Group(TODAY + timedelta(days=n), (stored(n, rows),), closes=True) for n, rows in enumerate(sizes)]
    bundled = list(bundles(found, 1_000))
    assert [g for bundle in bundled for g in bundle] == found
    assert all(len(b) == 1 or sum(g.rows for g in b) <= 1_000 for b in bundled)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 50)), min_size=1, max_size=300), st.integers(1, 60))
def test_every_row_is_in_exactly_one_slice_and_a_slice_is_no_larger_than_it_must_be(rows, rows_max):
    def seconds(value):
        return np.array([second for lead, second in rows if lead == value], np.int64)

    cut = slices(dict(Counter(lead for lead, _ in rows)), rows_max, seconds)
    held = [[row for row in rows if _holds(part, *row)] for part in cut]
    assert Counter(row for part in held for row in part) == Counter(rows)
    assert all(len(part) <= rows_max or max(Counter(part).values()) > 1 for part in held)
    for before, after in itertools.pairwise(held):
        assert not before or not after or max(before) < min(after)
    assert max(map(len, held)) <= rows_max + max(Counter(rows).values())


def _holds(part, lead, second) -> bool:
    if not part.first <= lead <= part.last:
        return False
    return (part.start is None or second >= part.start) and (part.end is None or second < part.end)


def test_a_value_with_too_many_rows_and_no_second_column_stays_whole():
    cut = slices({"a": 500, "b": 3}, 100, lambda _: np.empty(0, np.int64))
    assert [(part.first, part.last, part.start, part.end) for part in cut] == [
        ("a", "a", None, None),
        ("b", "b", None, None),
    ]


def test_rows_that_vanish_or_appear_are_told_by_log_partition():
    told = moved(Counter({("t", 0, 0): 5, ("t", 0, 1): 2}), Counter({("t", 0, 0): 5, ("t", 1, 0): 2}))
    assert [(m.kafka_epoch, m.kafka_partition, m.rows_in, m.rows_out) for m in told] == [
        (0, 0, 5, 5),
        (0, 1, 2, 0),
        (1, 0, 0, 2),
    ]


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(1, 9)), max_size=20),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 60)), max_size=60),
)
def test_a_row_is_told_to_the_commit_whose_range_its_offset_is_in(reads, places):
    ends: dict[tuple[int, int], int] = {}
    history, owner = [], {}
    for number, (epoch, partition, count) in enumerate(reads, start=1):
        start = ends.get((epoch, partition), 3)
        ends[epoch, partition] = start + count
        ranges = (RangeCount("t", epoch, partition, start, start + count, count, count),)
        history.append(_committed(number, ranges))
        owner |= {(epoch, partition, offset): number for offset in range(start, start + count)}
    rows = pa.table(
        {
            "kafka_topic": pa.array(["t"] * len(places), pa.string()),
            "kafka_epoch": pa.array([e for e, _, _ in places], pa.int32()),
            "kafka_partition": pa.array([p for _, p, _ in places], pa.int32()),
            "kafka_offset": pa.array([o for _, _, o in places], pa.int64()),
        }
    )
    assert Readers(history).of(rows).tolist() == [owner.get(place, UNREAD) for place in places]


def _committed(number: int, ranges: tuple[RangeCount, ...]) -> Committed:
    receipt = Receipt("market_data.trades", "batch", "run", "0", "1", ranges)
    return Committed(receipt, "uuid", number, number, datetime(2024, 8, 8, tzinfo=UTC), "path", "sha")
