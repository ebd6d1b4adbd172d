"""What commits changed of which dates, followed commit by commit, is what the audit tables say when all is told."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from k2_core.contracts import TRADES
from k2_core.receipts import DateRows
from k2_resources.lake.bar_facts import BarFacts
from k2_resources.lake.derived_reads import holes_of
from k2_tests.lakes import DAY, FEED, Batch, collect, expire, new_lake, put, register

DAYS = [DAY + timedelta(days=n) for n in range(3)]


def dates(*days: date) -> tuple[DateRows, ...]:
    return tuple(DateRows(day, FEED.name, 1) for day in days)


@pytest.fixture
def lake(tmp_path):
    made = new_lake(tmp_path / "k2")
    register(made)
    return made


def facts_of(lake):
    facts = BarFacts(lake)
    facts.reach(*head(lake))
    return facts


def head(lake):
    at = lake.head(TRADES)
    return at.table_uuid, at.loaded.current_snapshot().sequence_number


def told(facts, until):
    commits = range(1, until + 1)
    same = [facts.is_unchanged(day, one, other) for day in DAYS for one in commits for other in commits]
    return same, [facts.holes(day, "BTCUSDT", number) for day in DAYS for number in commits]


def test_facts_followed_commit_by_commit_are_those_read_at_once(lake):
    followed, named = facts_of(lake), [(0,), (0, 1), (1,), (2,), (0, 2)]
    for n, places in enumerate(named):
        first = 10 * n + 10
        gaps = [(first + 1, first + 4)] if n % 2 else []
        put(lake, Batch(trades=[first, first + 5], gaps=gaps, dates=dates(*(DAYS[p] for p in places))))
        if n == 2:
            collect(lake, TRADES)
        followed.reach(*head(lake))
    _, until = head(lake)
    assert told(facts_of(lake), until) == told(followed, until)
    collect(lake, TRADES)
    assert told(facts_of(lake), until) == told(followed, until)
    assert [len(followed.holes(DAY, "BTCUSDT", number)) for number in (2, 3, 5)] == [0, 1, 2]
    assert followed.holes(DAY, "BTCUSDT", until) == holes_of(lake, DAY, until)
    assert followed.holes(DAY, "ETHUSDT", until) == []


def test_a_date_is_the_same_at_two_commits_when_none_between_them_names_it(lake):
    for day in (0, 1, 0, 2):
        put(lake, Batch(trades=[10 * day + 1], dates=dates(DAYS[day])))
    facts = facts_of(lake)  # commits 2 to 5
    assert [facts.is_unchanged(DAYS[0], one, other) for one, other in ((2, 3), (3, 4), (4, 5), (5, 2), (3, 2))] == [
        True, False, True, False, True,
    ]  # fmt: skip
    facts.forget(DAYS[0], 4)
    assert [facts.is_unchanged(DAYS[0], one, other) for one, other in ((4, 5), (3, 4), (2, 4))] == [True, False, False]


def test_facts_are_read_anew_where_the_history_was_forgotten_meanwhile(lake):
    put(lake, Batch(trades=[1], dates=dates(DAYS[0])))
    followed = facts_of(lake)
    for n in range(2, 5):
        put(lake, Batch(trades=[10 * n], gaps=[(10 * n - 8, 10 * n - 1)], dates=dates(DAYS[n % 3])))
    collect(lake, TRADES)
    expire(lake)
    followed.reach(*head(lake))
    _, until = head(lake)
    assert told(followed, until) == told(facts_of(lake), until)
    assert len(followed.holes(DAY, "BTCUSDT", until)) == 3
