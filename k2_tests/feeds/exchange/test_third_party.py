"""An unmodified client of somebody else, python-binance, reads this exchange: only its URLs are ours."""

from __future__ import annotations

import asyncio
import warnings
from decimal import Decimal

import pytest

from k2_feeds.exchange import ExchangeSettings, exchange

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it names a class that websockets renamed
    from binance import AsyncClient, BinanceSocketManager
    from binance.exceptions import BinanceAPIException

S, T = "SIMBTCUSDT", "SIMETHUSDT"
MARKET = ExchangeSettings(symbols=(S, T), speed=20, trades_per_second=25, awaits_client=True)
pytestmark = [
    pytest.mark.filterwarnings("default"),  # what it warns of is its own affair
]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


async def read(running):
    """Trades of two symbols by stream, then the same ids and a refusal by REST."""
    client = AsyncClient()
    client.API_URL = f"{running.rest_url}/api"
    manager = BinanceSocketManager(client)
    manager.STREAM_URL = f"{running.ws_url}/"
    try:
        async with manager.multiplex_socket([f"{S.lower()}@trade", f"{T.lower()}@trade"]) as stream:
            messages = [(await asyncio.wait_for(stream.recv(), 10))["data"] for _ in range(60)]
        async with manager.trade_socket(S) as stream:
            messages += [await asyncio.wait_for(stream.recv(), 10) for _ in range(5)]
        running.pause()
        first = min(message["t"] for message in messages if message["s"] == S)
        trades = await client.get_historical_trades(symbol=S, fromId=first, limit=1000)
        aggregates = await client.get_aggregate_trades(symbol=S)
        info = await client.get_symbol_info(T)
        with pytest.raises(BinanceAPIException) as refused:
            await client.get_recent_trades(symbol="NOPE")
    finally:
        await client.close_connection()
    return messages, trades, aggregates, info, refused.value


def test_python_binance_reads_its_trades_here():
    with exchange(MARKET) as running:
        messages, trades, aggregates, info, refused = asyncio.run(read(running))
        told = {(s, one.trade_id): one for s in (S, T) for one in running.ledger.trades(s)}
    assert {message["s"] for message in messages} == {S, T}
    for message in messages:
        one = told[message["s"], message["t"]]
        assert (Decimal(message["p"]), Decimal(message["q"]), message["m"]) == (
            one.price,
            one.quantity,
            one.buyer_is_maker,
        )
        assert message["T"] == one.time_us // 1_000
    by_id = {trade["id"]: trade for trade in trades}
    assert all(by_id[m["t"]]["price"] == m["p"] for m in messages if m["s"] == S)
    assert aggregates[-1]["l"] == trades[-1]["id"]
    assert (info["symbol"], info["quoteAsset"]) == (T, "USDT")
    assert (refused.status_code, refused.code, refused.message) == (400, -1121, "Invalid symbol.")
