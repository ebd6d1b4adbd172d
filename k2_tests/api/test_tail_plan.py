from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from k2_api.tail import Tail
from k2_api.tail_plan import Reason, following
from k2_core.contracts import TRADES
from k2_core.keys import offset_key, paused_key, topic_key
from k2_core.offsets import Position
from k2_core.protocol.planning import Registered
from k2_core.protocol.ports import Head
from k2_core.records import Incarnation, Watermarks
from k2_core.standing import LogView
from k2_tests.api.homes import lake_of, settings_of
from k2_tests.ticks import FEEDS

FEED = FEEDS["binance-trades"]
HERE, ANOTHER = Incarnation("cluster", "topic"), Incarnation("cluster", "topic made anew")


def head(properties: Mapping[str, str]) -> Head:
    return Head(TRADES, "uuid", properties, None)


def registered(**nexts: int) -> dict[str, str]:
    """Properties of a table that has read so far; p0=7 is offset 7 of Kafka partition 0."""
    offsets = {offset_key(FEED.topic, int(p[1:])): str(Position(0, at)) for p, at in nexts.items()}
    return {topic_key(FEED.topic): Registered(0, HERE).to_json(), **offsets}


def log(incarnation: Incarnation | None = HERE, **marks: tuple[int, int]) -> LogView:
    found = {} if incarnation is None else {FEED.topic: incarnation}
    return LogView(found, {(FEED.topic, int(p[1:])): Watermarks(*m) for p, m in marks.items()})


def test_it_goes_on_where_the_table_stands_and_at_the_start_of_a_partition_added_later() -> None:
    seen = log(p0=(2, 9), p1=(0, 4))
    plan = following(head(registered(p0=7)), [FEED], seen, {})
    assert {p: start for (_, p), start in plan.starts.items()} == {0: 7, 1: 0}
    assert (plan.waiting(seen), plan.reason()) == (6, None)


def test_it_goes_on_where_it_stood_itself() -> None:
    ends = {(FEED.topic, 0): Position(0, 8)}
    assert following(head(registered(p0=7)), [FEED], log(p0=(2, 9)), ends).starts == {(FEED.topic, 0): 8}


def test_a_topic_nobody_has_read_yet_is_followed_from_where_its_registration_will_be() -> None:
    plan = following(head({}), [FEED], log(p0=(3, 9)), {})
    assert (plan.starts, plan.under) == ({(FEED.topic, 0): 3}, {FEED.topic: Registered(0, HERE)})


def test_a_topic_nobody_has_made_yet_is_no_trouble() -> None:
    plan = following(head({}), [FEED], log(None), {})
    assert (plan.starts, plan.reason()) == ({}, None)


@pytest.mark.parametrize(
    ("properties", "seen", "ends", "reason"),
    [
        (registered(p0=7), log(ANOTHER, p0=(0, 9)), {}, Reason.HALTED),
        (registered(p0=7), log(None), {}, Reason.HALTED),
        (registered(p0=7), log(p0=(8, 9)), {}, Reason.HALTED),
        (registered(p0=7), log(p0=(0, 6)), {}, Reason.HALTED),
        (registered(p0=7), log(p0=(0, 8)), {(FEED.topic, 0): Position(0, 9)}, Reason.HALTED),
        ({**registered(p0=7), paused_key(FEED.topic, 0): "why"}, log(p0=(0, 9)), {}, Reason.PAUSED),
    ],
    ids=["made anew", "gone", "records gone", "cut", "cut behind us", "paused"],
)
def test_what_ingest_does_not_read_the_tail_does_not_show(
    properties: dict[str, str], seen: LogView, ends: dict[Any, Position], reason: Reason
) -> None:
    plan = following(head(properties), [FEED], seen, ends)
    assert (plan.starts, plan.reason()) == ({}, reason)


def test_what_a_killed_server_left_behind_is_taken_away_and_nothing_else(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    dead, alive = settings.home / "run" / "tail-999999999-abc", settings.home / "run" / f"tail-{os.getpid()}-abc"
    other = settings.home / "run" / "tail-ed"
    for folder in (dead, alive, other):
        folder.mkdir(parents=True)
    tail = Tail(settings, [FEED], lake_of(settings))
    assert [dead.exists(), alive.exists(), other.exists()] == [False, True, True]
    tail.start()
    tail.close()
    assert sorted(folder.name for folder in (settings.home / "run").iterdir()) == sorted([alive.name, other.name])
