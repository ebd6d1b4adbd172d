from __future__ import annotations

from dataclasses import replace

import httpx2 as httpx
import pytest

from k2_feeds.exchange import ExchangeSettings, Kind, exchange
from k2_tests.feeds.exchange.clients import PATIENCE_SECONDS, connect, events, get, post, until

S = "SIMBTCUSDT"
MARKET = ExchangeSettings(symbols=(S,), speed=20, trades_per_second=25)


@pytest.fixture
def running():
    with exchange(MARKET) as started:
        yield started


def test_the_ledger_over_the_endpoint_is_the_one_in_process(running):
    until(lambda: running.ledger.trade_count() > 50)
    post(f"{running.rest_url}/k2/market", {"paused": True})
    page = get(f"{running.rest_url}/k2/ledger/{S}").json()
    told = running.ledger.trades(S)
    assert page["trades"] == [
        [t.session, t.trade_id, t.time_us, f"{t.price:f}", f"{t.quantity:f}", t.buyer_is_maker] for t in told
    ]
    assert page["next"] is None
    rest = get(f"{running.rest_url}/k2/ledger/{S}?start=40").json()
    assert rest["trades"] == page["trades"][40:]
    summary = get(f"{running.rest_url}/k2/ledger").json()
    assert summary == {S: {"trades": len(told), "quotes": len(running.ledger.quotes(S)), "absent": [], "withheld": []}}


def test_faults_are_put_in_force_listed_and_cleared(running):
    url = f"{running.rest_url}/k2/faults"
    said = post(url, [{"kind": "drop", "count": 0, "one_in": 2}, {"kind": "rest_5xx", "count": 0}]).json()
    assert said[0] == {"kind": "drop", "count": 0, "one_in": 2, "first_id": 1}
    assert get(f"{running.rest_url}/api/v3/ping").status_code == 500
    until(lambda: get(url).json()["counts"].get("drop", 0) > 3)
    assert len(httpx.delete(url, params={"kind": "rest_5xx"}, trust_env=False).json()["active"]) == 1
    assert get(f"{running.rest_url}/api/v3/ping").status_code == 200
    assert httpx.delete(url, trust_env=False).json()["active"] == []
    hits = get(url).json()["hits"]
    assert [hit["trade_id"] for hit in hits] == [hit.trade_id for hit in running.faults.hits(Kind.DROP)]


def test_a_crash_can_be_had_over_the_endpoint():
    with exchange(replace(MARKET, trades_per_second=5, speed=1)) as running:
        post(f"{running.rest_url}/k2/market", {"crash": True})
        until(lambda: running.ledger.trade_count() > 200)


def test_the_counters_tell_what_there_is(running):
    with connect(f"{running.ws_url}/stream?streams=simbtcusdt@trade/simbtcusdt@bookTicker") as client:
        events(client, 10)
        stats = get(f"{running.rest_url}/k2/stats").json()
    assert (stats["connections"], stats["streams"], stats["connection_attempts"]) == (1, 2, 1)
    assert stats["frames_sent"] >= 10
    assert stats["trades"] > 0
    assert until(lambda: not running.stats()["connections"], PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("path", "body"),
    [("faults", "{"), ("faults", '{"kind":"x"}'), ("faults", "[7]"), ("faults", '{"kind":"drop","count":"many"}'),
     ("market", "[]"), ("market", '{"colour":1}')],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused_with_a_reason(running, path, body):
    answer = httpx.post(f"{running.rest_url}/k2/{path}", content=body, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_INPUT")
    assert running.faults.active() == []


def test_a_bad_position_and_a_bad_kind_are_refused(running):
    assert get(f"{running.rest_url}/k2/ledger/{S}?start=x").status_code == 400
    assert httpx.delete(f"{running.rest_url}/k2/faults?kind=x", trust_env=False).status_code == 400
