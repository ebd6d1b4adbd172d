"""One filled home for all API tests that only read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import httpx2 as httpx
import pytest

from k2_core.contracts import QUOTES, TRADES
from k2_resources.settings import Settings
from k2_tests.api.homes import Row, dated, lake_of, serving, settings_of, store
from k2_tests.api.oracle import random_trades
from k2_tests.ticks import NOON, quote

COMMITS = 5


def fill(home: Path, trades: Sequence[Row], quotes: Iterable[Row]) -> Settings:
    """Commit trades in several batches, corrections among them before and after what they correct, and quotes in one."""
    settings = settings_of(home)
    lake = lake_of(settings)
    for part in range(COMMITS):
        store(lake, TRADES, trades[part::COMMITS])
    store(lake, QUOTES, quotes)
    return settings


def some_quotes() -> list[Row]:
    """Quotes of two symbols, some of one side only, one corrected."""
    none = {"ask_price": None, "ask_quantity": None}
    made = [quote(n, timestamp=NOON + timedelta(seconds=n // 3), **(none if n % 5 == 0 else {})) for n in range(60)]
    corrected = {**made[10], "bid_price": Decimal("99.9"), "revision": 1}
    return [dated(q) for q in [*made, corrected, quote(61, symbol="ONLYQUOTED")]]


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """Every stored trade of the filled home, corrections included."""
    return random_trades(seed=7, rows=900)


@pytest.fixture(scope="session")
def quote_rows() -> list[Row]:
    """Every stored quote of it, one correction among them."""
    return some_quotes()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, rows: list[Row], quote_rows: list[Row]) -> Settings:
    return fill(tmp_path_factory.mktemp("filled [home] 100%"), rows, quote_rows)


@pytest.fixture(scope="session")
def client(filled: Settings) -> Iterator[httpx.Client]:
    with serving(filled) as client:
        yield client
