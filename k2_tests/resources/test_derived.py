"""Bars in a real lake: what is stored is what the trades say, whatever came in which order, and who built it when."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from k2_core.builds import Built, built_in, built_key
from k2_core.contracts import TRADES
from k2_core.derived_tables import BARS_1D, BARS_1M
from k2_core.errors import FencedOut, NotFound
from k2_core.keys import topic_key
from k2_core.protocol.ports import Change
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_core.rollups import timeframe_named
from k2_resources.lake import derived
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived import build_day, build_minutes, builds_told, due_days, due_minutes, recomputed_minutes
from k2_resources.lake.derived_reads import Rules, day_bars, source_of, stored_bars
from k2_tests.core import bars_oracle
from k2_tests.lakes import FEED, TOPIC, collect, commit, gap_rows, new_lake
from k2_tests.ticks import table_of, trade

DAY = date(2024, 8, 8)
NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)
RULES = Rules({}, {"BINANCE": "UTC"})


@pytest.fixture
def lake(tmp_path):
    lake = new_lake(tmp_path / "k2")
    derived.ensure(lake)
    receipt = Receipt(TRADES.name, "register", "run", "0", "1", (RangeCount(TOPIC, 0, 0, 0, 0),))
    commit(lake, lake.head(TRADES), Change(receipt, properties={topic_key(TOPIC): "{}"}))
    collect(lake, TRADES)
    return lake


def printed(number, *, minute=0, second=0, day=DAY, revision=0, **changes):
    at = NOON + (day - DAY) + timedelta(minutes=minute, seconds=second)
    return trade(number, timestamp=at, exchange_date=day, revision=revision, **changes)


def put(lake, *records, gaps=None, touched=()):
    """Commit trades as one batch and collect its receipt. touched: dates that change without gaining a row."""
    at = lake.head(TRADES)
    start = at.offsets.positions[TOPIC, 0].next
    sent = table_of(FEED, [{k: v for k, v in r.items() if k not in ("revision", "exchange_date")} for r in records])
    judged = {
        "revision": [r["revision"] for r in records],
        "exchange_date": [r["exchange_date"] for r in records],
        "kafka_offset": range(start, start + len(records)),
    }
    columns = {**{name: sent[name] for name in sent.column_names}, **judged}
    schema = TRADES.arrow_schema()
    rows = pa.table([columns[name] for name in schema.names], schema=schema)
    revisions = sum(r["revision"] > 0 for r in records)
    counted = RangeCount(TOPIC, 0, 0, start, start + len(records), len(records), len(records) - revisions, 0, revisions)
    days = {r["exchange_date"] for r in records} | set(touched)
    dates = tuple(DateRows(day, FEED.name, sum(r["exchange_date"] == day for r in records)) for day in sorted(days))
    receipt = Receipt(TRADES.name, "batch", "run", "0", "1", (counted,), (1,), dates=dates)
    committed = commit(lake, at, Change(receipt, rows=rows, gaps=gaps))
    collect(lake, TRADES)
    return committed


def refresh(lake, rules=RULES):
    """What a run does: everything that is due."""
    source = source_of(lake)
    due = due_minutes(lake, source, rules)
    built = [build_minutes(lake, source, rules, day, until=due.until) for day in due.days]
    for day in due_days(lake):
        build_day(lake, rules, day)
    return built


def as_told(lake, records, timeframe="1m", holes=()):
    basis = source_of(lake).basis(RULES)
    return bars_oracle.bars(records, timeframe_named(timeframe), basis, holes)


def test_stored_bars_of_every_length_are_those_of_the_trades(lake):
    records = [printed(n, minute=n * 7 % 90, second=n % 60, price=Decimal(100 + n % 13)) for n in range(1, 60)]
    put(lake, *records)
    refresh(lake)
    span = (NOON - timedelta(hours=12), NOON + timedelta(hours=12))
    for timeframe in ("1m", "5m", "15m", "1h", "4h", "1d"):
        found = stored_bars(lake, timeframe_named(timeframe), "BTCUSDT", span, RULES.zones)
        assert found.to_pylist() == as_told(lake, records, timeframe)
    some = stored_bars(
        lake, timeframe_named("15m"), "BTCUSDT", (NOON + timedelta(minutes=15), NOON + timedelta(minutes=45)), {}
    )
    assert some.to_pylist() == as_told(lake, records, "15m")[1:3]
    assert recomputed_minutes(lake, RULES, DAY) == day_bars(lake, BARS_1M, DAY)


def test_a_refresh_computes_the_last_minutes_only_and_ends_at_the_same_bars(lake):
    records = [printed(n, minute=n // 4, second=n % 4 * 15, price=Decimal(100 + n)) for n in range(1, 60)]
    partial = []
    for start in range(0, 59, 10):
        put(lake, *records[start : start + 10])
        (build,) = refresh(lake)
        partial.append(build.facts["is_partial"])
        assert day_bars(lake, BARS_1M, DAY).to_pylist() == as_told(lake, records[: start + 10])
    assert partial == [False, True, True, True, True, True]
    late = printed(60, minute=3, second=1, price=Decimal(7))
    put(lake, late, printed(61, minute=3, second=2, symbol="ETHUSDT"))
    (build,) = refresh(lake)
    assert build.facts["is_partial"]
    assert day_bars(lake, BARS_1M, DAY).to_pylist() == as_told(
        lake, [*records, late, printed(61, minute=3, second=2, symbol="ETHUSDT")]
    )
    assert refresh(lake) == []


def test_a_correction_moves_its_print_to_another_date_and_both_are_built_anew(lake):
    first = [printed(1, price=Decimal(10)), printed(2, minute=1, price=Decimal(20))]
    put(lake, *first)
    refresh(lake)
    following = DAY + timedelta(days=1)
    moved = printed(2, day=following, revision=1, price=Decimal(21))
    put(lake, moved, touched=[DAY])
    assert {b.exchange_date for b in refresh(lake)} == {DAY, following}
    assert day_bars(lake, BARS_1M, DAY).to_pylist() == as_told(lake, [first[0]])
    assert day_bars(lake, BARS_1M, following).to_pylist() == as_told(lake, [moved])
    put(lake, printed(1, day=following, revision=1), touched=[DAY])
    refresh(lake)
    assert [len(day_bars(lake, table, DAY)) for table in (BARS_1M, BARS_1D)] == [0, 0]


def test_bars_of_an_older_c_are_computed_again_after_newer_trades_came(lake):
    put(lake, printed(1, price=Decimal(10)), printed(2, minute=1))
    refresh(lake)
    before = day_bars(lake, BARS_1M, DAY)
    put(lake, printed(3), printed(1, revision=1, price=Decimal(11)))
    assert recomputed_minutes(lake, RULES, DAY) == before


def test_of_those_who_build_a_date_at_once_each_replaces_it_whole(lake):
    put(lake, printed(1), printed(2, minute=1))
    source, location = source_of(lake), (str(lake.catalog.engine.url), lake.warehouse)
    with ThreadPoolExecutor(3) as pool:
        built = list(pool.map(lambda _: build_minutes(Lake(*location), source, RULES, DAY), range(3)))
    assert sorted(build.facts["build"] for build in built) == [1, 2, 3]
    assert len({build.snapshot_id for build in built}) == 3
    assert lake.load(BARS_1M).scan().count() == 2
    on_disk = [path.name for path in Path(lake.warehouse).glob("market_data/bars_1m/data/**/*.parquet")]
    assert len(on_disk) == 3  # of the replaced ones snapshots tell; those of lost races are gone


def test_of_two_changes_planned_from_one_head_the_second_is_fenced_out_but_for_another_date(lake):
    following = DAY + timedelta(days=1)
    put(lake, printed(1), printed(2, day=following))
    source, planned = source_of(lake), lake.head(BARS_1M)
    build_minutes(lake, source, RULES, DAY)
    rows = day_bars(lake, BARS_1M, DAY)
    with pytest.raises(FencedOut, match=r"k2\.built\.2024-08-08"):
        derived._replace(planned, derived._Change(DAY, rows, Built(1, source.sequence_number, False, "")))
    derived._replace(planned, derived._Change(following, rows.slice(0, 0), Built(1, source.sequence_number, False, "")))
    assert set(built_in(lake.head(BARS_1M).properties)) == {DAY, following}
    assert lake.load(BARS_1M).scan().count() == 1


def test_a_date_never_goes_back_to_an_older_c(lake):
    put(lake, printed(1))
    old = source_of(lake)
    put(lake, printed(2))
    refresh(lake)
    build_minutes(lake, old, RULES, DAY)
    (bar,) = day_bars(lake, BARS_1M, DAY).to_pylist()
    assert bar["trade_count"] == 2


def test_other_rules_make_every_date_due(lake):
    put(lake, printed(1), printed(2, day=DAY + timedelta(days=1)))
    refresh(lake)
    other = Rules({}, {"BINANCE": "UTC", "ASX": "Australia/Sydney"})
    source = source_of(lake)
    assert due_minutes(lake, source, RULES).days == ()
    assert len(due_minutes(lake, source, other).days) == 2
    assert len(due_minutes(lake, source, other, rows_max=1).days) == 1


def test_a_hole_counts_where_the_next_id_printed(lake):
    records = [printed(1), printed(5, minute=2), printed(6, minute=3)]
    put(lake, *records, gaps=gap_rows([(2, 4)]))
    refresh(lake)
    assert day_bars(lake, BARS_1M, DAY)["gap_count"].to_pylist() == [0, 1, 0]
    assert day_bars(lake, BARS_1D, DAY)["gap_count"].to_pylist() == [1]
    put(lake, printed(7, minute=3, second=30))
    (build,) = refresh(lake)
    assert not build.facts["is_partial"]
    assert day_bars(lake, BARS_1M, DAY)["gap_count"].to_pylist() == [0, 1, 0]


def test_daily_bars_need_minute_bars(lake):
    assert build_day(lake, RULES, DAY).snapshot_id is None
    put(lake, printed(1))
    with pytest.raises(NotFound, match="build its minute bars first"):
        build_day(lake, RULES, DAY)


def test_a_build_is_told_by_its_snapshot_and_by_its_property(lake):
    put(lake, printed(1))
    (build,) = refresh(lake)
    assert builds_told(lake, BARS_1M) == [build]
    built = built_in(lake.head(BARS_1M).properties)[DAY]
    assert lake.head(BARS_1M).property(built_key(DAY)) == str(built)
    assert (built.number, built.sequence_number) == (1, build.facts["trades_commit"])
