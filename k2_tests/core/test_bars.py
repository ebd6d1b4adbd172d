from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_core.bars import Basis, Hole, bars_of
from k2_core.conditions import ALL, NONE, Conditions, Rule, Update
from k2_core.contracts import TRADES
from k2_core.derived_tables import BARS_1M
from k2_core.quality import Flag
from k2_core.rollups import LOOKBACK_US, rolled_up, timeframe_named
from k2_core.windows import from_us, to_us
from k2_tests.core import bars_oracle
from k2_tests.ticks import trade

RULES = (
    Rule("none", NONE),
    Rule("volume", Update.VOLUME | Update.COUNT),
    Rule("late", ALL & ~(Update.OPEN | Update.LAST)),
    Rule("close", Update.LAST | Update.VWAP),
    Rule("until", NONE, end=date(2024, 8, 8)),
)
ZONES = {"ASX": "Australia/Sydney", "NSE": "Asia/Kolkata", "BINANCE": "UTC"}
CONDITIONS = {name: Conditions(name, RULES, ALL) for name in ("ASX", "NSE")}
MIDNIGHTS = [datetime(2024, 8, 8, *at, tzinfo=UTC) for at in ((0, 0), (14, 0), (18, 30), (12, 0))]
"""Of each exchange, and an hour in the middle of every day."""
TIMEFRAMES = [timeframe_named(text) for text in ("1m", "2m", "5m", "15m", "1h", "4h", "12h", "1d")]


def basis_at(commit_time):
    return Basis("c" * 64, 7, commit_time, CONDITIONS, ZONES)


BASIS = basis_at(datetime(2024, 8, 8, 15, tzinfo=UTC))


def printed(number, at, exchange="BINANCE", symbol="X", **changes):
    day = at.astimezone(ZoneInfo(ZONES[exchange])).date()
    key = f"{exchange}:{symbol}:trade:{number}"
    return trade(
        number,
        **{"message_id": key, "exchange": exchange, "symbol": symbol, "timestamp": at, "exchange_date": day, **changes},
    )


def table_of(records):
    lineage = {"kafka_topic": "t", "kafka_epoch": 0, "kafka_partition": 0, "kafka_offset": 0, "revision": 0}
    return pa.Table.from_pylist([{**r, **lineage} for r in records], schema=TRADES.arrow_schema())


prices = st.one_of(
    st.sampled_from(["0.00000001", "9999999999.99999999", "36.55", "61837.63"]),
    st.integers(1, 10**18 - 1).map(lambda n: Decimal(n).scaleb(-8)),
    st.integers(3_500, 3_700).map(lambda n: Decimal(n).scaleb(-2)),
).map(Decimal)
offsets_us = st.one_of(
    st.integers(-20, 20).map(lambda minutes: minutes * 60_000_000),
    st.integers(-1_200, 1_200).map(lambda seconds: seconds * 1_000_000),
    st.integers(-600_000_000, 600_000_000),
    st.sampled_from([0, 1, -1, 300_000_000, 299_999_999, 300_000_001]),
)


@st.composite
def prints(draw):
    records = []
    for number in range(draw(st.integers(1, 25))):
        at = draw(st.sampled_from(MIDNIGHTS)) + timedelta(microseconds=draw(offsets_us))
        changes = {
            "price": draw(prices),
            "quantity": draw(prices),
            "source_sequence": draw(st.one_of(st.none(), st.integers(0, 30))),
            "platform_sequence": draw(st.one_of(st.none(), st.integers(0, 3))),
            "trade_conditions": draw(
                st.lists(st.sampled_from(["none", "volume", "late", "close", "until", "0"]), max_size=2)
            ),
            "quality_flags": draw(st.sampled_from([0, 0, 0, int(Flag.VENDOR_EXCLUDED), int(Flag.OUT_OF_SESSION)])),
        }
        exchange, symbol = draw(st.sampled_from(["BINANCE", "ASX", "NSE"])), draw(st.sampled_from(["X", "Y"]))
        records.append(printed(number, at, exchange, symbol, **changes))
    return draw(st.permutations(records))


holes = st.lists(
    st.builds(
        Hole,
        st.sampled_from(["BINANCE", "ASX"]),
        st.sampled_from(["X", "Y"]),
        st.sampled_from([date(2024, 8, 7), date(2024, 8, 8)]),
        st.integers(-1, 31),
    ),
    max_size=4,
)
commits = st.sampled_from([*MIDNIGHTS, datetime(2024, 8, 8, 15, tzinfo=UTC), datetime(2024, 8, 9, 1, tzinfo=UTC)])


@settings(max_examples=80)
@given(prints(), holes, commits, st.sampled_from(TIMEFRAMES))
def test_bars_of_every_length_are_those_of_their_own_prints(records, missing, commit_time, timeframe):
    basis = basis_at(commit_time)
    minutes = bars_of(table_of(records), basis, missing)
    found = rolled_up(minutes, timeframe, ZONES)
    assert found.to_pylist() == bars_oracle.bars(records, timeframe, basis, missing)


@settings(max_examples=25)
@given(prints())
def test_the_bar_of_a_minute_is_its_own_roll_up(records):
    minutes = bars_of(table_of(records), BASIS)
    assert rolled_up(minutes, timeframe_named("1m"), ZONES) == minutes
    assert minutes.schema.equals(BARS_1M.arrow_schema())


@settings(max_examples=25)
@given(prints(), st.sampled_from(TIMEFRAMES), st.integers(-30, 30))
def test_a_roll_up_needs_no_bar_before_the_lookback(records, timeframe, quarter):
    start_us = to_us(MIDNIGHTS[3]) + quarter * 900_000_000
    start_us -= start_us % (timeframe.width_us or 86_400_000_000)
    minutes = bars_of(table_of(records), BASIS)
    near = minutes.filter(pa.compute.greater_equal(minutes["window_start"], from_us(start_us - LOOKBACK_US)))

    def asked(bars):
        return bars.filter(pa.compute.greater_equal(bars["window_start"], from_us(start_us))).to_pylist()

    if timeframe.width_us:
        assert asked(rolled_up(near, timeframe, ZONES)) == asked(rolled_up(minutes, timeframe, ZONES))


@settings(max_examples=25)
@given(prints(), st.data())
def test_a_date_is_computed_from_its_own_prints_alone(records, data):
    whole = bars_of(table_of(records), BASIS)
    day = data.draw(st.sampled_from(sorted({r["exchange_date"] for r in records})))
    own = bars_of(table_of([r for r in records if r["exchange_date"] == day]), BASIS)
    assert own.to_pylist() == [bar for bar in whole.to_pylist() if bar["exchange_date"] == day]


def test_nothing_printed_makes_no_bar():
    nothing = bars_of(table_of([]), BASIS)
    assert (len(nothing), len(rolled_up(nothing, timeframe_named("1d"), ZONES))) == (0, 0)


def test_a_notional_beyond_its_type_is_null_and_stops_nobody():
    noon = MIDNIGHTS[3]
    huge = Decimal("9999999999.99999999")
    records = [printed(n, noon + timedelta(milliseconds=n), price=huge, quantity=huge) for n in range(101)]
    (bar,) = bars_of(table_of(records), BASIS).to_pylist()
    assert (bar["notional"], bar["vwap"], bar["high_price"]) == (None, None, huge)
    assert bar["volume"] == Decimal("1009999999999.99999899")
    (day,) = rolled_up(bars_of(table_of(records), BASIS), timeframe_named("1d"), ZONES).to_pylist()
    assert (day["notional"], day["vwap"], day["priced_volume"]) == (None, None, bar["volume"])


def test_a_price_holds_for_five_minutes_and_no_longer():
    noon = MIDNIGHTS[3]
    records = [printed(1, noon, price=Decimal(10)), printed(2, noon + timedelta(minutes=30), price=Decimal(20))]
    (hour,) = rolled_up(bars_of(table_of(records), BASIS), timeframe_named("1h"), ZONES).to_pylist()
    assert (hour["twap"], hour["covered_us"]) == (Decimal(15), 600_000_000)
    assert hour["twap_coverage"] == Decimal("0.16666667")


def test_a_price_holds_into_a_window_whose_first_print_is_of_the_next_date():
    before, after = datetime(2024, 8, 8, 11, 58, tzinfo=UTC), datetime(2024, 8, 8, 14, 10, tzinfo=UTC)
    records = [printed(1, before, "ASX", price=Decimal(10)), printed(2, after, "ASX", price=Decimal(20))]
    assert [r["exchange_date"].day for r in records] == [8, 9]
    *_, second = rolled_up(bars_of(table_of(records), BASIS), timeframe_named("4h"), ZONES).to_pylist()
    assert (second["covered_us"], second["price_time"]) == (480_000_000, Decimal(180 * 10 + 300 * 20))


def test_prints_of_one_instant_are_told_apart_by_their_sequences_then_by_their_keys():
    sequences = [(None, None), (None, None), (None, 0), (3, None), (3, None), (3, 1)]
    at = MIDNIGHTS[3]
    records = [
        printed(n, at, price=Decimal(n + 1), source_sequence=source, platform_sequence=platform)
        for n, (source, platform) in enumerate(sequences)
    ]
    for count in range(1, len(records) + 1):
        for shuffled in (records[:count], records[:count][::-1]):
            (bar,) = bars_of(table_of(shuffled), BASIS).to_pylist()
            assert (bar["open_price"], bar["close_price"]) == (Decimal(1), Decimal(count))


@pytest.mark.parametrize("text", ["", "0m", "7m", "1d2", "m", "1.5h", "25h", "-5m", "1 m", "90s", "1w"])
def test_a_length_that_does_not_divide_a_day_is_refused(text):
    with pytest.raises(ValueError, match="no length of bars"):
        timeframe_named(text)


@pytest.mark.parametrize(("text", "minutes"), [("1m", 1), ("45m", 45), ("90m", 90), ("6h", 360), ("24h", 1440)])
def test_a_length_that_divides_a_day_is_read(text, minutes):
    assert timeframe_named(text).width_us == minutes * 60_000_000
