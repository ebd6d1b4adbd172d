from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from k2_core.errors import Misconfigured
from k2_feeds.exchange import ExchangeSettings, Limits, exchange
from k2_feeds.live.admission import Admission, Breaker, Quota, State
from k2_feeds.live.links import Counts, Link
from k2_resources.binance.stream import Endpoint
from k2_resources.spill import SpillFull
from k2_tests.feeds.live.scene import QUICK

SYMBOLS = ("SIMBTCUSDT", "SIMETHUSDT")
NAMES = tuple(f"{symbol.lower()}@trade" for symbol in SYMBOLS)


@pytest.fixture
def market():
    """An exchange in a hurry: `with market(...) as running`."""

    def open_market(**settings):
        settings = {"symbols": SYMBOLS, "speed": 60.0, "trades_per_second": 10.0, "awaits_client": True, **settings}
        return exchange(ExchangeSettings(**settings))

    return open_market


class Taken:
    """A sink, and what it got: ids by symbol, with repetitions."""

    def __init__(self):
        self.ids = defaultdict(Counter)

    def __call__(self, frame):
        event = json.loads(frame)["data"]
        if event.get("e") == "trade":
            self.ids[event["s"]][event["t"]] += 1

    @property
    def count(self):
        return sum(ids.total() for ids in self.ids.values())

    def is_whole(self):
        return all(set(ids) == set(range(min(ids), max(ids) + 1)) for ids in self.ids.values())


def link(running, sink, names=NAMES, timing=QUICK, admission=None, **endpoint):
    ours = Endpoint(running.ws_url, **endpoint)
    return Link("1", names, ours, admission or Admission(), sink, timing, Counts())


@asynccontextmanager
async def kept(ours):
    task = asyncio.create_task(ours.keep())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)  # the transport of an attempt that was cancelled closes in the next turn of the loop


async def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.01)


def scene(ours, *steps):
    """Keep a link while steps are taken: each is something to do or something to wait for."""

    async def play():
        async with kept(ours) as task:
            for step in steps:
                await until(lambda step=step: step() is not False or task.done())
                if task.done():
                    task.result()

    asyncio.run(play())


def test_frames_flow_and_pings_are_answered_with_their_payload(market):
    taken = Taken()
    with market(limits=Limits(ping_seconds=0.4, pong_seconds_max=1.5)) as running:
        ours = link(running, taken)
        started = time.monotonic()
        scene(ours, lambda: taken.count > 50 and time.monotonic() - started > 2.5)
    assert taken.is_whole()
    assert ours.counts.attempts == 1
    assert not ours.counts.replaced


def test_rotations_before_the_end_of_the_day_overlap_so_that_no_id_is_missing(market):
    taken = Taken()
    with market(limits=Limits(connection_seconds_max=6.0)) as running:
        ours = link(running, taken, timing=replace(QUICK, rotate=0.3, overlap=0.15))
        scene(ours, lambda: ours.counts.replaced["planned"] >= 4)
    assert ours.counts.replaced["ended"] == 0
    assert taken.is_whole()
    assert max(max(ids.values()) for ids in taken.ids.values()) == 2


def test_an_announced_cut_is_forestalled(market):
    taken = Taken()
    with market() as running:
        ours = link(running, taken)
        scene(
            ours,
            lambda: taken.count > 20,
            lambda: running.faults.inject("server_shutdown", seconds=2.0),
            lambda: ours.counts.replaced["server_shutdown"] == 1 and ours.counts.open == 1,
            lambda: taken.count > 200,
        )
    assert ours.counts.replaced.total() == 1
    assert taken.is_whole()


@pytest.mark.parametrize("kind", ["cut", "tear"])
def test_a_lost_connection_is_made_anew(market, kind):
    taken = Taken()
    with market() as running:
        ours = link(running, taken)
        scene(
            ours,
            lambda: taken.count > 20,
            lambda: running.faults.inject(kind),
            lambda: ours.counts.replaced["ended"] == 1 and ours.counts.open == 1,
            taken.ids.clear,
            lambda: taken.count > 20,
        )
    assert taken.is_whole()


@pytest.mark.parametrize(
    ("timing", "endpoint", "reason"),
    [(replace(QUICK, silence=0.5), {}, "silence"), (QUICK, {"ping_seconds": 1.0}, "ended")],
    ids=["by its silence", "by a ping nobody answers"],
)
def test_a_half_open_socket_is_found_and_replaced(market, timing, endpoint, reason):
    taken = Taken()
    with market(trades_per_second=20.0) as running:
        ours = link(running, taken, timing=timing, **endpoint)
        scene(
            ours,
            lambda: taken.count > 20,
            lambda: running.faults.inject("half_open"),
            lambda: ours.counts.replaced[reason] >= 1 and ours.counts.open == 1,
            taken.ids.clear,
            lambda: taken.count > 20,
        )
    assert set(ours.counts.replaced) == {reason}


def test_refused_attempts_are_repeated_until_the_breaker_opens(market):
    taken, gate = Taken(), Admission(breaker=Breaker(open_seconds=0.5))
    with market() as running:
        running.faults.inject("refuse", count=4)
        ours = link(running, taken, admission=gate)
        scene(
            ours,
            lambda: gate.breaker.state is State.OPEN,
            lambda: ours.counts.failures == 3,
            lambda: taken.count > 10,
        )
        assert running.stats()["connections_refused"] == 4
    assert ours.counts.failures == 4
    assert gate.breaker.state is State.CLOSED


def test_whoever_accepts_and_cuts_at_once_is_not_hammered(market):
    gate = Admission(breaker=Breaker(open_seconds=60.0))
    with market(limits=Limits(connection_seconds_max=0.05)) as running:
        ours = link(running, Taken(), timing=replace(QUICK, stable=30.0), admission=gate)
        scene(ours, lambda: gate.breaker.state is State.OPEN)
        assert running.stats()["connection_attempts"] <= 4


def test_who_is_told_to_stay_away_does_so_on_all_connections(market):
    gate = Admission(breaker=Breaker(failures_max=100))
    with market(limits=Limits(attempts_max=1, attempts_window_seconds=2.0)) as running:
        links = [link(running, Taken(), admission=gate) for _ in range(2)]
        started = time.monotonic()

        async def play():
            async with kept(links[0]), kept(links[1]):
                await until(lambda: sum(ours.counts.open for ours in links) == 2)

        asyncio.run(play())
        assert time.monotonic() - started > 1.9
        assert running.stats()["connections_refused"] == 1


def test_the_quota_is_shared_by_all_connections(market):
    gate = Admission(Quota(3, 300.0))
    with market() as running:
        links = [link(running, Taken(), admission=gate) for _ in range(5)]

        async def play():
            async with kept(links[0]), kept(links[1]), kept(links[2]), kept(links[3]), kept(links[4]):
                await until(lambda: sum(ours.counts.open for ours in links) == 3)
                await asyncio.sleep(0.3)

        asyncio.run(play())
        assert running.stats()["connection_attempts"] == 3


def test_more_streams_than_a_url_holds_are_subscribed_within_the_message_limit(market):
    names = tuple(f"sim{number}usdt@trade" for number in range(600)) + NAMES
    taken = Taken()
    with market() as running:
        ours = link(running, taken, names=names)
        scene(ours, lambda: ours.counts.open == 1, lambda: taken.count > 20)
        assert ours.counts.attempts == 1
    assert taken.ids.keys() == set(SYMBOLS)


def test_what_the_sink_raises_ends_the_link(market):
    def full(_frame):
        raise SpillFull("no room")

    with market() as running, pytest.raises(SpillFull):
        scene(link(running, full), lambda: False)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "ws://"])
def test_an_address_that_can_be_none_is_said_at_once(url):
    async def play():
        await Link("1", NAMES, Endpoint(url), Admission(), Taken(), QUICK, Counts()).keep()

    with pytest.raises(Misconfigured):
        asyncio.run(play())
