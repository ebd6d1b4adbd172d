from __future__ import annotations

from collections import Counter
from datetime import date
from itertools import pairwise

import pytest

from k2_core.errors import BadInput
from k2_core.quality import Flag
from k2_feeds.asx import read_parts
from k2_feeds.asx_files import plan_load
from k2_feeds.binance_capture import read_capture
from k2_feeds.companies import read_companies
from k2_feeds.outcomes import Row
from k2_feeds.simulated_binance import Faults
from k2_feeds.simulator import Simulation, Truth

SMALL = Simulation(seed=7, rows_per_day=200)
FAULTY = Simulation(seed=7, rows_per_day=200, faults=Faults(duplicates=9, hole=5, out_of_order=11))


def files(simulation, folder):
    return {path.relative_to(folder): path.read_bytes() for path in simulation.write(folder)}


def records(simulation, feed, symbol=None):
    found = list(simulation.outcomes(lambda: 0))
    assert all(isinstance(o, Row) for o in found)
    return [o.record for o in found if o.feed == feed and symbol in (None, o.symbol)]


def observed(outcomes):
    """Truth as the parsers see it: distinct keys, repeats and missing ids per feed and symbol."""
    keys, ids = {}, {}
    for row in outcomes:
        keys.setdefault((row.feed, row.symbol), Counter())[row.record["message_id"]] += 1
        ids.setdefault((row.feed, row.symbol), set()).add(row.record["source_sequence"])
    return {
        at: (len(c), c.total() - len(c), holes(ids[at]) if at[0] == "binance-trades" else ()) for at, c in keys.items()
    }


def holes(ids):
    ordered = sorted(ids)
    return tuple((a + 1, b - 1) for a, b in pairwise(ordered) if b - a > 1)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    assert files(SMALL, tmp_path / "a") == files(Simulation(seed=7, rows_per_day=200), tmp_path / "b")


def test_another_seed_gives_other_bytes(tmp_path):
    assert files(SMALL, tmp_path / "a") != files(Simulation(seed=8, rows_per_day=200), tmp_path / "b")


@pytest.mark.parametrize("simulation", [SMALL, FAULTY], ids=["clean", "faulty"])
def test_the_truth_is_what_the_parsers_see(simulation):
    seen = observed(simulation.outcomes(lambda: 0))
    assert seen == {(t.feed, t.symbol): (t.rows, t.duplicates, t.gaps) for t in simulation.truth()}


def test_the_faults_are_the_ones_asked_for():
    truth = FAULTY.truth()[0]
    ids = [r["source_sequence"] for r in records(FAULTY, "binance-trades", truth.symbol)]
    first, last = truth.gaps[0]
    late = {i for i, later in pairwise(ids) if later < i}
    assert (truth.rows, truth.duplicates, last - first + 1, len(truth.gaps)) == (395, 9, 5, 1)
    assert late
    assert FAULTY.truth()[1] == Truth("binance-trades", "SIMETHUSDT", 400)


def test_written_files_read_back_as_what_is_sent_directly(tmp_path):
    capture, info, *_ = FAULTY.write(tmp_path)
    companies = read_companies(info)
    parts = plan_load((tmp_path / "trades").iterdir(), (tmp_path / "quotes").iterdir(), companies)
    written = [*read_capture(capture), *read_parts(parts, companies, lambda: 0)]
    direct = list(FAULTY.outcomes(lambda: 0))
    order = lambda row: (row.feed, row.symbol, row.record["message_id"], row.record["ingestion_timestamp"])  # noqa: E731
    assert sorted(written, key=order) == sorted(direct, key=order)


def test_a_day_is_the_same_whatever_is_simulated_around_it():
    whole = Simulation(seed=7, rows_per_day=200, days=2)
    second = Simulation(seed=7, rows_per_day=200, days=1, start=date(2025, 3, 12))
    keys = {r["message_id"]: r for r in records(whole, "binance-trades")}
    assert all(keys[r["message_id"]] == r for r in records(second, "binance-trades"))


def test_asx_days_are_as_hard_as_real_ones():
    trades, quotes = records(SMALL, "asx-trades"), records(SMALL, "asx-quotes")
    prices = [r["price"] for r in trades if not r["quality_flags"]]
    excluded = [r["price"] for r in trades if r["quality_flags"] == Flag.VENDOR_EXCLUDED]
    assert max(excluded) > max(prices)
    assert any(not r["message_id"].endswith(":0") for r in trades)
    assert any(r["ask_price"] is None for r in quotes)
    assert any(r["ask_price"] is not None and r["bid_price"] > r["ask_price"] for r in quotes)


def test_asx_weekends_are_closed():
    friday = Simulation(start=date(2025, 3, 14), days=2, rows_per_day=50)
    days = {r["message_id"].split(":")[3] for r in records(friday, "asx-trades")}
    assert days == {"2025-03-14", "2025-03-17"}


@pytest.mark.parametrize(
    "wrong",
    [{"days": 0}, {"rows_per_day": 0}, {"start": date(1999, 1, 1)}, {"pairs": ()}, {"pairs": ("A:B",)},
     {"pairs": ("A", "A")}],
)  # fmt: skip
def test_a_market_that_cannot_be_is_refused(wrong):
    with pytest.raises(BadInput):
        Simulation(**wrong)


def test_more_faults_than_a_day_can_hold_are_refused():
    with pytest.raises(BadInput, match="four times"):
        list(Simulation(rows_per_day=10, faults=Faults(hole=9)).frames())
