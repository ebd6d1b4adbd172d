"""A gap from the wire to the people and back: check, blocked day, one alert, repair, certificate, one recovery."""

from __future__ import annotations

import signal
import subprocess
import time
from datetime import UTC, date, datetime

import pytest

from k2_assets.outcomes import check_outcomes
from k2_core.contracts import TRADES
from k2_feeds.exchange import ExchangeSettings, exchange
from k2_resources.lake.catalog import Lake
from k2_resources.lake.days import closings
from k2_resources.settings import Settings
from k2_tests.e2e.stack import command, environment, k2, running, wait_for
from k2_tests.receivers import mail_server, webhook

pytestmark = pytest.mark.timeout(600)
DAY, SYMBOL = date(2024, 8, 8), "SIMBTCUSDT"
LOST = 120
"""More than a hundred ids: a gap of that size blocks its day."""
PATIENCE_SECONDS = 180.0
QUIET_SECONDS = 12.0
"""So long after the last notice nothing more may come: every sensor has ticked by then."""
PROMPT = {"K2_DAY_CLOSE_SETTLE_SECONDS": "0", "K2_DAY_CLOSE_EVERY_SECONDS": "4", "K2_BATCH_AGE_SECONDS": "1"}


def collect(home, market):
    """Run the live feed while trades are lost, without letting it repair anything; returns the ids lost."""
    feed = ("feed", "binance-live", SYMBOL, "--url", market.ws_url, "--no-repair", "--metrics-port", "0", "--json")
    with subprocess.Popen(command(home, *feed), env=environment(home), stdout=subprocess.DEVNULL) as child:
        wait_for(lambda: market.ledger.trade_count() > 50, PATIENCE_SECONDS, "the first trades")
        market.faults.inject("drop", count=LOST)
        wait_for(lambda: len(market.faults.hits()) == LOST, PATIENCE_SECONDS, "trades to be lost")
        after = market.ledger.trade_count() + 50
        wait_for(lambda: market.ledger.trade_count() > after, PATIENCE_SECONDS, "trades after the gap")
        market.pause()
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    return {hit.trade_id for hit in market.faults.hits()}


def closed(home):
    """What was said of the day, version by version."""
    settings = Settings(home=home)
    return list(closings(Lake(settings.catalog(), settings.warehouse_path()), symbol=SYMBOL, day=DAY))


def test_a_gap_holds_up_its_day_and_tells_once_until_it_is_repaired(tmp_path):
    home = tmp_path / "home"
    start = datetime(DAY.year, DAY.month, DAY.day, 10, tzinfo=UTC)
    market = ExchangeSettings(
        seed=5, speed=60, trades_per_second=1.0, start=start, symbols=(SYMBOL,), awaits_client=True
    )
    with webhook() as posts, mail_server() as mails, exchange(market) as there:
        told = {"K2_ALERT_WEBHOOK_URL": posts.url, "K2_ALERT_SMTP": mails.address, "K2_ALERT_MAIL_TO": "desk@k2.test"}
        with running(home, **told, **PROMPT) as stack:
            lost = collect(home, there)
            stack.await_ingested()
            assert check_outcomes(home / "dagster", TRADES, [DAY])["sequence_gaps", DAY] == "FAILED"
            wait_for(lambda: posts.taken and mails.taken, PATIENCE_SECONDS, "an alert")
            wait_for(lambda: blocked(home), PATIENCE_SECONDS, "the day close to be tried", poll_seconds=1)
            assert closed(home) == []

            repaired = k2(home, "gaps", "repair", "--all", "--url", there.rest_url, "--home", home)
            assert "1 gaps asked for" in repaired.stdout
            stack.await_ingested()
            assert check_outcomes(home / "dagster", TRADES, [DAY])["sequence_gaps", DAY] == "SUCCEEDED"
            wait_for(lambda: closed(home), PATIENCE_SECONDS, "the day to close", poll_seconds=1)
            wait_for(
                lambda: any(post["state"] == "recovered" for post in posts.taken), PATIENCE_SECONDS, "the recovery"
            )
            time.sleep(QUIET_SECONDS)
            (day,) = closed(home)
            assert (day["present"], day["missing"]) == (there.ledger.trade_count(SYMBOL), 0)
            # nothing is stored of the days beside it, so nobody can say that its first and last are the first and last
            assert day["verdict"] == "not_verifiable"
            assert day["first_id"] < min(lost) <= max(lost) < day["last_id"]
            for state in ("firing", "recovered"):
                about_the_gap(posts.taken, state, DAY)
    assert {post["idempotency_key"] for post in posts.taken} == {mail["X-K2-Idempotency-Key"] for mail in mails.taken}


def blocked(home):
    """Whether a closing of the day was tried and blocked."""
    import dagster as dg

    from k2_assets.day_watch import BLOCKED_TAG

    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        runs = instance.get_runs(dg.RunsFilter(job_name="close_binance", statuses=[dg.DagsterRunStatus.FAILURE]))
        return [run.run_id for run in runs if run.tags.get(BLOCKED_TAG) == "sequence_gaps"]


def about_the_gap(posts, state, day):
    """Exactly one notice of this state, about the check of this day."""
    keys = {post["idempotency_key"]: post for post in posts if post["state"] == state}
    (post,) = keys.values()
    said = [(alert["subject"], alert["partition"]) for alert in post["alerts"]]
    assert ("market_data.trades sequence_gaps", day.isoformat()) in said, post
