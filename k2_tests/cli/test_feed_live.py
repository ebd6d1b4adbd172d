"""`k2 feed binance-live` as people run it: a process of its own, ended by signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx2 as httpx
import pytest
from click.testing import CliRunner

from k2_cli.feed import feed
from k2_core.contracts import COVERAGE, TRADES
from k2_core.errors import BadInput
from k2_feeds.exchange import ExchangeSettings, exchange
from k2_resources.embedded_broker import broker_file, embedded_broker
from k2_resources.lake.scans import unfilled_gaps
from k2_resources.lake.verify import verify
from k2_tests.feeds.homes import TOPICS, home_on
from k2_tests.feeds.live.scene import Scene, stopped, until
from k2_tests.stacks import stack

SYMBOLS = ("SIMBTCUSDT", "SIMETHUSDT")
FIRST = SYMBOLS[0]


@pytest.fixture
def scene(tmp_path, registry_url):
    settings = ExchangeSettings(symbols=SYMBOLS, speed=60.0, trades_per_second=5.0, awaits_client=True)
    with embedded_broker(TOPICS, tmp_path / "broker") as bootstrap, exchange(settings) as running:
        yield Scene(running, home_on(tmp_path / "home", bootstrap, registry_url), tmp_path, bootstrap)


class Feed:
    """The command as a process, and what it says on standard error."""

    def __init__(self, scene, *options, **environment):
        command = [sys.executable, "-m", "k2_cli.main", "feed", "binance-live", *SYMBOLS, "--json"]
        command += ["--home", str(scene.settings.home), "--url", scene.running.ws_url, "--metrics-port", "0"]
        command += ["--rest-url", scene.running.rest_url, *options]
        self.said = []
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self._listener = threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True)
        self._listener.start()

    def hear_out(self):
        """Let go of what it said."""
        self._listener.join(5)
        self.process.stdout.close()
        self.process.stderr.close()

    @property
    def metrics_url(self):
        return next((match[0] for line in self.said if (match := re.search(r"http\S+/metrics", line))), None)

    def metrics(self):
        text = httpx.get(until(lambda: self.metrics_url), trust_env=False).text
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def ended(self):
        """Its exit code and report."""
        code = self.process.wait(60)
        self._listener.join(5)
        return code, json.loads(self.process.stdout.read().splitlines()[-1])


@contextmanager
def running_feed(scene, *options, **environment):
    ours = Feed(scene, *options, **environment)
    try:
        yield ours
    finally:
        ours.process.kill()
        ours.process.wait()
        ours.hear_out()


def test_sigterm_flushes_states_and_reports(scene):
    with running_feed(scene, "--quotes") as ours:
        until(lambda: len(scene.ids(FIRST)) > 30)
        metrics = ours.metrics()
        ours.process.send_signal(signal.SIGTERM)
        code, report = ours.ended()
    assert code == 0, ours.said
    assert report["complete"]
    assert report["sent"] == report["acknowledged"] > 30
    assert {s["symbol"] for s in scene.states()["closed"]} == {*SYMBOLS, "*"}
    (closed,) = (s for s in scene.states()["closed"] if s["symbol"] == FIRST and s["feed"] == "binance-trades")
    assert set(scene.ids(FIRST)) == set(range(closed["first_id"], closed["last_id"] + 1))
    assert metrics['k2_feed_connections{feed="binance-live"}'] == 1
    assert metrics['k2_collection_rows_total{feed="binance-trades"}'] > 0
    assert metrics['k2_feed_breaker{feed="binance-live",state="closed"}'] == 1
    assert metrics['k2_feed_memory_leak_score{feed="binance-live"}'] == 0
    assert metrics['k2_feed_resident_bytes{feed="binance-live"}'] > 10_000_000
    assert metrics[f'k2_feed_symbol_silence_seconds{{feed="binance-live",symbol="{FIRST}"}}'] >= 0
    # the market of the test is of two days ago: every frame took that long
    assert metrics['k2_feed_clock_skew_seconds{feed="binance-live"}'] > 3_600
    log = [json.loads(line) for line in ours.said if line.startswith("{")]
    assert {(e.get("feed"), e.get("connection")) for e in log if e["event"] == "connected"} == {("binance-live", "1")}


def test_what_a_killed_feed_left_on_disk_is_sent_first_by_the_next(scene):
    process_id = json.loads(broker_file(scene.folder / "broker").read_text())["pid"]
    disk_only = {"K2_LIVE_MEMORY_BYTES_MAX": "1"}
    with running_feed(scene, **disk_only) as killed:
        until(lambda: len(scene.ids(FIRST)) > 10)
        with stopped(process_id):
            goal = max(scene.truth(FIRST)) + 200
            until(lambda: max(scene.truth(FIRST)) > goal)
            killed.process.kill()
            killed.process.wait()
    had = max(scene.ids(FIRST))
    with running_feed(scene, **disk_only) as again:
        # frames that had not reached the killed feed's disk are asked of REST
        until(lambda: set(range(min(scene.ids(FIRST)), goal)) <= set(scene.ids(FIRST)))
        until(lambda: any('"connected"' in line for line in again.said))
        again.process.send_signal(signal.SIGINT)
        code, report = again.ended()
    assert code == 0, again.said
    assert any("an earlier run left frames on disk" in line for line in again.said)
    assert report["complete"]
    ids = sorted(scene.ids(FIRST))
    assert had < goal
    assert ids[: goal - ids[0]] == list(range(ids[0], goal))


def test_after_a_kill_the_lake_ends_equal_to_the_exchange(tmp_path, registry_url):
    settings = ExchangeSettings(symbols=SYMBOLS, speed=60.0, trades_per_second=3.0, awaits_client=True)
    with exchange(settings) as market, stack(tmp_path / "home", registry_url) as here:
        engine = here.engine()
        broker = str(here.settings.kafka_bootstrap)
        scene = Scene(market, here.settings, tmp_path, broker)
        environment = {"K2_KAFKA_BOOTSTRAP": broker, "K2_REGISTRY_URL": registry_url}

        def ingest():
            for table in (TRADES, COVERAGE):
                list(engine.execute(table, engine.plan(table).ranges, "test"))

        with running_feed(scene, **environment) as killed:
            until(lambda: len(scene.sent()) > 20)
            # not yet asked for when the feed is killed: the next one knows them from the ledger
            market.faults.inject("drop", count=5)
            until(lambda: not market.faults.active())
            killed.process.kill()
            killed.process.wait()
        ingest()
        with running_feed(scene, **environment) as last:
            until(lambda: all(max(scene.truth(s)) - max(scene.ids(s)) < 5 for s in SYMBOLS))
            market.pause()
            until(lambda: all(scene.has_all(symbol) for symbol in SYMBOLS))
            last.process.send_signal(signal.SIGTERM)
            assert last.ended()[0] == 0, last.said
        ingest()
        stored = engine.lake.load(TRADES).scan(selected_fields=("symbol", "source_sequence", "price", "revision"))
        rows = stored.to_arrow().to_pylist()
        for symbol in SYMBOLS:
            found = sorted((r["source_sequence"], r["price"]) for r in rows if r["symbol"] == symbol)
            published = [(t.trade_id, t.price) for t in market.ledger.trades(symbol) if t.trade_id >= found[0][0]]
            assert found == published
        assert {row["revision"] for row in rows} == {0}
        assert unfilled_gaps(engine.lake) == []
        assert [verify(engine.lake, table).findings for table in (TRADES, COVERAGE)] == [(), ()]


@pytest.mark.parametrize(
    ("arguments", "words"), [(["BTC/USDT"], "BTC/USDT"), (["BTCUSDT", "--name", "../elsewhere"], "--name")]
)
def test_what_cannot_be_is_said_before_anything_is_opened(tmp_path, broker, registry_url, arguments, words):
    home = home_on(tmp_path / "home", broker, registry_url).home
    result = CliRunner().invoke(feed, ["binance-live", *arguments, "--home", str(home), "--metrics-port", "0"])
    assert isinstance(result.exception, BadInput)
    assert words in str(result.exception)
