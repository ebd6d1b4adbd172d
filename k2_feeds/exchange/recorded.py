"""A recorded market: trades and book tickers of a capture file, at the pace of their receipt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from k2_core.errors import BadInput
from k2_feeds.binance_capture import read_capture
from k2_feeds.binance_frames import TRADES_FEED
from k2_feeds.exchange.ticks import Print, Quote, Tick, units
from k2_feeds.lines import Line, read_lines
from k2_feeds.outcomes import Row

_STREAM = re.compile(rb'"s":"([^"\\]+)"')


def recorded(path: Path) -> Iterator[Tick]:
    """Give what a capture holds, in its order. Depth, answers and unreadable lines are passed over."""
    at_us = 0
    for outcome in read_capture(path):
        if isinstance(outcome, Row):
            # a capture clock that was set back must not hold the market up
            at_us = max(at_us, int(outcome.record["ingestion_timestamp"]))
            yield _print(outcome, at_us) if outcome.feed == TRADES_FEED else _quote(outcome, at_us)


def recorded_symbols(path: Path) -> tuple[str, ...]:
    """Symbols of a capture in the order they appear. Raises BadInput when it cannot be read or has none."""
    found: dict[str, None] = {}
    for line in read_lines(path):
        if isinstance(line, Line):
            found.update((name.decode("utf-8", "replace"), None) for name in _STREAM.findall(line.content))
    if not found:
        raise BadInput(f"{path}: no trade and no book ticker of a Binance stream in it")
    return tuple(found)


def _print(row: Row, at_us: int) -> Print:
    record: Any = row.record
    price, quantity = units(record["price"]), units(record["quantity"])
    maker = record["side"] == "SELL"
    return Print(row.symbol, at_us, record["source_sequence"], record["timestamp"], price, quantity, maker)


def _quote(row: Row, at_us: int) -> Quote:
    record: Any = row.record
    sides = [units(record[name]) for name in ("bid_price", "bid_quantity", "ask_price", "ask_quantity")]
    return Quote(row.symbol, at_us, record["source_sequence"], *sides)
