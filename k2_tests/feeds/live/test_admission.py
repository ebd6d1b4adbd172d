from __future__ import annotations

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from k2_feeds.live.admission import Admission, Breaker, Quota, State, backoff


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 5))
def test_no_stretch_of_time_holds_more_attempts_than_allowed(steps, attempts_max):
    quota, now, made = Quota(attempts_max, 100.0), 0.0, []
    for step in steps:
        now += step
        wait = quota.take(now)
        if wait:
            assert len([at for at in made if at > now - 100.0]) == attempts_max
            now += wait
            assert quota.take(now) == 0
        made.append(now)
    for end in made:
        assert len([at for at in made if end - 100.0 < at <= end]) <= attempts_max


def test_the_quota_says_how_long_to_wait():
    quota = Quota(2, 300.0)
    assert [quota.take(0.0), quota.take(10.0), quota.take(20.0)] == [0.0, 0.0, 280.0]
    assert quota.take(300.0) == 0.0


def test_three_failures_open_the_breaker_for_half_a_minute():
    breaker = Breaker()
    for at in (0.0, 1.0):
        breaker.failed(at)
    assert breaker.admit(1.0) == 0
    breaker.failed(2.0)
    assert breaker.state is State.OPEN
    assert breaker.admit(12.0) == 20.0
    assert breaker.admit(31.9) > 0


def test_then_one_probe_goes_and_the_rest_waits_for_what_it_finds():
    breaker = Breaker(failures_max=1, open_seconds=30.0)
    breaker.failed(0.0)
    assert breaker.admit(30.0) == 0
    assert breaker.state is State.HALF_OPEN
    assert breaker.admit(30.1) > 0
    breaker.failed(31.0)
    assert breaker.state is State.OPEN
    assert breaker.admit(60.9) > 0
    assert breaker.admit(61.0) == 0
    breaker.succeeded()
    assert breaker.state is State.CLOSED
    assert [breaker.admit(61.0) for _ in range(3)] == [0, 0, 0]


def test_what_lasts_forgets_the_failures_before_it_and_what_only_opens_does_not():
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(0.0)
        breaker.succeeded()
        breaker.proved()
    assert breaker.state is State.CLOSED
    for _ in range(3):
        breaker.succeeded()
        breaker.failed(0.0)
    assert breaker.state is State.OPEN


def test_a_probe_that_went_away_leaves_its_place_to_the_next():
    breaker = Breaker(failures_max=1)
    breaker.failed(0.0)
    assert breaker.admit(40.0) == 0
    breaker.abandoned(41.0)
    assert breaker.admit(41.0) == 0


@given(st.integers(1, 10_000))
def test_the_backoff_doubles_up_to_its_limit(failures):
    assert 0 <= backoff(failures, first=0.5, seconds_max=60.0) <= min(60.0, 0.5 * 2 ** min(failures - 1, 16))


def test_connections_that_failed_together_do_not_come_back_together():
    assert len({round(backoff(5), 3) for _ in range(20)}) > 10


def test_who_is_cancelled_while_waiting_for_the_quota_takes_no_probe_with_him():
    async def scene():
        gate = Admission(Quota(1, 1_000.0), Breaker(failures_max=1, open_seconds=0.05))
        await gate.enter()
        gate.failed()
        await asyncio.sleep(0.06)
        waiting = asyncio.create_task(gate.enter())
        await asyncio.sleep(0.02)
        assert gate.breaker.state is State.HALF_OPEN
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return gate.breaker.admit(time.monotonic())

    assert asyncio.run(scene()) == 0
