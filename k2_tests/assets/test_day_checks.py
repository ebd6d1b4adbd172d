"""Each check of a day, where it holds and where it does not, over a lake without servers."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow as pa
import pytest
from dagster._serdes import serialize_value
from pyiceberg.types import StringType

from k2_assets.check_bars import volume_result
from k2_assets.check_batches import freshness_result
from k2_assets.checks import checks_of
from k2_assets.derived import rules_of
from k2_core.contracts import COVERAGE, QUOTES, TRADES, Table
from k2_core.derived_tables import BARS, BARS_1D, BARS_1M
from k2_core.feeds import feeds_of
from k2_core.issues import ISSUED, Issue, Sketch, ids_of
from k2_core.protocol.ports import Change
from k2_core.quality import Flag
from k2_core.receipts import DateRows, Receipt
from k2_resources import clock
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived import build_day, build_minutes, ensure
from k2_resources.lake.derived_reads import source_of
from k2_resources.settings import Settings
from k2_tests.core.test_crosses import state
from k2_tests.lakes import DAY, Batch, collect, commit, new_lake, put, register
from k2_tests.ticks import FEEDS, asx_trade, trade

ALL_FEEDS = tuple(FEEDS.values())
ASX_DAY = date(2014, 3, 11)
SYDNEY = ZoneInfo("Australia/Sydney")


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    made = new_lake(tmp_path)
    register(made)
    yield made


def check(lake: Lake, name: str, day: date = DAY, table: Table = TRADES) -> dg.AssetCheckResult:
    feeds = feeds_of(TRADES if table in BARS else table, ALL_FEEDS)
    result = checks_of(table)[name](lake, table, feeds, day)
    serialize_value(list(result.metadata.values()))  # what Dagster could not store would fail the run
    return result


def store(lake: Lake, *records: Mapping[str, Any], table: Table = TRADES, dates: tuple[DateRows, ...] = ()) -> None:
    """Put rows into a table past the judge. dates: what their receipt shall say of them."""
    feed = "asx" if any(record.get("exchange") == "ASX" for record in records) else "binance"
    topic = FEEDS["coverage" if table is COVERAGE else f"{feed}-{table.short_name}"].topic
    lineage = {"kafka_topic": topic, "kafka_epoch": 0, "kafka_partition": 0}
    rows = [
        {"revision": 0, "exchange_date": DAY, **record, **lineage, "kafka_offset": offset}
        for offset, record in enumerate(records)
    ]
    receipt = Receipt(table.name, "batch", "fault", "0", "1", (), dates=dates)
    change = Change(receipt, pa.Table.from_pylist(rows, table.arrow_schema()))
    commit(lake, lake.head(table), change)
    collect(lake, table)


def shown(result: dg.AssetCheckResult, name: str = "sample") -> list[Mapping[str, Any]]:
    value = result.metadata[name]
    return [record.data for record in value.records] if isinstance(value, dg.TableMetadataValue) else []


def test_rows_as_their_receipts_say_and_more_of_them_than_that(lake: Lake) -> None:
    put(lake, Batch([1, 2, 3]))
    collect(lake, TRADES)
    assert check(lake, "receipts_equal_rows").passed
    put(lake, Batch([4]))
    assert check(lake, "receipts_equal_rows").passed, "what is not told yet is in neither"
    store(lake, trade(9))
    result = check(lake, "receipts_equal_rows")
    assert (result.passed, result.metadata["difference"].value) == (False, 1)
    assert shown(result, "feeds") == [{"feed": "binance-trades", "in_receipts": 4, "stored": 5}]
    assert shown(result, "repeated_records")[0]["kafka_offset"] == 0


def test_columns_of_the_contract_and_a_column_nobody_stated(lake: Lake) -> None:
    assert check(lake, "schema").passed
    with lake.load(TRADES).update_schema() as update:
        update.add_column("odd", StringType())
    result = check(lake, "schema")
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert shown(result, "columns") == [{"column": "odd", "contract": "absent", "table": "string, null"}]


def test_records_of_a_schema_that_cannot_be_read_are_a_warning(lake: Lake) -> None:
    put(lake, Batch([1], letters=[b"junk"]))
    collect(lake, TRADES)
    result = check(lake, "schema")
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert [(row["kafka_offset"], row["reason"]) for row in shown(result, "records")] == [(1, "bad_magic")]


@pytest.mark.parametrize(
    ("seconds", "passed", "severity"), [(5, True, "WARN"), (90, False, "WARN"), (3600, False, "ERROR")]
)
def test_rows_of_an_open_date_that_waited_long_for_their_commit(
    lake: Lake, seconds: int, passed: bool, severity: str
) -> None:
    now = clock.now()
    today = now.date()
    row = {**trade(1), "exchange_date": today, "ingestion_timestamp": now - timedelta(seconds=seconds)}
    store(lake, row, dates=(DateRows(today, "binance-trades", 1),))
    result = check(lake, "lag", today)
    assert (result.passed, result.severity.value) == (passed, severity)
    assert len(shown(result, "late")) == (not passed)
    assert check(lake, "lag").metadata["applicable"].value is False, "of a date that is over nothing is said"


@pytest.mark.parametrize(
    ("now", "heard", "quiet"),
    [("12:00", "11:59", False), ("12:00", "11:00", True), ("10:15", "09:00", False), ("10:40", "09:00", True),
     ("17:00", "11:00", None), ("08:00", "07:00", None)],
)  # fmt: skip
def test_an_exchange_is_silent_only_while_it_trades(now: str, heard: str, quiet: bool | None) -> None:
    feed = FEEDS["asx-trades"]
    at, last = (
        datetime.fromisoformat(f"{ASX_DAY} {clock_}").replace(tzinfo=SYDNEY).astimezone(UTC) for clock_ in (now, heard)
    )
    schema = TRADES.arrow_schema()
    columns = pa.schema([schema.field("kafka_topic"), schema.field("ingestion_timestamp")])
    rows = pa.Table.from_pylist([{"kafka_topic": feed.topic, "ingestion_timestamp": last}], columns)
    result = freshness_result((feed,), rows, ASX_DAY, at)
    assert (result.passed, result.metadata["applicable"].value) == (not quiet, quiet is not None)


def test_a_book_that_the_next_message_mends_and_one_that_is_left_crossed(lake: Lake) -> None:
    noon = asx_trade("43200")["timestamp"]
    later = noon + timedelta(hours=1)
    mended = (state("11", "10", noon, 0), state("11", "12", noon, 1), state("11", "11", noon + timedelta(seconds=1)))
    store(lake, *mended, table=QUOTES)
    result = check(lake, "crossed_quotes", ASX_DAY, QUOTES)
    assert (result.passed, result.metadata["locked"].value) == (True, 1)
    left = state("12", "11", later)
    store(lake, left, table=QUOTES)
    result = check(lake, "crossed_quotes", ASX_DAY, QUOTES)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert [row["message_id"] for row in shown(result)] == [left["message_id"]]
    assert str(result.metadata["crossed_by_hour"].value).startswith("![chart](data:image/svg+xml;base64,")
    store(lake, {**left, "ask_price": Decimal(13), "revision": 1}, table=QUOTES)
    assert check(lake, "crossed_quotes", ASX_DAY, QUOTES).passed, "the source corrected it"


def test_a_price_far_off_and_one_that_is_left_out_of_prices(lake: Lake) -> None:
    calm = [asx_trade(f"{40_000 + n}", price=f"{36 + n % 5 / 100}", exchange_date=ASX_DAY) for n in range(60)]
    odd = asx_trade("40010.5", price="42", exchange_date=ASX_DAY)
    store(lake, *calm, {**odd, "quality_flags": int(Flag.VENDOR_EXCLUDED)})
    result = check(lake, "outliers", ASX_DAY)
    assert (result.passed, result.metadata["prices"].value) == (True, 60)
    store(lake, {**odd, "message_id": odd["message_id"] + ":again"})
    result = check(lake, "outliers", ASX_DAY)
    assert (result.passed, result.metadata["outliers"].value) == (False, 1)
    [row] = shown(result)
    assert (row["price"], row["median"]) == ("42.00000000", 36.02)
    assert check(lake, "outliers").passed, "a date without prints"


def test_rows_of_the_latest_load_and_a_row_that_it_withdrew(lake: Lake) -> None:
    rows = [asx_trade(f"{40_000 + n}", exchange_date=ASX_DAY) for n in range(3)]
    store(lake, *rows)
    assert check(lake, "withdrawn_rows", ASX_DAY).metadata["applicable"].value is False, "no load said what it holds"
    keys = [row["message_id"] for row in rows]
    store(lake, issued(1, keys), table=COVERAGE)
    assert check(lake, "withdrawn_rows", ASX_DAY).passed
    store(lake, issued(2, keys[:2]), table=COVERAGE)
    result = check(lake, "withdrawn_rows", ASX_DAY)
    assert (result.passed, result.metadata["withdrawn"].value) == (False, 1)
    assert [row["message_id"] for row in shown(result)] == keys[2:]


def issued(number: int, keys: list[str]) -> dict[str, Any]:
    """A load's statement of what it held of BHP on ASX_DAY."""
    at = datetime(2026, 1, number, tzinfo=UTC)
    none = dict.fromkeys(("first_id", "last_id", "opened", "closed", "letter", "delivered", "gap_id"))
    return {
        **none,
        "message_id": f"COVERAGE:{number}:issued",
        "collection_id": str(number),
        "event": ISSUED,
        "feed": "asx-trades",
        "source": "a file",
        "exchange": "K2",
        "symbol": "BHP",
        "timestamp": at,
        "ingestion_timestamp": at,
        "rows": len(keys),
        "rejected": 0,
        "evidence": Issue(ASX_DAY, len(keys), Sketch.of(ids_of(keys))).evidence(),
        "exchange_date": at.date(),
    }


def test_bars_are_what_their_ticks_come_to_until_somebody_changes_one(lake: Lake) -> None:
    ensure(lake)
    assert check(lake, "bars_equal_ticks", table=BARS_1M).metadata["applicable"].value is False
    put(lake, Batch([1, 2, 5], gaps=[(3, 4)]))
    collect(lake, TRADES)
    rules, source = rules_of(Settings(), ALL_FEEDS), source_of(lake)
    assert source is not None
    build_minutes(lake, source, rules, DAY)
    build_day(lake, rules, DAY)
    put(lake, Batch([6]))  # bars keep to their C
    collect(lake, TRADES)
    assert [check(lake, "bars_equal_ticks", table=table).metadata["bars"].value for table in BARS] == [1, 1]
    assert all(check(lake, "bars_equal_ticks", table=table).passed for table in BARS)
    for table in BARS:
        loaded = lake.load(table)
        rows = loaded.scan().to_arrow()
        more = [{**row, "volume": row["volume"] + 1} for row in rows.to_pylist()]
        loaded.overwrite(pa.Table.from_pylist(more, rows.schema))
        result = check(lake, "bars_equal_ticks", table=table)
        assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
        assert [(row["column"], row["stored"], row["from_ticks"]) for row in shown(result)] == [
            ("volume", "1.06000000", "0.06000000")
        ]


def days(*volumes: int, is_final: bool = True) -> pa.Table:
    """Daily bars of one symbol, the last of them on DAY."""
    rows = [
        {
            "symbol": "BHP",
            "exchange": "ASX",
            "exchange_date": DAY - timedelta(days=n),
            "volume": volume,
            "is_final": is_final,
        }
        for n, volume in enumerate(reversed(volumes))
    ]
    return pa.Table.from_pylist(rows)


def test_a_usual_volume_and_one_that_is_a_tenth_of_it() -> None:
    assert volume_result(DAY, days(100, 120, 90, 110, 60)).passed
    result = volume_result(DAY, days(100, 120, 90, 110, 10))
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert [(row["symbol"], row["volume"], row["days"]) for row in shown(result)] == [("BHP", 10.0, 4)]
    assert "first_unusual" in result.metadata


@pytest.mark.parametrize("bars", [days(100, 120, 10), days(100, 120, 90, 110, 10, is_final=False)])
def test_of_few_days_and_of_one_that_goes_on_no_volume_is_judged(bars: pa.Table) -> None:
    result = volume_result(DAY, bars)
    assert (result.passed, result.metadata["applicable"].value) == (True, False)


def test_the_volume_of_a_stored_day_is_judged(lake: Lake) -> None:
    assert check(lake, "volume", table=BARS_1D).passed
