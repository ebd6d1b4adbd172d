from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.exchange_dates import local_times
from k2_core.quality import Flag
from k2_core.screen import screen
from k2_core.sessions import parse_sessions, within
from k2_resources.rule_sets import load_sessions
from k2_resources.settings import Settings
from k2_tests.ticks import FEEDS, asx_trade, table_of, trade

SYDNEY = ZoneInfo("Australia/Sydney")
ASX = load_sessions(Settings().config, "asx")
STAGGERED, TOGETHER = date(2025, 6, 20), date(2025, 6, 23)
TODAY = date(2026, 11, 21)


def clock(microseconds):
    return (datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).time().isoformat()


def named(phases):
    return {phase.name: (clock(phase.start_us), clock(phase.end_us)) for phase in phases}


@pytest.mark.parametrize(
    ("symbol", "earliest", "certain"),
    [("3DP", "09:59:45", "10:00:15"), ("BHP", "09:59:45", "10:00:15"), ("bhp", "09:59:45", "10:00:15"),
     ("CBA", "10:02:00", "10:02:30"), ("MWR", "10:04:15", "10:04:45"), ("RIO", "10:06:30", "10:07:00"),
     ("WBC", "10:08:45", "10:09:15"), ("ØRE", "10:08:45", "10:09:15")],
)  # fmt: skip
def test_until_2025_symbols_open_by_their_first_letter(symbol, earliest, certain):
    (trading, _), (continuous,) = ASX.trading(symbol, STAGGERED), ASX.continuous(symbol, STAGGERED)
    assert (clock(trading.start_us), clock(continuous.start_us)) == (earliest, certain)
    assert (clock(trading.end_us), clock(continuous.end_us)) == ("16:00:01", "16:00:00")


def test_since_2025_all_symbols_open_at_once_after_an_auction_and_trade_on_after_the_close():
    assert {ASX.phases(symbol, TOGETHER) for symbol in ("BHP", "WBC")} == {ASX.phases("BHP", TOGETHER)}
    phases = named(ASX.phases("WBC", TOGETHER))
    assert phases["opening_auction"] == ("09:59:00", "10:00:00")
    assert phases["continuous"] == ("09:59:45", "16:00:01")
    assert phases["post_close"] == ("16:11:00", "16:21:30")
    assert [(clock(p.start_us), clock(p.end_us)) for p in ASX.trading("WBC", TOGETHER)] == [
        ("09:59:00", "16:00:01"),
        ("16:10:00", "16:21:30"),
    ]


def test_on_a_day_of_early_close_everything_after_the_morning_is_two_hours_earlier():
    early = named(ASX.phases("BHP", date(2025, 12, 24)))
    assert early["continuous"] == ("09:59:45", "14:00:01")
    assert early["closing_auction"] == ("14:10:00", "14:11:00")
    assert early["pre_open"] == ("07:00:00", "09:59:00")


@pytest.mark.parametrize("closed", [date(2014, 3, 8), date(2014, 4, 18), date(2014, 4, 25), date(2022, 9, 22)])
def test_nothing_trades_on_weekends_and_holidays(closed):
    assert (ASX.phases("BHP", closed), ASX.trading("BHP", closed), ASX.continuous("BHP", closed)) == ((), (), ())


instants = st.datetimes(datetime(2025, 6, 18), datetime(2025, 6, 26))  # noqa: DTZ001 - Sydney's clock


@given(st.lists(st.tuples(st.sampled_from(["AAA", "ABC", "CBA", "RIO", "ZIP"]), instants)))
def test_being_within_a_phase_is_what_looking_it_up_one_by_one_says(rows):
    names = sorted({name for name, _ in rows})
    codes = np.array([names.index(name) for name, _ in rows], np.int32)
    local = np.array([(at - datetime(1970, 1, 1)) // timedelta(microseconds=1) for _, at in rows], np.int64)  # noqa: DTZ001
    naive = []
    for name, at in rows:
        of_day = (at - datetime.combine(at.date(), datetime.min.time())) // timedelta(microseconds=1)
        naive.append(any(p.start_us <= of_day < p.end_us for p in ASX.trading(name, at.date())))
    assert within(ASX.trading, names, codes, local).tolist() == naive


utc_instants = st.integers(1_704_067_200, 1_767_225_600).map(lambda second: datetime.fromtimestamp(second, UTC))


@given(st.lists(utc_instants, min_size=1))
def test_local_clocks_are_those_of_the_zone(moments):
    microseconds = [(at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for at in moments]
    local = local_times(np.array(microseconds, np.int64), "Australia/Sydney")
    expected = [at.astimezone(SYDNEY).replace(tzinfo=UTC) for at in moments]
    assert [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(us)) for us in local] == expected


def flags(feed, *records):
    return screen(FEEDS[feed], table_of(FEEDS[feed], records), TODAY).rows["quality_flags"].to_pylist()


def test_a_print_while_its_symbol_does_not_trade_is_flagged():
    seconds = {"25519": True, "35984.9": True, "35985": False, "57600.144": False, "57601": True, "58200": False}
    assert flags("asx-trades", *map(asx_trade, seconds)) == [Flag.OUT_OF_SESSION * late for late in seconds.values()]
    saturday = asx_trade("40000", day=date(2014, 3, 15))
    assert flags("asx-trades", saturday) == [Flag.OUT_OF_SESSION]


def test_an_exchange_that_always_trades_has_no_session_to_be_out_of():
    assert flags("binance-trades", trade(1)) == [0]


moments_of_day = st.integers(6 * 3600, 19 * 3600).map(str)


@given(st.lists(moments_of_day, min_size=1, max_size=30), st.lists(st.integers(0, 30)), st.randoms())
def test_flags_do_not_depend_on_how_a_stream_is_cut_or_ordered(seconds, cuts, rng):
    records = [asx_trade(second, n) for n, second in enumerate(seconds)]
    whole = dict(zip((r["message_id"] for r in records), flags("asx-trades", *records), strict=True))
    rng.shuffle(records)
    bounds = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
    parts = [records[a:b] for a, b in pairwise(bounds) if a < b]
    found = [dict(zip((r["message_id"] for r in p), flags("asx-trades", *p), strict=True)) for p in parts]
    assert {key: flag for part in found for key, flag in part.items()} == whole


@dataclass(frozen=True)
class EveryDay:
    def is_open(self, day):
        return True

    def closes_early(self, day):
        return False


PHASE = {"name": "continuous", "start": "open", "end": "16:00:00", "trades": True}
REGIME = {"opens": {"0": "10:00:00"}, "open_spread_seconds": 15, "close_overrun_seconds": 1, "phases": [PHASE]}
WHOLE = {"exchange": "ASX", "timezone": "UTC", "early_close_hours": 2, "regimes": [REGIME]}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"regimes": []}, "at least one"),
        ({"regimes": None}, "expected exchange"),
        ({"regimes": [{**REGIME, "opens": {}}]}, "no group"),
        ({"regimes": [{**REGIME, "opens": {"0": "25:00:00"}}]}, "hour"),
        ({"regimes": [{**REGIME, "phases": []}]}, "called continuous"),
        ({"regimes": [{**REGIME, "phases": [{**PHASE, "begin": 1}]}]}, "unknown fields"),
        ({"regimes": [{**REGIME, "phases": [{**PHASE, "start": "17:00:00"}]}]}, "ends before"),
        ({"regimes": [REGIME, REGIME]}, "begin where another ends"),
        ({"regimes": [{**REGIME, "to": date(2025, 1, 1)}, {**REGIME, "from": date(2025, 1, 2)}]}, "begin where"),
    ],
)
def test_sessions_that_are_none_are_refused(change, complaint):
    assert parse_sessions("x", WHOLE, EveryDay()).regimes
    with pytest.raises(ValueError, match=complaint):
        parse_sessions("x", {**WHOLE, **change}, EveryDay())
