"""Connections of real clients: streams, controls, pings, cuts and limits."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode

from k2_feeds.binance_frames import parse_frame
from k2_feeds.exchange import ExchangeSettings, Limits, exchange
from k2_feeds.outcomes import Row
from k2_tests.feeds.exchange.clients import PATIENCE_SECONDS, connect, events, get, raw_client, until, visit

S, T = "SIMBTCUSDT", "SIMETHUSDT"
TRADE = "simbtcusdt@trade"
BUSY = ExchangeSettings(symbols=(S, T), speed=20, trades_per_second=20, awaits_client=True)
CALM = replace(BUSY, trades_per_second=3)
PINGING = Limits(ping_seconds=0.1, pong_seconds_max=0.8, messages_per_second_max=1_000)


@pytest.fixture(scope="module")
def running():
    with exchange(replace(BUSY, awaits_client=False, limits=Limits(attempts_max=10_000))) as started:
        yield started


def told(running, symbol):
    return {one.trade_id: one for one in running.ledger.trades(symbol)}


def test_a_combined_stream_gives_every_trade_of_its_symbols_as_the_ledger_has_it(running):
    with connect(f"{running.ws_url}/stream?streams={TRADE}/simethusdt@trade") as client:
        frames = [client.recv(timeout=PATIENCE_SECONDS).encode() for _ in range(200)]
    rows = [parse_frame(frame, 1) for frame in frames]
    assert all(isinstance(row, Row) for row in rows)
    for symbol in (S, T):
        ids = [row.record["source_sequence"] for row in rows if row.symbol == symbol]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
    truth = {symbol: told(running, symbol) for symbol in (S, T)}
    for row in rows:
        one = truth[row.symbol][row.record["source_sequence"]]
        said = (row.record["price"], row.record["quantity"], row.record["timestamp"], row.record["side"])
        side = "SELL" if one.buyer_is_maker else "BUY"
        assert said == (one.price, one.quantity, one.time_us // 1_000 * 1_000, side)


def test_a_raw_stream_is_not_wrapped_and_has_one_symbol(running):
    with connect(f"{running.ws_url}/ws/{TRADE}") as client:
        found = events(client, 20)
    assert {(event["e"], event["s"]) for event in found} == {("trade", S)}


def test_times_are_in_microseconds_where_the_url_says_so(running):
    with connect(f"{running.ws_url}/ws/{TRADE}?timeUnit=MICROSECOND") as client:
        found = events(client, 20)
    truth = told(running, S)
    for event in found:
        assert event["T"] == truth[event["t"]].time_us
        assert event["E"] >= event["T"] > 10**15


def test_book_tickers_are_those_of_the_ledger(running):
    with connect(f"{running.ws_url}/ws/simbtcusdt@bookTicker") as client:
        rows = [parse_frame(client.recv(timeout=PATIENCE_SECONDS).encode(), 1).record for _ in range(50)]
    quotes = {quote[0]: quote[1:] for quote in running.ledger.quotes(S)}
    names = ("bid_price", "bid_quantity", "ask_price", "ask_quantity")
    assert all(quotes[row["source_sequence"]] == tuple(row[name] for name in names) for row in rows)


def test_streams_are_subscribed_listed_and_unsubscribed():
    def ask(client, method, *params):
        client.send(json.dumps({"method": method, "params": params, "id": 7}))
        return until(lambda: next((e for e in events(client, 1) if "id" in e), None))

    with exchange(CALM) as running, connect(f"{running.ws_url}/stream") as client:
        assert ask(client, "SUBSCRIBE", TRADE, "simethusdt@bookTicker") == {"result": None, "id": 7}
        assert {event["stream"] for event in events(client, 30)} == {TRADE, "simethusdt@bookTicker"}
        assert ask(client, "LIST_SUBSCRIPTIONS")["result"] == [TRADE, "simethusdt@bookTicker"]
        assert ask(client, "UNSUBSCRIBE", TRADE) == {"result": None, "id": 7}
        assert {event["stream"] for event in events(client, 10)} == {"simethusdt@bookTicker"}
        assert ask(client, "EXPLODE")["error"]["code"] == 2


def test_two_clients_of_one_stream_read_the_same_frames(running):
    with connect(f"{running.ws_url}/ws/{TRADE}") as a, connect(f"{running.ws_url}/ws/{TRADE}") as b:
        ours, theirs = events(a, 100), {event["t"]: event for event in events(b, 100)}
    shared = [event for event in ours if event["t"] in theirs]
    assert len(shared) > 20
    assert all(theirs[event["t"]] == event for event in shared)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nowhere", 404), ("/ws/x@trade?timeUnit=HOUR", 400), ("/stream?streams=" + "/".join(f"{i:x}@t" for i in range(1_025)), 400)],
)  # fmt: skip
def test_a_url_that_cannot_be_served_is_answered_with_an_http_error(running, path, status):
    with pytest.raises(InvalidStatus) as refused:
        visit(running, path)
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["msg"]


def test_a_connection_holds_1024_streams_and_no_more(running):
    names = [f"{i:x}@t" for i in range(1_024)]
    with connect(f"{running.ws_url}/stream?streams={'/'.join(names[:-1])}") as client:
        client.send(json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}))
        assert events(client, 1) == [{"result": None, "id": 1}]
        client.send(json.dumps({"method": "SUBSCRIBE", "params": [TRADE], "id": 2}))
        assert events(client, 1)[0]["error"]["code"] == 2


def test_a_client_that_pongs_stays_and_one_that_does_not_is_dropped():
    settings = replace(BUSY, limits=PINGING)
    with (
        exchange(settings) as running,
        connect(f"{running.ws_url}/ws") as good,
        raw_client(f"{running.ws_url}/ws") as bad,
    ):
        frames = list(bad.frames(PATIENCE_SECONDS))
        pings = [frame for frame in frames if frame.opcode is Opcode.PING]
        assert len(pings) > 2
        assert len({bytes(ping.data) for ping in pings}) == len(pings)
        assert frames[-1].opcode is Opcode.CLOSE
        good.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        assert events(good, 1) == [{"result": [], "id": 1}]


def test_a_pong_with_another_payload_does_not_count():
    with exchange(replace(BUSY, limits=PINGING)) as running, raw_client(f"{running.ws_url}/ws") as client:
        for frame in client.frames(PATIENCE_SECONDS):
            if frame.opcode is Opcode.PING:
                client.send(Opcode.PONG, b"another")
            last = frame
        assert last.opcode is Opcode.CLOSE
        assert b"Pong timeout" in bytes(last.data)


def test_a_sixth_message_in_a_second_ends_the_connection(running):
    with connect(f"{running.ws_url}/ws") as client:
        for _ in range(5):
            client.ping()
        client.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                client.recv(timeout=PATIENCE_SECONDS)
    assert closed.value.rcvd.code == 1008


def test_five_messages_in_a_second_are_welcome(running):
    with connect(f"{running.ws_url}/ws") as client:
        for i in range(5):
            client.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": i}))
        assert [answer["id"] for answer in events(client, 5)] == [0, 1, 2, 3, 4]


def test_attempts_beyond_the_limit_are_refused():
    limits = Limits(attempts_max=3)
    with exchange(replace(BUSY, limits=limits)) as running:
        for _ in range(3):
            visit(running)
        with pytest.raises(InvalidStatus) as refused:
            visit(running)
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["Retry-After"] == "300"


def test_a_connection_is_cut_when_its_day_is_over():
    limits = Limits().hurried(86_400 / 0.3)
    with exchange(replace(BUSY, limits=limits)) as running, connect(f"{running.ws_url}/ws/{TRADE}") as client:
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                client.recv(timeout=PATIENCE_SECONDS)
        assert closed.value.rcvd.code == 1001


@pytest.mark.parametrize("path", ["/ws", "/stream"])
def test_a_shutdown_is_announced_and_then_comes(path):
    with exchange(BUSY) as running, connect(running.ws_url + path) as client:
        until(lambda: running.stats()["connections"])
        running.faults.inject("server_shutdown", count=0, seconds=0.2)
        said = events(client, 1)[0]
        assert (said.get("stream"), said.get("data", said)["e"]) == (
            "!serverShutdown" if path == "/stream" else None, "serverShutdown"
        )  # fmt: skip
        with connect(f"{running.ws_url}/ws/{TRADE}") as second:
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=PATIENCE_SECONDS)
            assert events(second, 1)[0]["e"] == "trade"


def test_nothing_is_published_before_the_first_subscription():
    with exchange(BUSY) as running:
        with connect(f"{running.ws_url}/ws/{TRADE}") as client:
            first = events(client, 1)[0]["t"]
        assert running.ledger.trades(S)[0].trade_id == first
        assert get(f"{running.rest_url}/api/v3/ping").json() == {}


def test_a_paused_market_publishes_nothing_and_then_goes_on_without_a_hole(running):
    with connect(f"{running.ws_url}/ws/{TRADE}") as client:
        events(client, 5)
        running.pause()
        count, stats = running.ledger.trade_count(), running.stats()
        assert stats["paused"]
        assert get(f"{running.rest_url}/api/v3/time").json() == get(f"{running.rest_url}/api/v3/time").json()
        assert running.ledger.trade_count() == count
        running.resume()
        ids = [event["t"] for event in events(client, 200)]
    assert ids == list(range(ids[0], ids[0] + 200))
    assert running.ledger.trade_count() > count


def test_a_market_that_closes_says_so():
    with exchange(replace(BUSY, awaits_client=False, trades_max=30, speed=1_000)) as running:
        assert running.is_over.wait(PATIENCE_SECONDS)
        assert running.ledger.trade_count() == 30
