"""The rules of the ASX on real files: what counts, when it traded, and which books stood crossed."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from k2_core.conditions import ALL, Update
from k2_core.crosses import crosses
from k2_core.exchange_dates import local_times
from k2_core.quality import Flag
from k2_core.screen import screen
from k2_core.summaries import Summary, summarise
from k2_core.windows import DAY_US
from k2_feeds.asx import read_parts
from k2_feeds.asx_files import plan_load
from k2_feeds.companies import read_companies
from k2_feeds.outcomes import Row
from k2_feeds.simulator import Simulation
from k2_resources.rule_sets import load_conditions
from k2_resources.settings import Settings
from k2_tests.core.test_judge import TODAY
from k2_tests.feeds.sample import real
from k2_tests.feeds.test_asx import NOW_US
from k2_tests.ticks import FEEDS, table_of

MINUTE_US = 60_000_000
CONDITIONS = load_conditions(Settings().config, "asx")


def screened(feed, parts, companies=None):
    """Rows of one feed as they are stored."""
    found = [o.record for o in read_parts(parts, companies, lambda: NOW_US) if isinstance(o, Row) and o.feed == feed]
    out = screen(FEEDS[feed], table_of(FEEDS[feed], found), TODAY)
    assert out.dead == ()
    return out.rows


@pytest.fixture(scope="module")
def bhp_trades():
    path, info = real("asx/trades/7078.csv.gz", "asx/company_info.csv")
    companies = read_companies(info)
    return screened("asx-trades", plan_load([path], [], companies), companies)


@pytest.fixture(scope="module")
def bhp_quotes():
    path, info = real("asx/quotes/7078.csv.gz", "asx/company_info.csv")
    companies = read_companies(info)
    return screened("asx-quotes", plan_load([], [path], companies), companies)


def on(rows, day):
    return rows.filter(pc.equal(rows["exchange_date"].cast(pa.string()), day))


def test_the_eligible_prints_of_a_real_day(bhp_trades):
    rows = on(bhp_trades, "2014-03-11")
    summary = summarise(rows, CONDITIONS.updates(rows))
    prices = [Decimal(text) for text in ("35.95", "36.45", "35.84", "35.95")]
    assert summary == Summary(*prices, Decimal(6_705_250), 21_653, Decimal("36.13216705"))


def test_without_the_rules_the_day_would_have_opened_and_peaked_elsewhere(bhp_trades):
    rows = on(bhp_trades, "2014-03-11")
    naive = summarise(rows, np.full(len(rows), int(ALL), np.uint8))
    assert (naive.open, naive.high, naive.count) == (Decimal(40), Decimal(42), 21_681)


def test_the_matrix_alone_leaves_out_what_the_vendor_marks(bhp_trades):
    unmarked = bhp_trades.drop_columns("quality_flags").append_column(
        "quality_flags", pa.array(np.zeros(len(bhp_trades), np.int32))
    )
    assert (CONDITIONS.updates(unmarked) == CONDITIONS.updates(bhp_trades)).all()


def test_every_eligible_print_of_real_days_is_in_session(bhp_trades):
    eligible = CONDITIONS.updates(bhp_trades) & int(Update.COUNT) != 0
    outside = bhp_trades["quality_flags"].to_numpy() & int(Flag.OUT_OF_SESSION) != 0
    assert (eligible.sum(), outside.sum()) == (91_498, 60)
    assert not (eligible & outside).any()


def test_of_45_real_crosses_in_trading_hours_one_stood(bhp_quotes):
    found = crosses(bhp_quotes, FEEDS["asx-quotes"].sessions)
    local = local_times(bhp_quotes["timestamp"].cast(pa.int64()).to_numpy(), "Australia/Sydney") % DAY_US
    hours = (local >= 610 * MINUTE_US) & (local < 960 * MINUTE_US)
    flagged = bhp_quotes["quality_flags"].to_numpy() & int(Flag.CROSSED) != 0
    assert (found.crossed == flagged).all()
    assert (found.crossed.sum(), (found.crossed & hours).sum()) == (323, 45)
    assert (found.crossed & hours & found.replaced).sum() == 44
    assert found.standing.sum() == 1
    stood = bhp_quotes.filter(pa.array(found.standing)).select(["bid_price", "ask_price"]).to_pylist()
    assert stood == [{"bid_price": Decimal("35.92"), "ask_price": Decimal("35.91")}]


@pytest.mark.parametrize("start", [date(2025, 3, 11), date(2025, 7, 1)], ids=["staggered", "together"])
def test_simulated_days_have_what_makes_real_ones_hard(start):
    parts = Simulation(start=start, days=1, rows_per_day=1_000, auctions=True).parts()
    trades, quotes = (screened(feed, parts) for feed in ("asx-trades", "asx-quotes"))
    eligible = CONDITIONS.updates(trades) & int(Update.COUNT) != 0
    outside = trades["quality_flags"].to_numpy() & int(Flag.OUT_OF_SESSION) != 0
    assert not (eligible & outside).any()
    assert outside.any()
    found = crosses(quotes, FEEDS["asx-quotes"].sessions)
    assert (found.crossed & found.continuous & found.replaced).any()
    assert (found.crossed & ~found.continuous).any()
    assert not found.standing.any()
