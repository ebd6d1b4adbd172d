from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from k2_core.contracts import TRADES
from k2_core.errors import Misconfigured
from k2_feeds.outcomes import Row
from k2_feeds.producer import Encoder, FeedProducer
from k2_feeds.simulator import Simulation
from k2_resources.registry import Registry
from k2_resources.settings import Settings
from k2_tests.feeds.homes import FEEDS, caught_up, ends, home_on, since

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def as_sent(record):
    """A decoded record with times in µs, as a feed states them."""
    return {
        name: (value - EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value
        for name, value in record.items()
    }


@pytest.mark.parametrize("feed", ["binance-trades", "binance-quotes", "asx-trades", "asx-quotes"])
def test_what_arrives_is_what_was_sent(tmp_path, broker, registry_url, feed):
    settings, before = home_on(tmp_path, broker, registry_url), ends(broker)
    rows = [o for o in Simulation(seed=3, days=1, rows_per_day=60).outcomes(lambda: 5) if o.feed == feed]
    with FeedProducer(settings, [FEEDS[feed]], committed=caught_up(broker)) as producer:
        for row in rows:
            producer.send(row, FEEDS[feed].exchange)
        producer.flush()
        assert (producer.sent, producer.acknowledged) == (len(rows), len(rows))
    found = since(broker, before, FEEDS[feed])
    by_id = {row.record["message_id"]: row for row in rows}
    assert len(found) == len(by_id) == len(rows)
    for key, record in found:
        row = by_id[record["message_id"]]
        assert key == f"{FEEDS[feed].exchange}.{row.symbol}".encode()
        assert as_sent(record) == row.record


def test_rows_of_one_symbol_keep_their_order(tmp_path, broker, registry_url):
    settings, before, feed = home_on(tmp_path, broker, registry_url), ends(broker), FEEDS["binance-trades"]
    rows = [o for o in Simulation(seed=4, days=1, rows_per_day=500).outcomes(lambda: 5) if o.feed == feed.name]
    with FeedProducer(settings, [feed], committed=caught_up(broker)) as producer:
        for row in rows:
            producer.send(row, feed.exchange)
    found = [r["source_sequence"] for key, r in since(broker, before, feed) if key == b"BINANCE.SIMETHUSDT"]
    assert found == sorted(found)
    assert len(found) == 500


def test_the_wire_format_names_the_registered_schema(tmp_path, broker, registry_url):
    with FeedProducer(home_on(tmp_path, broker, registry_url), FEEDS.values(), committed=caught_up(broker)):
        pass
    registry = Registry(registry_url)
    assert all(registry.knows_subject(feed.subject) for feed in FEEDS.values())


def test_a_value_begins_with_zero_and_the_schema_id():
    row = next(o for o in Simulation(rows_per_day=1).outcomes(lambda: 0) if isinstance(o, Row) and "price" in o.record)
    assert Encoder(TRADES, 66_051)(row.record)[:5] == b"\x00\x00\x01\x02\x03"


@pytest.mark.parametrize(
    ("price", "body"),
    [("0.00000001", "01"), ("0.00000127", "7f"), ("0.00000128", "0080"), ("9999999999.99999999", "0de0b6b3a763ffff")],
)
def test_decimals_are_the_shortest_twos_complement(price, body):
    row = next(o for o in Simulation(rows_per_day=1).outcomes(lambda: 0) if isinstance(o, Row) and "price" in o.record)
    encoded = Encoder(TRADES, 1)(dict(row.record) | {"price": Decimal(price)})
    length = bytes([2 * (len(body) // 2)])
    assert length + bytes.fromhex(body) in encoded


def test_the_embedded_broker_is_not_fed_blindly(tmp_path):
    with pytest.raises(Misconfigured, match="committed"):
        FeedProducer(Settings(home=tmp_path, kafka_bootstrap=None), FEEDS.values())


def test_without_a_running_stack_the_producer_says_how_to_start_one(tmp_path):
    settings = Settings(home=tmp_path, kafka_bootstrap=None, registry_url=None)
    with pytest.raises(Misconfigured, match="k2 up"), FeedProducer(settings, [], committed=lambda _: {}):
        pass
