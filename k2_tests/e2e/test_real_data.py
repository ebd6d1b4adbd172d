"""Real captures through `k2 up`, `k2 feed` and the sensor; skipped where the data is not beside the checkout."""

from __future__ import annotations

import csv
import gzip
import itertools
import subprocess
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from k2_assets.outcomes import check_outcomes, materialized_days
from k2_core.contracts import DEAD_LETTERS, QUOTES, TRADES
from k2_core.derived_tables import BARS_1D, BARS_1M
from k2_resources.lake.catalog import Lake
from k2_resources.lake.scans import open_gaps
from k2_resources.settings import Settings
from k2_tests.e2e import dagster_ui
from k2_tests.e2e.stack import UNCLOSED, command, environment, k2, running, wait_for

DATA = Settings().sample_data
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real captures in {DATA}; K2_SAMPLE_DATA may point elsewhere"),
]

ROWS = {
    ("market_data.trades", "BTCUSDT"): 9_757 + 10_147,
    ("market_data.quotes", "BTCUSDT"): 28_040 + 45_134,
    ("market_data.trades", "BHP"): 91_631,
    ("market_data.trades", "DVN"): 232,
    ("market_data.quotes", "BHP"): 77_849,
    ("market_data.quotes", "DVN"): 549,
}
ASX_DAYS = {date(2014, 3, 10) + timedelta(days=n) for n in range(5)}
BINANCE_DAYS = {date(2024, 8, 8), date(2024, 8, 9)}
SYDNEY = ZoneInfo("Australia/Sydney")
AHEAD = {"K2_EMBEDDED_BACKLOG_BYTES_MAX": "4000000"}
"""A feed may be so far ahead of the lake; the broker keeps 5 MiB. Whoever waits, waits for a tick of five seconds."""


def feed_everything(home):
    """Both feeds at once, as two people would."""
    files = {name: sorted((DATA / name).glob("*.gz")) for name in ("binance", "asx/trades", "asx/quotes")}
    info = ("--company-info", DATA / "asx" / "company_info.csv")
    commands = (
        ("binance-capture", *files["binance"]),
        ("asx", "--trades", *files["asx/trades"], "--quotes", *files["asx/quotes"], *info),
    )
    ours = environment(home, **AHEAD)
    children = [subprocess.Popen(command(home, "feed", *words), env=ours) for words in commands]
    assert [child.wait() for child in children] == [0, 0]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A stack that has ingested every real file once."""
    with running(tmp_path_factory.mktemp("real") / "home", K2_BATCH_AGE_SECONDS="0", **UNCLOSED) as stack:
        feed_everything(stack.home)
        stack.await_ingested()
        yield stack


def lake_of(stack):
    settings = Settings(home=stack.home)
    return Lake(settings.catalog(), settings.warehouse_path())


def rows_of(lake):
    found = Counter()
    for table in (TRADES, QUOTES):
        symbols = lake.load(table).scan(selected_fields=("symbol",)).to_arrow()["symbol"].to_pylist()
        found.update((table.name, symbol) for symbol in symbols)
    return dict(found)


def proof_of(stack):
    import json

    return {proof["table"]: proof for proof in json.loads(k2(stack.home, "verify", "--deep", "--json").stdout)}


def test_the_tables_hold_exactly_what_the_files_hold(loaded):
    lake = lake_of(loaded)
    assert rows_of(lake) == ROWS
    assert lake.load(DEAD_LETTERS).scan().count() == 0


def test_no_trade_id_is_missing_inside_or_across_the_two_captures(loaded):
    lake = lake_of(loaded)
    trades = lake.load(TRADES).scan("symbol = 'BTCUSDT'", selected_fields=("source_sequence",)).to_arrow()
    ids = sorted(trades["source_sequence"].to_pylist())
    assert ids == list(range(3735683259, 3735683259 + 9_757 + 10_147))
    assert open_gaps(lake) == []


def test_the_receipts_balance_without_a_duplicate(loaded):
    proofs = proof_of(loaded)
    assert all(proof["findings"] == [] for proof in proofs.values())
    assert sum(proof["duplicates"] + proof["revisions"] + proof["dead"] for proof in proofs.values()) == 0


def test_every_day_is_materialized_and_every_check_passes(loaded):
    home = loaded.home / "dagster"
    for table in (TRADES, QUOTES):
        assert materialized_days(home, table) >= ASX_DAYS | BINANCE_DAYS
        outcomes = check_outcomes(home, table, ASX_DAYS | BINANCE_DAYS)
        assert set(outcomes.values()) == {"SUCCEEDED"}, outcomes


def test_the_daily_bar_of_bhp_is_that_of_its_eligible_prints(loaded):
    day = {"symbol": "BHP", "start_time": "2014-03-10T13:00:00Z", "end_time": "2014-03-11T13:00:00Z"}
    with loaded.api() as api:
        (bar,) = api.get("/v1/ohlcv/1d", params=day).json()["data"]
        (raw,) = api.get("/v1/ohlcv/1d", params={**day, "view": "raw"}).json()["data"]
    names = ("open_price", "high_price", "low_price", "close_price", "volume", "vwap")
    expected = ["35.95", "36.45", "35.84", "35.95", "6705250", "36.13216705"]
    assert [Decimal(bar[name]) for name in names] == [Decimal(text) for text in expected]
    assert bar["trade_count"] == 21_653
    assert Decimal(raw["high_price"]) == Decimal("42.00")


def test_every_minute_bar_of_bhp_equals_plain_decimals_over_the_file(loaded):
    served = {}
    with loaded.api() as api:
        for day in sorted(ASX_DAYS):
            start = datetime(day.year, day.month, day.day, tzinfo=SYDNEY).astimezone(UTC)
            span = {"start_time": start.isoformat(), "end_time": (start + timedelta(days=1)).isoformat()}
            bars = api.get("/v1/ohlcv/1m", params={"symbol": "BHP", "limit": 10_000, **span}).json()["data"]
            served |= {bar["window_start"]: bar for bar in bars}
    expected = minute_bars()
    assert sorted(served) == sorted(expected)
    for start, bar in expected.items():
        assert {name: Decimal(served[start][name]) for name in bar} == bar, start


def minute_bars():
    """Bars of the eligible BHP prints from the file alone: plain Python, file order breaking ties."""
    with gzip.open(DATA / "asx" / "trades" / "7078.csv.gz", "rt") as file:
        prints = [row for row in csv.reader(file) if row[5] != "X"]
    stamped = [(instant(row[0], row[1]), Decimal(row[2]), Decimal(row[3])) for row in prints]
    stamped.sort(key=lambda print_: print_[0])  # stable: equal times keep the order of the file
    bars = {}
    for minute, group in itertools.groupby(stamped, key=lambda print_: print_[0].replace(second=0, microsecond=0)):
        some = list(group)
        prices, volume = [price for _, price, _ in some], sum(quantity for _, _, quantity in some)
        notional = sum(price * quantity for _, price, quantity in some)
        bars[f"{minute:%Y-%m-%dT%H:%M:%S.%f}Z"] = {
            "open_price": prices[0],
            "high_price": max(prices),
            "low_price": min(prices),
            "close_price": prices[-1],
            "volume": volume,
            "trade_count": Decimal(len(some)),
            "vwap": (notional / volume).quantize(Decimal("1e-8"), ROUND_HALF_EVEN),
        }
    return bars


def instant(day, time):
    return datetime.strptime(f"{day} {time}", "%m/%d/%Y %H:%M:%S.%f").replace(tzinfo=SYDNEY).astimezone(UTC)


@pytest.fixture(scope="module")
def page():
    """One browser for all looks: it takes longer to start than to look."""
    if dagster_ui.CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    with dagster_ui.browser_page() as opened:
        yield opened


def test_bars_of_every_day_come_from_one_backfill_launched_in_the_ui(loaded, page):
    home, url = loaded.home / "dagster", loaded.endpoints["dagster"]
    dagster_ui.backfill(page, url, "derived", "[2014-03-10...2014-03-14], [2024-08-08...2024-08-09]")
    with dg.DagsterInstance.from_config(str(home)) as instance:

        def ended():
            return [b.status for b in instance.get_backfills() if b.status is not BulkActionStatus.REQUESTED]

        wait_for(ended, 300, "the backfill to end")
        assert ended() == [BulkActionStatus.COMPLETED_SUCCESS]
    for table in (BARS_1M, BARS_1D):
        assert materialized_days(home, table) >= ASX_DAYS | BINANCE_DAYS
    days = lake_of(loaded).load(BARS_1D).scan("symbol = 'BHP' and exchange_date = '2014-03-11'").to_arrow().to_pylist()
    (day,) = days
    names = ("open_price", "high_price", "low_price", "close_price", "volume", "vwap")
    expected = ["35.95", "36.45", "35.84", "35.95", "6705250", "36.13216705"]
    assert [day[name] for name in names] == [Decimal(text) for text in expected]
    assert (day["trade_count"], day["is_final"]) == (21_653, True)


@pytest.mark.parametrize("what", dagster_ui.LOOKS, ids=lambda what: what.name)
def test_the_dagster_ui_shows(loaded, page, tmp_path, what):
    counted = (f"Materialized ({len(ASX_DAYS | BINANCE_DAYS)})",) if what.name == "partitions" else ()
    text = dagster_ui.look(page, loaded.endpoints["dagster"], replace(what, words=what.words + counted), tmp_path)
    assert (tmp_path / f"{what.name}.png").stat().st_size > 10_000
    if what.name == "partitions":
        assert "Failed (0)" in text
    if what.name == "checks":
        assert text.count("Succeeded") >= 5


def test_feeding_everything_a_second_time_adds_no_row(loaded):
    feed_everything(loaded.home)
    loaded.await_ingested()
    lake = lake_of(loaded)
    assert rows_of(lake) == ROWS
    proofs = proof_of(loaded)
    assert all(proof["findings"] == [] for proof in proofs.values())
    ticks = [proofs[table.name] for table in (TRADES, QUOTES)]
    assert sum(proof["duplicates"] for proof in ticks) == sum(ROWS.values())
    assert sum(proof["read"] for proof in ticks) == 2 * sum(ROWS.values())
    assert open_gaps(lake) == []
