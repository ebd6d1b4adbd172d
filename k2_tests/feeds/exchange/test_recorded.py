from __future__ import annotations

import math
from decimal import Decimal

import pytest

from k2_core.errors import BadInput, Misconfigured
from k2_feeds.binance_capture import read_capture
from k2_feeds.binance_frames import parse_frame
from k2_feeds.exchange import ExchangeSettings, exchange
from k2_feeds.outcomes import Row
from k2_feeds.simulator import Simulation
from k2_tests.feeds.exchange.clients import PATIENCE_SECONDS, connect, get, until

SIMULATION = Simulation(seed=3, days=1, rows_per_day=300, pairs=("SIMBTCUSDT", "SIMETHBTC"), equities=())


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return SIMULATION.write(tmp_path_factory.mktemp("capture"))[0]


def test_a_capture_at_full_speed_is_read_whole_and_as_it_was_recorded(capture):
    recorded = [outcome for outcome in read_capture(capture) if isinstance(outcome, Row)]
    settings = ExchangeSettings(capture=capture, speed=math.inf, awaits_client=True)
    streams = "/".join(f"{s}@{kind}" for s in ("simbtcusdt", "simethbtc") for kind in ("trade", "bookTicker"))
    with exchange(settings) as running:
        assert set(running.symbols) == {"SIMBTCUSDT", "SIMETHBTC"}
        with connect(f"{running.ws_url}/stream?streams={streams}") as client:
            frames = [client.recv(timeout=PATIENCE_SECONDS).encode() for _ in recorded]
        assert running.is_over.wait(PATIENCE_SECONDS)
        assert running.ledger.trade_count() == 600
        page = get(f"{running.rest_url}/api/v3/historicalTrades?symbol=SIMETHBTC&fromId=0&limit=1000").json()
    own = ("message_id", "price", "quantity", "timestamp", "side", "bid_price", "ask_price", "bid_quantity")
    told = [{k: v for k, v in parse_frame(frame, 1).record.items() if k in own} for frame in frames]
    expected = [{k: v for k, v in row.record.items() if k in own} for row in recorded]
    for record in (*told, *expected):
        if "price" not in record:
            del record["timestamp"]  # a book ticker has none: it is the time of receipt
    assert told == expected
    assert [Decimal(t["price"]) for t in page] == [
        row.record["price"] for row in recorded if row.symbol == "SIMETHBTC" and "price" in row.record
    ]


def test_a_capture_goes_at_its_own_pace(capture):
    with exchange(ExchangeSettings(capture=capture, speed=3_600)) as running:
        until(running.ledger.trade_count)
        assert running.ledger.trade_count() < 600
        assert not running.is_over.is_set()


def test_a_file_without_any_stream_is_refused(tmp_path):
    file = tmp_path / "nothing.txt"
    file.write_text("1723161253937085768 {}\n")
    with pytest.raises(BadInput, match="no trade"), exchange(ExchangeSettings(capture=file)):
        pass


def test_a_port_that_is_taken_is_told():
    with exchange() as running, pytest.raises(Misconfigured, match="cannot be listened on"):
        taken = int(running.ws_url.rpartition(":")[2])
        with exchange(ExchangeSettings(port=taken)):
            pass
