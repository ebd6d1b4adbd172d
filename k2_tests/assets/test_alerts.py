"""The sensor `alerts`: a real lake and log, a real webhook and mail server, one notice for each edge."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pytest

from k2_assets.alerts import alerts, alerts_definitions
from k2_assets.checks import check_definitions
from k2_assets.day_watch import BLOCKED_TAG
from k2_assets.partitions import DAILY
from k2_assets.tables import asset_key
from k2_core.contracts import TRADES
from k2_core.errors import Damaged, FencedOut
from k2_core.poison import DEAD_MIN
from k2_resources import clock
from k2_resources.bindings import K2Resource
from k2_resources.channels import parse_watch, write_watch
from k2_tests.assets import runs_made
from k2_tests.assets.conftest import DagsterHome
from k2_tests.receivers import Mails, Posts, mail_server, webhook
from k2_tests.ticks import trade

DAY = date(2024, 8, 8)
GAPS = "sequence_gaps"


@dataclass
class Watchman:
    """The daemon, as far as this sensor is concerned: ticks, and keeps the cursor unless it is killed first."""

    home: DagsterHome
    posts: Posts
    mails: Mails
    cursor: str | None = None
    said: list[str] = field(default_factory=list)

    def tick(self, *, is_killed: bool = False) -> None:
        resources = {"k2": K2Resource(home=str(self.home.stack.settings.home))}
        with dg.build_sensor_context(
            self.home.instance, self.cursor, definitions=_definitions(self.home), resources=resources
        ) as context:
            answer = alerts.evaluate_tick(context)
        self.said.append(answer.skip_message or "")
        if not is_killed:
            self.cursor = answer.cursor

    def told(self) -> list[tuple[str, str]]:
        """What the webhook took, in order, after two ticks: one sees, the next one sends."""
        self.tick()
        self.tick()
        return [(post["state"], post["alerts"][0]["subject"]) for post in self.posts.taken]

    def later(self, **shift: float) -> None:
        """Let time pass for what is paused and held: as if all of it had begun earlier."""
        watch, by_us = parse_watch(self.cursor), round(timedelta(**shift).total_seconds() * 1_000_000)
        pauses = {n: replace(p, until_us=p.until_us - by_us) for n, p in watch.outbox.pauses.items()}
        held = {key: replace(h, since_us=h.since_us - by_us) for key, h in watch.watched.held.items()}
        heard = {name: at - by_us for name, at in watch.seen.heard_us.items()}
        watch = replace(watch, outbox=replace(watch.outbox, pauses=pauses), seen=replace(watch.seen, heard_us=heard))
        self.cursor = write_watch(replace(watch, watched=replace(watch.watched, held=held)))


def _definitions(home: DagsterHome) -> dg.Definitions:
    checked = dg.Definitions(
        assets=[dg.AssetSpec(asset_key(TRADES), partitions_def=DAILY)],
        asset_checks=check_definitions(TRADES, home.engine.feeds),
        resources={"k2": K2Resource(home=str(home.stack.settings.home))},
    )
    return dg.Definitions.merge(checked, alerts_definitions(home.stack.settings, home.engine.feeds))


@pytest.fixture
def watchman(home: DagsterHome, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watchman]:
    with ExitStack() as opened:
        posts, mails = opened.enter_context(webhook()), opened.enter_context(mail_server())
        monkeypatch.setenv("K2_ALERT_WEBHOOK_URL", posts.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("K2_DAGSTER_URL", "http://ui.test")
        opened.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", dg.PreviewWarning)
        yield Watchman(home, posts, mails)


def evaluated(home: DagsterHome, *, passed: bool, day: date = DAY, name: str = GAPS, blocked: bool = False) -> str:
    """A run that evaluated one check."""
    run_id = runs_made.begin(home.instance, "day_close", {BLOCKED_TAG: name} if blocked else {})
    evaluation = dg.AssetCheckEvaluation(asset_key(TRADES), name, passed=passed, metadata={}, partition=str(day))
    runs_made.log(home.instance, run_id, evaluation)
    runs_made.end(home.instance, run_id, fails=blocked)
    return run_id


def test_a_gap_is_told_once_and_once_more_when_it_is_filled(watchman: Watchman) -> None:
    home = watchman.home
    watchman.tick()
    home.send(home.binance, trade(1), trade(20))
    run_id = home.run(TRADES).run_id
    assert watchman.told() == [("firing", f"{TRADES.name} {GAPS}")]
    (alert,) = watchman.posts.taken[0]["alerts"]
    assert (alert["partition"], alert["run_url"]) == (str(DAY), f"http://ui.test/runs/{run_id}")
    assert watchman.posts.taken[0]["runbook"] == "docs/RUNBOOK.md#gaps-ids-that-are-missing"
    home.send(home.binance, *(trade(n) for n in range(2, 20)))
    home.run(TRADES)
    assert watchman.told()[1:] == [("recovered", f"{TRADES.name} {GAPS}")]
    assert watchman.told()[2:] == []


def test_a_day_that_a_check_blocks_is_told_as_that_check(watchman: Watchman) -> None:
    watchman.tick()
    evaluated(watchman.home, passed=False)
    blocked = evaluated(watchman.home, passed=False, blocked=True)
    assert watchman.told() == [("firing", f"{TRADES.name} {GAPS}")]
    assert watchman.posts.taken[0]["alerts"][0]["run_id"] == blocked, "the run that evaluated it last"
    evaluated(watchman.home, passed=True)
    assert watchman.told()[1:] == [("recovered", f"{TRADES.name} {GAPS}")]


def test_a_check_that_repeats_another_is_told_only_without_it(watchman: Watchman) -> None:
    watchman.tick()
    evaluated(watchman.home, passed=False)
    evaluated(watchman.home, passed=False, name="completeness")
    assert watchman.told() == [("firing", f"{TRADES.name} {GAPS}")]
    evaluated(watchman.home, passed=False, name="completeness")
    assert watchman.told()[1:] == []
    evaluated(watchman.home, passed=True)
    evaluated(watchman.home, passed=False, name="completeness")
    told = [subject.partition(" ")[2] for _, subject in watchman.told()[1:]]
    assert sorted(told) == ["completeness", GAPS]


def test_a_watch_that_knows_nothing_tells_what_is_wrong_now_in_one_notice(watchman: Watchman) -> None:
    for n in range(4):
        evaluated(watchman.home, passed=n == 0, day=DAY + timedelta(days=n))
    evaluated(watchman.home, passed=False, name="freshness")
    assert watchman.told() == [("firing", f"{TRADES.name} {GAPS}")]
    assert watchman.posts.taken[0]["count"] == 3
    watchman.cursor = None
    assert len(watchman.told()) == 2
    keys = {post["idempotency_key"] for post in watchman.posts.taken}
    assert len(keys) == 2, "told anew, not a second delivery"


def test_a_crash_between_delivery_and_cursor_delivers_once_more_with_the_same_key(watchman: Watchman) -> None:
    evaluated(watchman.home, passed=False)
    watchman.tick()
    assert watchman.posts.taken == [], "nothing is sent that is not stored"
    watchman.tick(is_killed=True)
    watchman.tick()
    watchman.tick()
    first, second = watchman.posts.headers
    assert first["Idempotency-Key"] == second["Idempotency-Key"] == watchman.posts.taken[0]["idempotency_key"]
    assert len(watchman.posts.taken) == 2


def test_a_delivery_that_fails_is_tried_again_later_and_each_channel_gets_it_once(
    watchman: Watchman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K2_ALERT_SMTP", watchman.mails.address)
    monkeypatch.setenv("K2_ALERT_MAIL_TO", "desk@example.com, night@example.com")
    evaluated(watchman.home, passed=False)
    watchman.posts.status = 503
    watchman.tick()
    watchman.tick()
    watchman.tick()
    assert watchman.posts.asked == 1, "it is left alone for a while"
    assert len(watchman.mails.taken) == 1, "the other channel does not wait for it"
    assert watchman.said[-1] == "1 firing, 1 undelivered"
    outbox = parse_watch(watchman.cursor).outbox
    assert outbox.pauses["webhook"].reason == "webhook: answered 503, expected 2xx"
    assert outbox.oldest_us is not None
    evaluated(watchman.home, passed=True)
    watchman.posts.status = 200
    watchman.later(seconds=6)
    assert [state for state, _ in watchman.told()] == ["firing", "recovered"], "in order"
    assert [str(mail["Subject"]).partition(": ")[2][-12:] for mail in watchman.mails.taken] == [
        "check failed", "heck failed)",
    ]  # fmt: skip
    assert parse_watch(watchman.cursor).outbox.entries == ()


def test_a_failed_run_is_told_with_its_reason_and_is_over_when_the_next_one_succeeds(
    watchman: Watchman, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = watchman.home
    watchman.tick()
    home.send(home.binance, trade(1))
    with monkeypatch.context() as broken:
        broken.setenv("K2_FAILPOINT", "reported:1:raise")
        failed = home.run(TRADES, must_succeed=False)
    assert not failed.success
    assert watchman.told() == [("firing", "ingest_trades")]
    (alert,) = watchman.posts.taken[0]["alerts"]
    assert alert["run_id"] == failed.run_id
    assert "reported" in alert["summary"]
    assert watchman.posts.taken[0]["runbook"].endswith("#alert-run-a-run-failed")
    home.run(TRADES)
    assert watchman.told()[1:] == [("recovered", "ingest_trades")]


@pytest.mark.parametrize(("error", "told"), [(FencedOut("a rival was faster"), []), (Damaged("a file"), ["job"])])
def test_a_run_that_lost_a_race_is_not_told_and_one_that_met_damage_is(
    watchman: Watchman, error: Exception, told: list[str]
) -> None:
    watchman.tick()
    runs_made.fail_step(watchman.home.instance, runs_made.begin(watchman.home.instance, "job"), error)
    assert [subject for _, subject in watchman.told()] == told


def test_more_runs_than_one_look_takes_in_are_taken_in_by_the_next(
    watchman: Watchman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2_assets.run_troubles.RUNS_MAX", 2)
    watchman.tick()
    for n in range(5):
        evaluated(watchman.home, passed=False, day=DAY + timedelta(days=n))
    for _ in range(5):
        watchman.tick()
    assert sum(post["count"] for post in watchman.posts.taken) == 5


def test_a_paused_partition_is_told_as_what_it_is(watchman: Watchman) -> None:
    home = watchman.home
    watchman.tick()
    home.stack.send_bytes(home.binance, [b"junk"] * DEAD_MIN)
    home.run(TRADES, must_succeed=False)
    told = {subject: state for state, subject in watchman.told()}
    (halted,) = (subject for subject in told if subject.startswith(home.binance.topic))
    assert halted.endswith("]")
    (post,) = (p for p in watchman.posts.taken if p["kind"] == "halt")
    assert post["runbook"].endswith("#partition_paused-a-storm-of-dead-letters")
    assert "ingest_trades" not in told, "its run is not told apart"


def test_records_that_wait_and_a_live_feed_that_says_nothing_are_told_in_time(
    watchman: Watchman,
) -> None:
    home = watchman.home
    home.send(home.binance, trade(1, timestamp=clock.now()))
    home.run(TRADES)
    watchman.tick()
    watchman.later(seconds=800)
    assert watchman.told() == []
    watchman.later(seconds=110)
    assert watchman.told() == [("firing", "binance-trades")]
    home.send(home.binance, trade(2, timestamp=clock.now()))
    assert watchman.told()[1:] == [("recovered", "binance-trades")], "what waits is no silence"
    watchman.later(seconds=200)
    assert watchman.told()[2:] == []
    watchman.later(seconds=110)
    assert watchman.told()[2:] == [("firing", home.binance.topic)]
    home.run(TRADES)
    assert watchman.told()[3:] == [("recovered", home.binance.topic)]


def test_a_log_that_does_not_answer_is_told_after_a_minute_and_nothing_else_is_concluded(
    watchman: Watchman, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchman.tick()
    monkeypatch.setenv("K2_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("K2_KAFKA_TIMEOUT_SECONDS", "0.2")
    assert watchman.told() == []
    watchman.later(seconds=61)
    assert watchman.told() == [("firing", "Kafka or catalog")]
    assert watchman.posts.taken[0]["runbook"].endswith("#unreachable-a-server-did-not-answer")
    monkeypatch.delenv("K2_KAFKA_BOOTSTRAP")
    assert watchman.told()[1:] == [("recovered", "Kafka or catalog")]


def test_a_look_that_breaks_is_told_and_what_was_delivered_stays_delivered(
    watchman: Watchman, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(watchman.home, passed=False)
    watchman.tick()
    with monkeypatch.context() as broken:
        broken.setattr(watchman.home.instance, "get_run_records", lambda *_, **__: 1 / 0)
        assert [subject for _, subject in watchman.told()] == [f"{TRADES.name} {GAPS}", "the watch"]
    assert watchman.told()[2:] == [("recovered", "the watch")]


def test_without_anybody_to_tell_nothing_is_looked_at(home: DagsterHome) -> None:
    nobody = Watchman(home, Posts(""), Mails())
    nobody.tick()
    assert nobody.said[0].startswith("nobody to tell: set K2_ALERT_WEBHOOK_URL")
    assert nobody.cursor is None


def test_a_mail_server_that_is_no_address_is_said(home: DagsterHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_ALERT_SMTP", "mail.example.com")
    nobody: Any = Watchman(home, Posts(""), Mails())
    nobody.tick()
    assert nobody.said[0].startswith("MISCONFIGURED")
