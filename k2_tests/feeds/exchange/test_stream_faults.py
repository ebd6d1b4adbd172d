"""What each fault does to what a client reads, compared with the ledger."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from k2_feeds.binance_frames import parse_frame
from k2_feeds.exchange import ExchangeSettings, Kind, exchange
from k2_feeds.outcomes import Row, Unusable
from k2_tests.feeds.exchange.clients import PATIENCE_SECONDS, connect, events, get, raw_client, until, visit

S = "SIMBTCUSDT"
MARKET = ExchangeSettings(symbols=(S,), speed=20, trades_per_second=25, awaits_client=True)
TRADE = "simbtcusdt@trade"


@pytest.fixture
def running():
    with exchange(MARKET) as started:
        yield started


def read(running, kind=None, **options):
    """Ids in the order received until well after a fault has hit all it would, and the ids it hit."""
    with connect(f"{running.ws_url}/ws/{TRADE}") as client:
        ids = [event["t"] for event in events(client, 5)]
        if kind:
            running.faults.inject(kind, **options)
            until(lambda: not running.faults.active())
        target = running.ledger.trades(S)[-1].trade_id + 20
        while ids[-1] < target:
            ids.append(events(client, 1)[0]["t"])
    return ids, [hit.trade_id for hit in running.faults.hits()]


def in_rest(running, trade_ids):
    """Those of the ids that REST has."""
    answer = get(f"{running.rest_url}/api/v3/historicalTrades?symbol={S}&fromId={min(trade_ids)}&limit=1000")
    return {trade["id"] for trade in answer.json()} & set(trade_ids)


def whole(ids, without=()):
    return [i for i in range(ids[0], max(ids) + 1) if i not in set(without)]


def test_without_a_fault_the_stream_is_whole(running):
    ids, hits = read(running)
    assert (ids, hits) == (whole(ids), [])


def test_a_dropped_trade_is_in_rest_and_not_on_the_stream(running):
    ids, hits = read(running, "drop", count=4, one_in=3)
    assert len(hits) == 4
    assert ids == whole(ids, hits)
    assert in_rest(running, hits) == set(hits)
    assert [trade_id for _, trade_id in running.ledger.withheld(S)] == hits


def test_an_absent_trade_is_nowhere(running):
    ids, hits = read(running, "absent", count=4)
    assert ids == whole(ids, hits)
    assert in_rest(running, hits) == set()
    assert running.ledger.absent(S) == [(0, trade_id) for trade_id in hits]
    assert not {one.trade_id for one in running.ledger.trades(S)} & set(hits)


def test_a_duplicated_trade_comes_twice(running):
    ids, hits = read(running, "duplicate", count=4)
    assert sorted(ids) == sorted([*whole(ids), *hits])


def test_a_reordered_trade_comes_after_later_ones(running):
    ids, hits = read(running, "reorder", count=2, one_in=10)
    assert ids != sorted(ids)
    assert sorted(ids) == whole(ids)
    assert all(ids.index(hit) > ids.index(hit + 3) for hit in hits)


def test_a_reordered_trade_comes_also_when_no_other_does(running):
    with connect(f"{running.ws_url}/ws/{TRADE}") as client:
        events(client, 1)
        running.faults.inject("reorder", count=1)
        hit = until(running.faults.hits)[0].trade_id
        running.pause()
        assert until(lambda: next((e for e in events(client, 1) if e["t"] == hit), None))


def test_a_delayed_trade_comes_later(running):
    with connect(f"{running.ws_url}/ws/{TRADE}") as client:
        events(client, 5)
        running.faults.inject("delay", seconds=0.3)
        hit = until(running.faults.hits)[0].trade_id
        ids = []
        while hit not in ids:
            ids.append(events(client, 1)[0]["t"])
    assert max(ids) > hit


def test_a_truncated_frame_is_no_json_and_its_trade_is_in_rest(running):
    with connect(f"{running.ws_url}/stream?streams={TRADE}") as client:
        events(client, 5)
        running.faults.inject("truncate", count=3)
        broken = []
        while len(broken) < 3:
            frame = client.recv(timeout=PATIENCE_SECONDS)
            broken += [] if frame.endswith("}}") else [frame]
        assert all("t" in event["data"] for event in events(client, 20))
    hits = [hit.trade_id for hit in running.faults.hits(Kind.TRUNCATE)]
    assert len(hits) == 3
    for frame in broken:
        with pytest.raises(Unusable):
            parse_frame(frame.encode(), 1)
    assert in_rest(running, hits) == set(hits)


def test_garbage_comes_between_and_takes_no_trade_away(running):
    with connect(f"{running.ws_url}/ws/{TRADE}") as client:
        events(client, 5)
        running.faults.inject("garbage", count=14)
        kinds, ids = [], []
        while len(kinds) < 14 or len(ids) < 100:
            try:
                outcome = parse_frame(client.recv(timeout=PATIENCE_SECONDS).encode(), 1)
            except Unusable as refusal:
                kinds.append(refusal.reason)
            else:
                ids.append(outcome.record["source_sequence"])
    assert len(kinds) == 14
    assert len(set(kinds)) > 1
    assert ids == whole(ids)


def test_a_half_open_connection_is_silent_and_stays_open(running):
    url = f"{running.ws_url}/ws/{TRADE}"
    with connect(url) as client:
        events(client, 5)
        running.faults.inject("half_open", count=0)
        until(lambda: not running.stats()["connections"])
        with pytest.raises(TimeoutError):
            while True:
                client.recv(timeout=0.3)
        assert not client.ping().wait(0.3)
        with connect(url) as second:
            assert len(events(second, 5)) == 5
        assert client.close_code is None


@pytest.mark.parametrize("kind", ["cut", "tear"])
def test_a_connection_ends_without_a_closing_handshake(running, kind):
    with connect(f"{running.ws_url}/ws/{TRADE}") as client:
        events(client, 5)
        running.faults.inject(kind)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                json.loads(client.recv(timeout=PATIENCE_SECONDS))
    assert closed.value.rcvd is None


def test_connections_can_be_refused_for_a_while(running):
    running.faults.inject("refuse", count=2)
    for _ in range(2):
        with pytest.raises(InvalidStatus) as refused:
            visit(running)
        assert refused.value.response.status_code == 503
    visit(running)


def test_ids_can_begin_again_and_rest_then_knows_only_the_new_ones(running):
    with connect(f"{running.ws_url}/ws/{TRADE}") as client:
        ids = [event["t"] for event in events(client, 5)]
        running.faults.inject("id_reset", first_id=7)
        while 30 not in ids:
            ids.append(events(client, 1)[0]["t"])
    fall = ids.index(7)
    assert ids[fall:] == list(range(7, 31))
    running.pause()
    assert in_rest(running, ids) == {*ids[fall:]}
    sessions = [(one.session, one.trade_id) for one in running.ledger.trades(S)]
    assert [trade_id for session, trade_id in sessions if session == 0] == ids[:fall]
    assert (1, 7) in sessions


def test_a_skewed_clock_stamps_everything_until_it_is_set_right(running):
    running.faults.inject("clock_skew", seconds=3_600)
    with connect(f"{running.ws_url}/ws/{TRADE}?timeUnit=MICROSECOND") as client:
        skewed = events(client, 1)[0]
        running.faults.clear()
        right = until(lambda: next((e for e in events(client, 1) if e["T"] < skewed["T"]), None))
    assert skewed["T"] - right["T"] > 3_500 * 1_000_000
    assert skewed["E"] >= skewed["T"]
    told = {one.trade_id: one.time_us for one in running.ledger.trades(S)}
    assert (told[skewed["t"]], told[right["t"]]) == (skewed["T"], right["T"])


def test_a_symbol_that_is_told_twice_to_fail_fails_alone():
    two = replace(MARKET, symbols=(S, "SIMETHUSDT"))
    with exchange(two) as running, connect(f"{running.ws_url}/stream?streams={TRADE}/simethusdt@trade") as client:
        events(client, 5)
        running.faults.inject("drop", symbol=S, count=0)
        first = until(running.faults.hits)[0].trade_id
        target = running.ledger.trades("SIMETHUSDT")[-1].trade_id + 20
        found = {S: [], "SIMETHUSDT": [0]}
        while found["SIMETHUSDT"][-1] < target:
            row = parse_frame(client.recv(timeout=PATIENCE_SECONDS).encode(), 1)
            assert isinstance(row, Row)
            found[row.symbol].append(row.record["source_sequence"])
    assert all(trade_id < first for trade_id in found[S])


def test_a_client_that_never_reads_is_cut_off_and_holds_nobody_up(monkeypatch):
    monkeypatch.setattr("k2_feeds.exchange.session.UNSENT_BYTES_MAX", 1 << 16)
    flood = f"/stream?streams={TRADE}/simbtcusdt@bookTicker"
    with exchange(replace(MARKET, trades_per_second=2_000)) as running, raw_client(running.ws_url + flood):
        until(lambda: running.stats()["connections"])
        until(lambda: not running.stats()["connections"])
        with connect(f"{running.ws_url}/ws/{TRADE}") as client:
            assert len(events(client, 100)) == 100
