from __future__ import annotations

from functools import partial

import pytest
import yaml

from k2_core.feeds import parse_feeds
from k2_resources.rule_sets import load_sessions
from k2_resources.settings import Settings
from k2_tests.ticks import FEEDS

SESSIONS = partial(load_sessions, Settings().config)


def test_a_feed_is_read_back_from_its_entry():
    document = yaml.safe_load(yaml.safe_dump({"feeds": [feed.entry() for feed in FEEDS.values()]}))
    assert parse_feeds(document, SESSIONS) == tuple(FEEDS.values())


def test_the_asx_has_sessions_and_what_never_closes_has_none():
    having = {feed.name: feed.sessions.name for feed in FEEDS.values() if feed.sessions}
    assert having == {"asx-trades": "asx", "asx-quotes": "asx"}


@pytest.mark.parametrize("change", [{"exchange": "NYSE"}, {"timezone": "UTC"}])
def test_sessions_of_another_exchange_or_clock_are_refused(change):
    entry = {**FEEDS["asx-trades"].entry(), **change}
    with pytest.raises(ValueError, match="another exchange or clock"):
        parse_feeds({"feeds": [entry]}, SESSIONS)
