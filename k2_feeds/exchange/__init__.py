"""A simulated Binance spot exchange: real WebSocket streams and real REST on loopback, and the truth about both.

    with exchange(ExchangeSettings(seed=7, speed=60)) as running:
        running.ws_url, running.rest_url            what a client is pointed at
        running.faults.inject("drop", count=5)      what goes wrong next
        running.pause(); running.ledger.trades(s)   what must have arrived

Its symbols begin with SIM unless others are asked for, so that no simulated row is ever taken for a real one.
"""

from __future__ import annotations

from k2_feeds.exchange.faults import Fault, Hit, Kind
from k2_feeds.exchange.ledger import Ledger, Published
from k2_feeds.exchange.running import SimulatedExchange, exchange
from k2_feeds.exchange.settings import SYMBOLS, ExchangeSettings, Limits

__all__ = [
    "SYMBOLS",
    "ExchangeSettings",
    "Fault",
    "Hit",
    "Kind",
    "Ledger",
    "Limits",
    "Published",
    "SimulatedExchange",
    "exchange",
]
