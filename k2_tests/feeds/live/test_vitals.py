from __future__ import annotations

import pytest

from k2_feeds.live.vitals import Memory, Silence, Skew, leak_score

MB = 1_000_000


@pytest.mark.parametrize(
    ("growth", "score"), [(-30, 0.0), (0, 0.0), (5, 0.25), (10, 0.5), (30, 0.75), (50, 1.0), (500, 1.0)]
)
def test_a_leak_is_scored_by_its_growth(growth, score):
    assert leak_score(growth) == pytest.approx(score)


@pytest.mark.parametrize("growth", [0, 10, 50])
def test_growth_is_the_slope_of_memory_whatever_saws_at_it(growth):
    memory = Memory()
    for second in range(0, 3_601, 15):
        memory.sample(second, 300 * MB + int(growth * MB * second / 3_600) + (second % 45) * MB // 10)
    assert memory.mb_per_hour == pytest.approx(growth, abs=0.5)
    assert memory.score == pytest.approx(leak_score(growth), abs=0.03)


def test_the_start_is_not_called_a_leak_and_old_samples_go():
    memory = Memory(window_seconds=100, seconds_min=50)
    memory.sample(0, 0)
    memory.sample(40, 500 * MB)
    assert memory.score == 0
    for second in range(41, 300):
        memory.sample(second, 500 * MB)
    assert memory.mb_per_hour == pytest.approx(0, abs=1e-6)
    assert memory.resident_bytes == 500 * MB


def test_one_sample_says_nothing():
    memory = Memory()
    assert (memory.mb_per_hour, memory.resident_bytes) == (0.0, 0)


def test_the_skew_is_the_shortest_way_of_the_last_minutes():
    skew = Skew(window_seconds=60)
    assert skew.seconds is None
    for now, took in ((0, 0.3), (10, -1.2), (50, 0.2), (61, 0.4)):
        skew.took(now, took)
    assert skew.seconds == -1.2
    skew.took(125, 0.25)
    assert skew.seconds == 0.25


def test_a_symbol_is_stale_once_and_until_it_speaks():
    silence = Silence(30)
    silence.expect(["A", "B"], 0)
    assert silence.looked(29) == ([], [])
    silence.heard["B"] = 20
    assert silence.looked(31) == (["A"], [])
    assert silence.looked(35) == ([], [])
    assert silence.stale == {"A"}
    assert silence.longest(35) == 35
    silence.heard["A"] = 40
    assert silence.looked(41) == ([], ["A"])
