"""When a sensor asks for a run, and for which."""

import json
import platform
import uuid
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest

from k2_assets.runs import ATTEMPT_TAG, BORN_TAG, HOST_TAG, PID_TAG, START_TAG, TABLE_TAG
from k2_assets.sensors import BACK_OFF_SECONDS_MAX, Cursor, back_off_seconds
from k2_core.contracts import QUOTES, TRADES
from k2_resources import clock
from k2_resources.embedded_broker import embedded_broker
from k2_tests.assets.conftest import DagsterHome
from k2_tests.ticks import trade


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One waiting record is enough for a run."""
    monkeypatch.setenv("K2_BATCH_ROWS_MIN", "1")
    yield


def past_run(home: DagsterHome, request: dg.RunRequest, status: dg.DagsterRunStatus) -> None:
    run = dg.DagsterRun(job_name="ingest_trades", run_id=str(uuid.uuid4()), status=status, tags=dict(request.tags))
    home.instance.add_run(run)


def test_it_asks_for_the_waiting_ranges_and_the_run_ingests_them(home: DagsterHome, eager: None) -> None:
    home.send(home.binance, trade(1), trade(2))
    request = home.tick(TRADES).run_requests[0]
    asked = request.run_config["ops"]["trades"]["config"]["ranges"]
    assert [(r["topic"], r["start"], r["end"]) for r in asked] == [(home.binance.topic, 0, 2)]
    home.send(home.binance, trade(3))
    home.run(TRADES, request)
    state = home.engine.lake.state(TRADES)
    assert state is not None
    assert sum(at.next for at in state.offsets.of_topic(home.binance.topic).values()) == 2, "not a record past the plan"


def test_few_young_records_wait(home: DagsterHome) -> None:
    home.send(home.binance, trade(1))
    answer = home.tick(TRADES)
    assert answer.run_requests == []
    assert "1 records wait" in answer.skip_message


def test_records_that_waited_long_enough_are_asked_for_however_few(home: DagsterHome) -> None:
    home.send(home.binance, trade(1))
    since = (clock.now() - timedelta(seconds=home.stack.settings.batch_age_seconds)).timestamp()
    assert len(home.tick(TRADES, str(Cursor(waiting_since=since))).run_requests) == 1


@pytest.mark.parametrize("cursor", [None, "", "nonsense", "[]", '{"another": 1}'])
def test_a_wiped_cursor_only_delays(home: DagsterHome, monkeypatch: pytest.MonkeyPatch, cursor: str | None) -> None:
    home.send(home.binance, trade(1))
    assert home.tick(TRADES, cursor).run_requests == []
    monkeypatch.setenv("K2_BATCH_AGE_SECONDS", "0")
    assert len(home.tick(TRADES, cursor).run_requests) == 1


def test_one_run_at_a_time(home: DagsterHome, eager: None) -> None:
    home.send(home.binance, trade(1))
    request = home.tick(TRADES).run_requests[0]
    past_run(home, request, dg.DagsterRunStatus.STARTING)
    answer = home.tick(TRADES)
    assert answer.run_requests == []
    assert "under way" in answer.skip_message


def test_another_tables_run_is_none_of_its_business(home: DagsterHome, eager: None) -> None:
    home.send(home.binance, trade(1))
    past_run(home, dg.RunRequest(tags={TABLE_TAG: QUOTES.name}), dg.DagsterRunStatus.STARTING)
    assert len(home.tick(TRADES).run_requests) == 1


def test_a_failed_attempt_is_followed_by_another_but_not_at_once(
    home: DagsterHome, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.send(home.binance, trade(1))
    first = home.tick(TRADES).run_requests[0]
    past_run(home, first, dg.DagsterRunStatus.FAILURE)
    answer = home.tick(TRADES)
    assert answer.run_requests == []
    assert "attempt 1 ended" in answer.skip_message
    monkeypatch.setattr("k2_assets.sensors.BACK_OFF_SECONDS", 0.0)
    second = home.tick(TRADES).run_requests[0]
    assert second.run_key != first.run_key
    assert (second.tags[START_TAG], second.tags[ATTEMPT_TAG]) == (first.tags[START_TAG], "2")


def test_after_a_killed_run_the_same_tick_asks_again(home: DagsterHome, eager: None) -> None:
    home.send(home.binance, trade(1))
    first = home.tick(TRADES).run_requests[0]
    nobody = {PID_TAG: "999999999", BORN_TAG: "0.0", HOST_TAG: platform.node()}
    past_run(home, dg.RunRequest(tags={**first.tags, **nobody}), dg.DagsterRunStatus.STARTED)
    assert [request.tags[ATTEMPT_TAG] for request in home.tick(TRADES).run_requests] == ["2"]


def test_a_start_that_moved_begins_with_its_first_attempt(home: DagsterHome, eager: None) -> None:
    home.send(home.binance, trade(1))
    first = home.tick(TRADES).run_requests[0]
    home.run(TRADES, first)
    home.send(home.binance, trade(2))
    second = home.tick(TRADES).run_requests[0]
    assert second.tags[START_TAG] != first.tags[START_TAG]
    assert second.tags[ATTEMPT_TAG] == "1"


def test_a_new_epoch_is_another_start_though_its_offsets_are_the_same(home: DagsterHome, eager: None) -> None:
    home.send(home.binance, trade(1))
    first = home.tick(TRADES).run_requests[0]
    home.run(TRADES, first)
    endpoints = json.loads(home.stack.settings.endpoints_file.read_text())
    with embedded_broker({feed.topic: 4 for feed in home.engine.feeds}) as another:
        home.stack.settings.endpoints_file.write_text(json.dumps({**endpoints, "kafka": another}))
        with home.stack.engine() as engine:
            engine.adopt(TRADES, [home.binance.topic], run_id="test", who="test", why="another broker")
        home.send(home.binance, trade(2))
        request = home.tick(TRADES).run_requests[0]
    assert request.tags[START_TAG] != first.tags[START_TAG]
    assert request.tags[ATTEMPT_TAG] == "1"


def test_attempts_wait_longer_and_longer_but_never_beyond_five_minutes() -> None:
    waits = [back_off_seconds(n) for n in range(1, 10_000, 3)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (8.0, BACK_OFF_SECONDS_MAX)


def test_topics_are_observed_with_their_lag_once_a_minute(home: DagsterHome) -> None:
    home.send(home.binance, trade(1), trade(2))
    first = home.tick(TRADES)
    lag = {e.asset_key.path[-1]: e.metadata["lag_records"].value for e in first.asset_events}
    assert lag == {"binance-trades": 2, "asx-trades": 0}
    assert home.tick(TRADES, first.cursor).asset_events == []
    old = {**json.loads(first.cursor), "observed_at": json.loads(first.cursor)["observed_at"] - 60}
    assert len(home.tick(TRADES, json.dumps(old)).asset_events) == 2


def test_a_new_broker_halts_it_with_the_reason(home: DagsterHome) -> None:
    home.send(home.binance, trade(1))
    home.run(TRADES)
    endpoints = json.loads(home.stack.settings.endpoints_file.read_text())
    with embedded_broker({home.binance.topic: 4}) as another:
        home.stack.settings.endpoints_file.write_text(json.dumps({**endpoints, "kafka": another}))
        assert home.tick(TRADES).skip_message.startswith("halted: INCARNATION_CHANGED")


def test_a_broker_that_is_away_is_said_and_not_raised(home: DagsterHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_KAFKA_TIMEOUT_SECONDS", "0.5")
    monkeypatch.setenv("K2_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    assert home.tick(TRADES).skip_message.startswith("UNREACHABLE")


def test_without_a_stack_it_says_how_to_start_one(home: DagsterHome) -> None:
    home.stack.settings.endpoints_file.unlink()
    assert "k2 up" in home.tick(TRADES).skip_message
