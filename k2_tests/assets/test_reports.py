"""What Dagster is told after a run."""

from datetime import UTC, date, datetime

import dagster as dg
import pytest

from k2_assets.checks import checks_of, told_checks
from k2_assets.reports import Mark, last_mark, share_of
from k2_assets.told import Told
from k2_core.contracts import TRADES
from k2_core.receipts import RangeCount
from k2_resources import clock
from k2_tests.assets.conftest import DagsterHome
from k2_tests.ticks import asx_trade, trade


def five_days() -> list[dict[str, object]]:
    """One ASX print on each of five dates, in one batch."""
    return [asx_trade(f"{36000 + n}", day=date(2014, 3, 11 + n)) for n in range(5)]


def mark_of(home: DagsterHome) -> Mark | None:
    state = home.engine.lake.state(TRADES)
    assert state is not None
    return last_mark(home.instance, TRADES, state.table_uuid)


def test_a_run_materializes_each_date_its_receipts_touched(home: DagsterHome) -> None:
    home.send(home.binance, trade(1), trade(2))
    home.send(home.asx, asx_trade("36000.1"))
    home.run(TRADES)
    rows = {m.partition: m.metadata["rows"].value for m in home.materializations(TRADES)}
    assert rows == {"2014-03-11": 1, "2024-08-08": 2}
    assert home.days(TRADES) == ["2014-03-11", "2024-08-08"]


def test_a_materialization_says_which_offsets_and_which_snapshot_it_comes_from(home: DagsterHome) -> None:
    home.send(home.binance, trade(1), trade(1), trade(3))
    home.run(TRADES)
    told = home.materializations(TRADES)[0].metadata
    state = home.engine.lake.state(TRADES)
    assert state is not None
    assert [sum(b - a for a, b in told["offsets"].value.values()), told["batch_duplicates"].value] == [3, 1]
    assert told["snapshot_id"].value == str(state.snapshot_id)
    assert told["version"].value == state.offsets.version
    assert told["gaps_opened"].value == 1


def test_every_check_is_evaluated_for_each_date(home: DagsterHome) -> None:
    home.send(home.binance, trade(1))
    home.send(home.asx, asx_trade("36000.1"))
    home.run(TRADES)
    names = sorted(checks_of(TRADES))  # both dates are over
    evaluated = sorted((e.partition, e.check_name) for e in home.evaluations(TRADES))
    assert evaluated == [(day, name) for day in ("2014-03-11", "2024-08-08") for name in names]
    assert all(e.passed for e in home.evaluations(TRADES))


def test_of_a_date_that_goes_on_only_what_is_told_of_batches_is_evaluated(home: DagsterHome) -> None:
    now = clock.now()
    home.send(home.binance, trade(1, timestamp=now, ingestion_timestamp=now))
    home.run(TRADES)
    assert sorted(e.check_name for e in home.evaluations(TRADES)) == sorted(told_checks(TRADES))


def test_what_is_reported_is_not_reported_again(home: DagsterHome) -> None:
    home.send(home.binance, trade(1))
    home.run(TRADES)
    home.run(TRADES)
    assert len(home.materializations(TRADES)) == 1


def test_a_batch_of_duplicates_touches_no_date_and_moves_the_mark(home: DagsterHome) -> None:
    home.send(home.binance, trade(1))
    home.run(TRADES)
    before = mark_of(home)
    home.send(home.binance, trade(1))
    home.run(TRADES)
    after = mark_of(home)
    assert before is not None and after is not None and after.place > before.place
    assert len(home.materializations(TRADES)) == 1


@pytest.mark.parametrize("step", ["committed", "collected_receipts", "reported"])
def test_a_run_that_died_before_its_report_is_told_by_the_next(
    home: DagsterHome, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    home.send(home.binance, trade(1))
    home.run(TRADES)  # registers the topic, so that the next commit is a batch
    home.send(home.binance, trade(2), trade(3))
    with monkeypatch.context() as armed:
        armed.setenv("K2_FAILPOINT", f"{step}:1:raise")
        assert not home.run(TRADES, must_succeed=False).success
    request = home.tick(TRADES).run_requests[0]
    home.run(TRADES, request)
    assert home.materializations(TRADES)[-1].metadata["rows"].value == 2
    assert len(home.engine.lake.snapshots(TRADES)) == 3, "one registration, two batches"
    assert home.tick(TRADES).run_requests == []


def test_a_new_dagster_home_is_told_everything_and_the_table_stays_as_it_is(
    home: DagsterHome, another_instance: dg.DagsterInstance
) -> None:
    home.send(home.binance, trade(1))
    home.run(TRADES)
    home.send(home.binance, trade(2))
    home.run(TRADES)
    before = home.engine.lake.state(TRADES)
    home.instance = another_instance
    home.run(TRADES, home.tick(TRADES).run_requests[0])
    assert [m.metadata["rows"].value for m in home.materializations(TRADES)] == [2]
    assert home.engine.lake.state(TRADES) == before
    home.send(home.binance, trade(3))
    home.run(TRADES)
    assert [m.metadata["rows"].value for m in home.materializations(TRADES)] == [2, 1]


def test_one_run_tells_a_bounded_number_of_dates_and_the_next_the_rest(
    home: DagsterHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K2_RUN_DATES_MAX", "2")
    home.send(home.asx, *five_days())
    seen = []
    while requests := home.tick(TRADES).run_requests if seen else [None]:
        home.run(TRADES, requests[0])
        seen.append(len(home.days(TRADES)))
    assert seen == [2, 4, 5]
    assert len(home.materializations(TRADES)) == 5


def test_dead_letters_without_a_neighbour_are_told_on_the_day_of_their_commit(home: DagsterHome) -> None:
    home.stack.register(home.binance)
    home.stack.send_bytes(home.binance, [b"junk", None])
    home.run(TRADES)
    told = {(e.partition, e.check_name): e for e in home.evaluations(TRADES)}
    today = clock.now().date().isoformat()
    assert {key: e.passed for key, e in told.items()} == {(today, "dead_letters"): False, (today, "schema"): False}
    assert home.materializations(TRADES) == []


def test_a_run_for_a_date_materializes_that_date(home: DagsterHome) -> None:
    home.send(home.binance, trade(1))
    home.run(TRADES, day=date(2024, 8, 8))
    keyed = [m for m in home.materializations(TRADES) if "dagster/partition_row_count" in m.metadata]
    assert [(m.partition, m.metadata["dagster/partition_row_count"].value) for m in keyed] == [("2024-08-08", 1)]


def test_a_mark_reads_back_as_it_was_written() -> None:
    for mark in (Mark("u", 7), Mark("u", 7, date(2014, 3, 11))):
        assert Mark.parse(str(mark)) == mark


def test_a_mark_of_another_table_is_no_mark(home: DagsterHome) -> None:
    home.send(home.binance, trade(1))
    home.run(TRADES)
    assert last_mark(home.instance, TRADES, "another table of that name") is None


def receipt(number: int, *days: int) -> Told:
    dates = {date(2024, 1, day): 1 for day in days}
    ranges = (RangeCount("t", 0, 0, number, number + 1, read=1, written=1),)
    return Told(number, number, datetime(2024, 1, 1, tzinfo=UTC), "batch", "c", ranges, dates)


def test_shares_cover_every_receipt_and_date_once_whatever_their_size() -> None:
    receipts = [receipt(1), receipt(2, 1, 2, 3), receipt(3, 3), receipt(4, 4, 5), receipt(5), receipt(6, 1)]
    wanted = {(r.sequence_number, day) for r in receipts for day in r.days}
    for dates_max in range(1, 7):
        mark, told = None, []
        while share := share_of(
            [r for r in receipts if mark is None or r.sequence_number > mark.read_after], mark, "u", dates_max
        ):
            assert len(share.days) <= dates_max
            told += [(r.sequence_number, day) for day, rs in share.days.items() for r in rs]
            mark = share.mark
        assert sorted(told) == sorted(wanted)
        assert mark == Mark("u", 6)
