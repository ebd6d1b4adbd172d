from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from k2_core.bar_views import as_of, by_every_print, exact_vwap, gap_ends, with_gaps
from k2_core.bars import Basis, bars_of
from k2_core.profiles import merged, profile_of
from k2_core.windows import INTERVALS, TIMEFRAMES
from k2_tests.core import bars_oracle
from k2_tests.core.test_bars import BASIS, MIDNIGHTS, basis_at, commits, holes, printed, prints, table_of

SECONDS = [INTERVALS[name] for name in ("1s", "5s", "30s", "2m")]


@settings(max_examples=15, deadline=None)
@given(prints(), st.sampled_from(SECONDS))
def test_bars_of_seconds_are_those_of_their_own_prints(records, timeframe):
    found = bars_of(table_of(records), BASIS, width_us=timeframe.width_us)
    assert found.to_pylist() == bars_oracle.bars(records, timeframe, BASIS)


@settings(max_examples=15, deadline=None)
@given(prints(), holes)
def test_holes_counted_from_outside_are_counted_in_the_same_bars(records, missing):
    trades = table_of(records)
    told = with_gaps(bars_of(trades, BASIS), gap_ends(trades, missing))
    assert told == bars_of(trades, BASIS, missing)


@settings(max_examples=15, deadline=None)
@given(prints(), commits, commits)
def test_bars_stand_at_another_commit_as_if_they_were_computed_there(records, built, asked):
    trades, later = table_of(records), basis_at(asked)
    assert as_of(bars_of(trades, basis_at(built)), later, {}) == bars_of(trades, later)


@settings(max_examples=15, deadline=None)
@given(prints())
def test_every_print_counts_for_the_raw_view(records):
    bare = [{**r, "trade_conditions": [], "quality_flags": 0} for r in records]
    raw, expected = bars_of(by_every_print(table_of(records)), BASIS), bars_of(table_of(bare), BASIS)
    assert raw == expected


def test_an_average_of_sums_beyond_every_type_is_exact():
    huge = Decimal("9999999999.99999999")
    records = [printed(n, MIDNIGHTS[3] + timedelta(microseconds=n), price=huge, quantity=huge) for n in range(2_000)]
    records.append(printed(2_001, MIDNIGHTS[3], price=Decimal(1), quantity=Decimal(1)))
    volume = sum(Fraction(r["quantity"]) for r in records)
    notional = sum(Fraction(r["quantity"]) * Fraction(r["price"]) for r in records)
    assert exact_vwap(table_of(records), Basis("", 1, MIDNIGHTS[3], {}, {})) == round(notional / volume * 10**8)


@settings(max_examples=15, deadline=None)
@given(prints(), st.sampled_from([TIMEFRAMES["1m"], TIMEFRAMES["1d"]]), st.integers(0, 25))
def test_a_profile_adds_up_to_its_bars_however_it_was_cut(records, timeframe, cut):
    own = [r for r in records if r["symbol"] == records[0]["symbol"]]
    whole = profile_of(table_of(own), BASIS, timeframe)
    assert merged(profile_of(table_of(some), BASIS, timeframe) for some in (own[:cut], own[cut:])) == whole
    bars = bars_oracle.bars(own, timeframe, BASIS)
    assert sum(whole["trade_count"].to_pylist()) == sum(bar["trade_count"] for bar in bars)
    assert sum(whole["volume"].to_pylist()) == sum(bar["volume"] for bar in bars)
