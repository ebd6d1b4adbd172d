"""Each check, where it holds and where it does not, over tables as the protocol leaves them, or as a fault would."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from k2_assets.check_batches import gaps_result
from k2_assets.checks import checks_of
from k2_assets.tables import asset_key
from k2_core.contracts import COVERAGE, QUOTES, TRADES, Table
from k2_core.feeds import feeds_of
from k2_core.gap_ids import GapId
from k2_core.protocol.ports import Change
from k2_core.receipts import Receipt
from k2_feeds.coverage import Stamp, gap_statement
from k2_resources import clock
from k2_tests.assets.conftest import QUIET, DagsterHome
from k2_tests.lakes import commit
from k2_tests.ticks import FEEDS, NOON, asx_trade, quote, trade

DAY = date(2024, 8, 8)


def check(home: DagsterHome, name: str, day: date = DAY, table: Table = TRADES) -> dg.AssetCheckResult:
    return checks_of(table)[name](home.engine.lake, table, feeds_of(table, home.engine.feeds), day)


def store(home: DagsterHome, *records: dict[str, Any], table: Table = TRADES) -> None:
    """Put rows into a table past the judge, as only a fault could."""
    lineage = {"kafka_topic": home.binance.topic, "kafka_epoch": 0, "kafka_partition": 0, "kafka_offset": 0}
    rows = [{"revision": 0, "exchange_date": DAY, **lineage, **record} for record in records]
    change = Change(
        Receipt(table.name, "batch", "fault", "0", "1", ()), pa.Table.from_pylist(rows, table.arrow_schema())
    )
    commit(home.engine.lake, home.engine.lake.head(table), change)


def test_contiguous_ids_have_no_gap(home: DagsterHome) -> None:
    home.send(home.binance, trade(1), trade(3), trade(2))
    home.run(TRADES)
    assert check(home, "sequence_gaps").passed


@pytest.mark.parametrize(("missing", "severity"), [(9, "WARN"), (10, "ERROR"), (101, "ERROR")])
def test_a_missing_id_fails_the_date_it_was_seen_on(home: DagsterHome, missing: int, severity: str) -> None:
    home.send(home.binance, trade(1), trade(2 + missing))
    home.run(TRADES)
    result = check(home, "sequence_gaps")
    assert (result.passed, result.severity.value) == (False, severity)
    assert result.metadata["missing_ids"].value == missing
    assert [gap.data["last_id"] for gap in result.metadata["gaps"].records] == [1 + missing]
    assert check(home, "sequence_gaps", DAY - timedelta(days=1)).passed


def test_a_gap_that_was_filled_is_none(home: DagsterHome) -> None:
    home.send(home.binance, trade(1), trade(3))
    home.run(TRADES)
    home.send(home.binance, trade(2))
    home.run(TRADES)
    assert check(home, "sequence_gaps").passed
    assert [e.passed for e in home.evaluations(TRADES) if e.check_name == "sequence_gaps"] == [False, True]


@pytest.mark.parametrize(
    ("state", "passed", "told"),
    [("open", False, "gaps"), ("backfilling", False, "gaps"), ("unrecoverable", False, "gaps"),
     ("accepted", True, "settled_gaps"), ("absent_at_source", True, "settled_gaps"),
     ("not_collected", True, "settled_gaps")],
)  # fmt: skip
def test_a_gap_that_asks_for_nothing_more_fails_nobody_and_is_still_told(state: str, passed: bool, told: str) -> None:
    feed = FEEDS["binance-trades"]
    gap = {"feed": feed.name, "scope": "BTCUSDT", "first_id": 3, "last_id": 9, "size": 7, "severity": "warn"}
    result = gaps_result((feed,), [{**gap, "state": state, "exchange_date": DAY}], DAY)
    assert result.passed is passed
    assert result.metadata["feeds"].value == {feed.name: told}
    assert result.metadata["settled_gaps"].value == ({state: 1} if passed else {})


def test_a_feed_without_ids_is_never_called_complete(home: DagsterHome) -> None:
    home.send(home.asx, asx_trade("36000.1"))
    home.run(TRADES)
    assert check(home, "sequence_gaps", date(2014, 3, 11)).metadata["feeds"].value["asx-trades"] == "not_verifiable"


def test_without_dead_letters_the_batches_are_clean(home: DagsterHome) -> None:
    home.send(home.binance, trade(1))
    home.run(TRADES)
    assert check(home, "dead_letters").passed


@pytest.mark.parametrize(("good", "severity"), [(150, "WARN"), (50, "ERROR")])
def test_dead_letters_fail_the_dates_of_their_batch(home: DagsterHome, good: int, severity: str) -> None:
    home.send(home.binance, *(trade(n) for n in range(good)), trade(good, price=Decimal(0)))
    home.run(TRADES)
    result = check(home, "dead_letters")
    assert (result.passed, result.severity.value) == (False, severity)
    assert result.metadata["dead"].value == 1


def test_keys_delivered_twice_are_stored_once(home: DagsterHome) -> None:
    home.send(home.binance, trade(1), trade(2), trade(1))
    home.run(TRADES)
    assert check(home, "duplicate_keys").passed


def test_a_corrected_print_that_moved_to_the_next_date_is_no_duplicate(home: DagsterHome) -> None:
    home.send(home.binance, trade(1), trade(1, timestamp=NOON + timedelta(days=1)))
    home.run(TRADES)
    assert check(home, "duplicate_keys").passed
    assert check(home, "duplicate_keys", DAY + timedelta(days=1)).passed


@pytest.mark.parametrize("other", [DAY, DAY + timedelta(days=1), DAY - timedelta(days=1)])
def test_a_key_stored_twice_is_found_also_across_dates(home: DagsterHome, other: date) -> None:
    store(home, trade(1), trade(2), {**trade(1), "exchange_date": other})
    result = check(home, "duplicate_keys")
    assert (result.passed, result.metadata["repeated_keys"].value) == (False, 1)
    assert [key.data["message_id"] for key in result.metadata["keys"].records] == ["BINANCE:BTCUSDT:trade:1"]


def test_rows_that_came_through_the_judge_follow_their_contract(home: DagsterHome) -> None:
    home.send(home.binance, trade(1))
    home.send(home.asx, asx_trade("0.5"), asx_trade("86399.9"))
    home.send(home.feed("binance-quotes"), quote(1), quote(2, bid_price=None, bid_quantity=None))
    home.run(TRADES)
    home.run(QUOTES)
    assert check(home, "value_rules").passed
    assert check(home, "value_rules", date(2014, 3, 11)).passed
    assert check(home, "value_rules", table=QUOTES).passed


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"price": Decimal(0)}, "price > 0"),
        ({"quantity": Decimal(-1)}, "quantity > 0"),
        ({"side": "BOTH"}, "side is one of BUY, SELL, SELL_SHORT, UNKNOWN"),
        ({"message_id": ""}, "message_id is not empty"),
        ({"revision": -1}, "revision >= 0"),
        ({"exchange": "ASX"}, "binance-trades: exchange is BINANCE"),
        ({"timestamp": NOON + timedelta(days=1)}, "binance-trades: timestamp lies in 2024-08-08 of UTC"),
    ],
)
def test_a_trade_that_breaks_a_rule_is_found(home: DagsterHome, changes: dict[str, Any], rule: str) -> None:
    store(home, trade(1), {**trade(2), **changes})
    result = check(home, "value_rules")
    assert (result.passed, result.metadata["broken_rules"].value) == (False, {rule: 1})


def test_half_a_side_of_a_quote_is_found(home: DagsterHome) -> None:
    store(home, {**quote(1), "bid_price": None}, quote(2), table=QUOTES)
    result = check(home, "value_rules", table=QUOTES)
    assert result.metadata["broken_rules"].value == {"bid_price and bid_quantity come together": 1}
    assert [row.data["message_id"] for row in result.metadata["sample"].records] == ["BINANCE:BTCUSDT:quote:1"]


def test_what_a_feed_wrote_is_shown_as_text(home: DagsterHome) -> None:
    store(home, {**trade(1), "message_id": "a|b<script>\n![x](//y)", "price": Decimal(0)})
    shown = check(home, "value_rules").metadata["sample"]
    assert isinstance(shown, dg.TableMetadataValue), "the UI shows its cells as text, Markdown it would render"
    assert shown.records[0].data["message_id"] == "a|b<script> ![x](//y)"


def test_a_feed_heard_of_lately_is_fresh(home: DagsterHome) -> None:
    now = clock.now()
    store(home, {**trade(1), "exchange_date": now.date(), "ingestion_timestamp": now})
    result = check(home, "freshness", now.date())
    assert (result.passed, result.metadata["applicable"].value) == (True, True)


def test_a_feed_that_fell_silent_on_its_open_date_is_stale(home: DagsterHome) -> None:
    now = clock.now()
    store(home, {**trade(1), "exchange_date": now.date(), "ingestion_timestamp": now - timedelta(hours=1)})
    result = check(home, "freshness", now.date())
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert [row.data["feed"] for row in result.metadata["quiet"].records] == ["binance-trades"]


def test_freshness_says_nothing_of_a_date_that_is_over(home: DagsterHome) -> None:
    store(home, trade(1))
    result = check(home, "freshness")
    assert (result.passed, result.metadata["applicable"].value) == (True, False)


def test_ids_in_a_row_are_complete_as_far_as_known_and_a_hole_makes_the_date_incomplete(home: DagsterHome) -> None:
    home.send(home.binance, trade(1), trade(2), trade(3))
    home.run(TRADES)
    assert check(home, "completeness").passed
    home.send(home.binance, trade(6))
    home.run(TRADES)
    result = check(home, "completeness")
    assert (result.passed, result.metadata["missing"].value) == (False, 2)
    assert [row.data["symbol"] for row in result.metadata["symbols_short"].records] == ["BTCUSDT"]


def test_a_statement_about_a_gap_is_told_on_its_date_before_the_next_trade(home: DagsterHome) -> None:
    home.send(home.binance, trade(1), trade(3))
    home.run(TRADES)
    gap = GapId(home.binance.name, "BTCUSDT", 0, 2, 2)
    said = gap_statement(home.binance, gap, "accepted", Stamp("c0ffee", "a person", 1_790_000_000_000_000))
    home.send(home.feed("coverage"), {"letter": None, "delivered": None, **said.record})
    home.run(COVERAGE)
    told = [e for e in home.evaluations(TRADES) if e.check_name == "sequence_gaps"]
    assert [(e.passed, e.partition) for e in told] == [(False, DAY.isoformat()), (True, DAY.isoformat())]
    assert told[-1].metadata["settled_gaps"].value == {"accepted": 1}


@pytest.mark.parametrize("table", [TRADES, QUOTES, COVERAGE])
def test_people_can_ask_every_check_again_without_a_broker(home: DagsterHome, table: Table) -> None:
    home.stack.settings.endpoints_file.unlink()
    keys = {dg.AssetCheckKey(asset_key(table), name) for name in checks_of(table)}
    everything = home.definitions.resolve_implicit_global_asset_job_def()
    job = everything.get_subset(asset_selection=set(), asset_check_selection=keys)
    result = job.execute_in_process(partition_key=DAY.isoformat(), instance=home.instance, run_config=QUIET)
    assert {e.asset_check_key for e in result.get_asset_check_evaluations()} == keys
    assert {e.partition for e in result.get_asset_check_evaluations()} == {DAY.isoformat()}


def test_a_check_asked_for_after_a_run_has_told_it_is_stored_again(home: DagsterHome) -> None:
    home.send(home.binance, trade(1))
    home.run(TRADES)
    key = dg.AssetCheckKey(asset_key(TRADES), "sequence_gaps")
    everything = home.definitions.resolve_implicit_global_asset_job_def()
    job = everything.get_subset(asset_selection=set(), asset_check_selection={key})
    job.execute_in_process(partition_key=DAY.isoformat(), instance=home.instance, run_config=QUIET)
    history = home.instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    assert [record.partition for record in history] == [DAY.isoformat()] * 2
