from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from k2_core.sequences import MAX_ID, Intervals, ScopeState, hole_changes

ids = st.lists(st.integers(0, 60), max_size=40)


def naive_holes(seen: set[int]) -> list[tuple[int, int]]:
    missing = [i for i in range(min(seen), max(seen)) if i not in seen] if seen else []
    holes: list[tuple[int, int]] = []
    for i in missing:
        if holes and holes[-1][1] == i - 1:
            holes[-1] = (holes[-1][0], i)
        else:
            holes.append((i, i))
    return holes


@given(ids, ids)
def test_intervals_agree_with_a_naive_set(first, second):
    both = Intervals.of(np.array(first, np.int64)).union(Intervals.of(np.array(second, np.int64)))
    everything = set(first) | set(second)
    probe = np.arange(-1, 62)
    assert [i for i in probe if both.contains(np.array([i]))[0]] == sorted(everything)
    assert both.holes() == naive_holes(everything)
    assert both.highest == max(everything, default=None)


@given(ids, ids, st.booleans())
def test_hole_changes_turn_the_old_holes_into_the_new_ones(first, second, grows):
    before = Intervals.of(np.array(first, np.int64))
    after = Intervals.of(np.array(second + first if grows else second, np.int64))
    holes = set(before.holes())
    for change in hole_changes(before, after):
        span = (change.first, change.last)
        if change.state == "filled":
            holes.remove(span)
        else:
            holes.add(span)
            if change.parent:
                assert change.parent in before.holes()
                assert change.parent[0] <= span[0] and span[1] <= change.parent[1]
    assert holes == set(after.holes())


@given(ids, ids, st.integers(1, 4))
def test_a_cover_holds_its_set_has_few_holes_and_still_tells_the_two_highest(first, second, holes_max):
    cover = Intervals.of(np.array(first, np.int64)).covered(holes_max)
    cover = cover.union(Intervals.of(np.array(second, np.int64))).covered(holes_max)
    everything = sorted(set(first) | set(second))
    assert cover.contains(np.array(everything, np.int64)).all()
    assert len(cover.holes()) <= holes_max
    assert cover.highest_two == tuple([None, None, *everything][-2:])


@given(ids, ids)
def test_what_follows_is_joined_like_any_other_set(first, second):
    low = Intervals.of(np.array(first, np.int64))
    high = Intervals.of(np.array(second, np.int64) + 60)
    assert low.followed_by(high.firsts.tolist(), high.lasts.tolist()) == low.union(high)


def test_a_shrunk_hole_closes_and_its_remainders_name_it_as_parent():
    before = Intervals.of(np.array([1, 10]))
    after = before.union(Intervals.of(np.array([5])))
    changes = [(c.first, c.last, c.state, c.parent) for c in hole_changes(before, after)]
    assert changes == [(2, 9, "filled", None), (2, 4, "open", (2, 9)), (6, 9, "open", (2, 9))]


def test_the_largest_id_is_storable():
    seen = Intervals.of(np.array([MAX_ID, MAX_ID - 1, 0], np.int64))
    assert seen.holes() == [(1, MAX_ID - 2)]
    assert seen.union(Intervals.of(np.array([MAX_ID], np.int64))) == seen


def test_a_dead_id_far_away_opens_no_hole_until_the_stored_ids_reach_it():
    state = ScopeState(seen=Intervals.of(np.array([5, 6])), dead=Intervals.of(np.array([10**15, 8])))
    assert state.known().holes() == []
    reached = ScopeState(seen=state.seen.union(Intervals.of(np.array([9]))), dead=state.dead)
    assert reached.known().holes() == [(7, 7)]
