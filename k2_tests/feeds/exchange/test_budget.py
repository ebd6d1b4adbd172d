from __future__ import annotations

import pytest

from k2_core.errors import BadInput
from k2_feeds.exchange.budget import WeightBudget, Window
from k2_feeds.exchange.settings import Limits

LIMITS = Limits(weight_max=100, weight_window_seconds=60, refusals_max=2, ban_seconds=120)


def test_a_window_moves_with_time():
    window = Window(2, 10.0)
    assert [window.admit(at) for at in (0.0, 1.0, 2.0)] == [True, True, False]
    assert window.admit(12.5)


def test_who_hammers_a_window_stays_out():
    window = Window(2, 10.0)
    assert [window.admit(0.1 * i) for i in range(200)].count(True) == 2


def test_weight_is_refused_when_spent_and_free_again_in_the_next_window():
    budget = WeightBudget(LIMITS)
    assert budget.ask(60, 30.0).status == 200
    assert budget.ask(40, 31.0).status == 200
    assert budget.used == 100
    assert budget.ask(1, 32.5) == (429, 28)
    assert budget.ask(1, 60.0).status == 200
    assert budget.used == 1


def test_who_does_not_wait_is_banned_each_time_for_twice_as_long():
    budget = WeightBudget(LIMITS)
    statuses = [budget.ask(101, 0.0).status, *(budget.ask(1, 0.1 * i).status for i in range(1, 4))]
    assert statuses == [429, 429, 429, 418]
    assert budget.ask(1, 10.0).status == 418
    assert budget.ask(101, 130.0).status == 429
    again = [budget.ask(1, 130.0 + 0.1 * i) for i in range(1, 4)]
    assert again[-1] == (418, 240)


def test_who_waits_as_told_is_never_banned():
    budget, now = WeightBudget(LIMITS), 0.0
    for _ in range(50):
        verdict = budget.ask(60, now)
        assert verdict.status in (200, 429)
        now += verdict.retry_seconds
    assert budget.ask(1, now + 60).status == 200


def test_only_a_connections_day_is_hurried():
    hurried = Limits().hurried(8_640)
    assert (hurried.connection_seconds_max, hurried.ping_seconds, hurried.weight_window_seconds) == (10.0, 20.0, 60.0)


@pytest.mark.parametrize("wrong", [{"streams_max": 0}, {"ping_seconds": -1.0}])
def test_limits_that_admit_nothing_are_refused(wrong):
    with pytest.raises(BadInput):
        Limits(**wrong)
    with pytest.raises(BadInput):
        Limits().hurried(0)
