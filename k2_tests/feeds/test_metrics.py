from __future__ import annotations

import re

import httpx2 as httpx
from click.testing import CliRunner

from k2_cli.feed import feed
from k2_feeds.collection import Collection
from k2_feeds.metrics import CollectionMetrics, WriterMetrics, serving
from k2_feeds.outcomes import PassedOver, Refusal, Rejected, Row
from k2_feeds.producer import FeedProducer
from k2_feeds.simulator import Simulation
from k2_tests.feeds.homes import FEEDS, caught_up, home_on

NAMES = ("binance-trades", "binance-quotes")
ROWS = [o for o in Simulation(days=1, rows_per_day=5).outcomes(lambda: 0) if isinstance(o, Row) and o.feed in NAMES]


def read(port):
    """Every series of a scrape and its value."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def test_a_collection_says_at_every_scrape_what_it_has_done(tmp_path, broker, registry_url):
    settings, feeds = home_on(tmp_path / "home", broker, registry_url), [FEEDS[name] for name in NAMES]
    collection = Collection("c", "s", feeds, tmp_path / "out", lambda: 1)
    with FeedProducer(settings, [*feeds, FEEDS["coverage"]], committed=caught_up(broker)) as producer:
        collectors = CollectionMetrics(collection), WriterMetrics(producer.writer)
        with serving(collectors, "127.0.0.1", 0) as port:
            before = read(port)
            bad = [Rejected("f", n, Refusal.NOT_JSON, "", b"x") for n in range(3)]
            collection.run([*ROWS, *bad, PassedOver("depthUpdate")], producer)
            after = read(port)
    assert before['k2_collection_rows_total{feed="binance-trades"}'] == 0
    assert after['k2_collection_rows_total{feed="binance-trades"}'] == 15
    assert after['k2_collection_rejected_total{reason="not_json"}'] == 3
    assert after['k2_collection_passed_over_total{kind="depthUpdate"}'] == 1
    assert after["k2_producer_records_acknowledged_total"] == producer.sent > len(ROWS)
    assert after["k2_producer_queue_records"] == after["k2_producer_records_failed_total"] == 0


def test_no_label_holds_what_a_source_invents_without_bound():
    collection = Collection("c", "s", [FEEDS["binance-trades"]], None, lambda: 1)
    for n in range(1_000):
        collection._set_aside(PassedOver(f"kind {n}"))
    series = [sample for metric in CollectionMetrics(collection).collect() for sample in metric.samples]
    assert len(series) < 200
    assert {label for sample in series for label in sample.labels} == {"feed", "reason", "kind"}


def test_a_file_feed_serves_its_metrics_while_it_runs_when_given_a_port(tmp_path, broker, registry_url):
    home = home_on(tmp_path / "home", broker, registry_url).home
    Simulation(days=1, rows_per_day=1, equities=("METRICSIM",)).write(tmp_path)
    trades = next((tmp_path / "trades").iterdir())
    done = CliRunner().invoke(feed, ["asx", "--trades", str(trades), "--home", str(home), "--metrics-port", "0"])
    assert done.exit_code == 0, done.output
    assert re.search(r"metrics http://127.0.0.1:\d+/metrics", done.stderr)
