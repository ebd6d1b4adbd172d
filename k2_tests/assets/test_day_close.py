"""Day close in Dagster: what blocks a date, what publishes it, and who notices that it changed."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from k2_assets.day_close import day_close_definitions
from k2_assets.day_watch import BLOCKED_TAG, Cursor, close_key
from k2_assets.tables import asset_key
from k2_core.contracts import DAYS, TRADES
from k2_core.protocol.ports import Change
from k2_core.receipts import Receipt
from k2_resources import clock
from k2_resources.bindings import K2Resource
from k2_resources.lake.days import closings
from k2_resources.settings import Settings, load_feeds
from k2_tests.assets.conftest import QUIET, DagsterHome
from k2_tests.lakes import commit
from k2_tests.ticks import NOON, asx_trade, trade

DAY = date(2024, 8, 8)
ASX_DAY = date(2014, 3, 11)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sensor waits for no quiet."""
    monkeypatch.setenv("K2_DAY_CLOSE_SETTLE_SECONDS", "0")


def definitions(home: DagsterHome) -> dg.Definitions:
    """Day closes of a home, alone."""
    return alone(home.stack.settings)


def alone(settings: Settings) -> dg.Definitions:
    resources = dg.Definitions(resources={"k2": K2Resource(home=str(settings.home))})
    return dg.Definitions.merge(day_close_definitions(settings, load_feeds(settings)), resources)


def close(home: DagsterHome, exchange: str, day: date | str, **tags: str) -> tuple[bool, str]:
    """Run a day close; whether it published, and why not."""
    job = definitions(home).resolve_job_def(f"close_{exchange}")
    key = day if isinstance(day, str) else day.isoformat()
    run = job.execute_in_process(
        partition_key=key, instance=home.instance, run_config=QUIET, tags=tags, raise_on_error=False
    )
    failed = [event.step_failure_data for event in run.all_events if event.is_step_failure]
    told = [data.user_failure_data.description if data.user_failure_data else str(data.error) for data in failed]
    return run.success, "; ".join(str(text) for text in told)


def tick(home: DagsterHome, cursor: str | None = None) -> Any:
    defined, resources = definitions(home), {"k2": K2Resource(home=str(home.stack.settings.home))}
    repository = defined.get_repository_def()
    with dg.build_sensor_context(home.instance, cursor, repository_def=repository, resources=resources) as context:
        return defined.resolve_sensor_def("close_binance_sensor").evaluate_tick(context)


def run_all(home: DagsterHome, requests: Iterable[dg.RunRequest]) -> dict[str, str]:
    """Run what a sensor asked for: date -> why it was not closed; empty where it was."""
    return {str(r.partition_key): close(home, "binance", str(r.partition_key), **r.tags)[1] for r in requests}


def verdicts(home: DagsterHome) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in closings(home.engine.lake):
        if row["symbol"] != "*":
            found.setdefault(str(row["exchange_date"]), []).append(row["verdict"])
    return found


def test_a_gap_blocks_its_day_until_it_is_filled_and_the_sensor_sees_to_it(home: DagsterHome) -> None:
    days = [str(DAY + timedelta(days=n)) for n in (-1, 0, 1)]
    edges = [trade(n, timestamp=NOON + timedelta(days=at)) for n, at in ((9, -1), (300, 1))]
    some = [*edges, *map(trade, (10, 11)), *map(trade, range(212, 300))]
    home.send(home.binance, *some)
    home.run(TRADES)

    first = tick(home)
    assert [r.partition_key for r in first.run_requests] == days
    before, why, after = run_all(home, first.run_requests).values()
    assert before == after == ""
    assert closings(home.engine.lake, day=DAY, symbol="BTCUSDT") == []
    blocked = home.instance.get_runs(dg.RunsFilter(tags={BLOCKED_TAG: "sequence_gaps"}))
    assert [run.tags["dagster/partition"] for run in blocked] == [days[1]]
    assert home.instance.get_materialized_partitions(close_key("BINANCE")) == {days[0], days[2]}
    assert "BINANCE 2024-08-08 is blocked by sequence_gaps: sequence_gaps of market_data.trades: " in why
    assert "binance-trades:BTCUSDT:0:12-211, 200 ids, is open" in why

    second = tick(home, first.cursor)
    assert second.run_requests == []
    assert set(Cursor.parse(second.cursor).dates) == {days[1]}

    home.send(home.binance, *map(trade, range(12, 212)))
    home.run(TRADES)
    third = tick(home, second.cursor)
    assert [r.partition_key for r in third.run_requests] == [days[1]]
    assert run_all(home, third.run_requests) == {days[1]: ""}
    assert verdicts(home) == {days[0]: ["not_verifiable"], days[1]: ["complete"], days[2]: ["not_verifiable"]}
    assert set(home.instance.get_materialized_partitions(asset_key(DAYS))) == set(days)

    fourth = tick(home, third.cursor)
    # the days beside it could not be proven at their edges: they are looked at once more, which finds nothing new
    assert [r.partition_key for r in fourth.run_requests or ()] == []
    waiting = Cursor.parse(fourth.cursor).dates
    assert set(waiting) == {days[0], days[2]}
    assert all(touched.echo for touched in waiting.values())
    fifth = tick(home, fourth.cursor)
    assert run_all(home, fifth.run_requests) == {days[0]: "", days[2]: ""}
    assert Cursor.parse(tick(home, fifth.cursor).cursor).dates == {}
    assert verdicts(home)[days[0]] == ["not_verifiable"]


def test_days_of_an_exchange_with_holidays(home: DagsterHome) -> None:
    lake, saturday, empty = home.engine.lake, date(2014, 3, 8), date(2014, 3, 12)
    home.send(home.asx, asx_trade("36000.1"), asx_trade("36000.2"))
    home.run(TRADES)
    assert close(home, "asx", saturday) == (True, "")
    assert close(home, "asx", empty) == (True, "")
    assert close(home, "asx", ASX_DAY) == (True, "")
    today = clock.now().date()
    assert "goes on: it can be closed from" in close(home, "asx", today)[1]
    said = {(row["feed"], str(row["exchange_date"]), row["symbol"]): row["verdict"] for row in closings(lake)}
    assert said == {
        ("asx-quotes", "2014-03-11", "*"): "not_collected",
        ("asx-quotes", "2014-03-12", "*"): "not_collected",
        ("asx-trades", "2014-03-11", "BHP"): "not_verifiable",
        ("asx-trades", "2014-03-12", "*"): "not_collected",
    }

    (row,) = lake.load(TRADES).scan(limit=1).to_arrow().to_pylist()
    again = Change(
        Receipt(TRADES.name, "batch", "fault", "0", "1", ()), pa.Table.from_pylist([row], TRADES.arrow_schema())
    )
    commit(lake, lake.head(TRADES), again)
    success, why = close(home, "asx", ASX_DAY)
    assert not success
    assert why.startswith("ASX 2014-03-11 is blocked by duplicate_keys, receipts_equal_rows: ")
    assert len(closings(lake, day=ASX_DAY)) == 2
    told = {e.check_name: e.passed for e in home.evaluations(TRADES) if e.partition == str(ASX_DAY)}
    assert told["duplicate_keys"] is told["receipts_equal_rows"] is False
    assert told["value_rules"] is True


@pytest.mark.parametrize(
    ("exchange", "at", "day"),
    [("asx", datetime(2024, 10, 6, 15, tzinfo=UTC), "2024-10-06"), ("binance", datetime(2024, 8, 9, 1, tzinfo=UTC), "2024-08-08")],
)  # fmt: skip
def test_a_schedule_closes_the_date_that_has_just_ended_where_its_exchange_is(
    exchange: str, at: datetime, day: str
) -> None:
    defined = alone(Settings())
    schedule = defined.resolve_schedule_def(f"close_{exchange}")
    zone = "Australia/Sydney" if exchange == "asx" else "UTC"
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 1 * * *", zone)
    context = dg.build_schedule_context(scheduled_execution_time=at, repository_def=defined.get_repository_def())
    (run,) = schedule.evaluate_tick(context).run_requests
    assert run.partition_key == day


def test_a_cursor_that_is_none_is_an_empty_one() -> None:
    assert {Cursor.parse(text) == Cursor() for text in (None, "", "[]", '{"dates": {"x": 1}}', "junk")} == {True}
    assert Cursor.parse(str(Cursor({"t": ("u", 3)}, {}, "2024-08-08"))) == Cursor({"t": ("u", 3)}, {}, "2024-08-08")
