from __future__ import annotations

import json
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.errors import Misconfigured
from k2_feeds import partitioner
from k2_feeds.partitioner import Layout, Partitioner, load_layouts, murmur2
from k2_resources.embedded_broker import embedded_broker
from k2_resources.kafka import BY_KEY, KafkaLog, LogWriter
from k2_resources.settings import Settings
from k2_tests.feeds.homes import FEEDS, caught_up

FEED = FEEDS["binance-trades"]
TOPIC = FEED.topic
TIERED = {"own": ["BTCUSDT", "ETHUSDT"], "shared": ["SOLUSDT", "XRPUSDT"]}
SYMBOLS = st.text("ABCDEFGHIJ0123", min_size=1, max_size=12)


@pytest.fixture
def log():
    with embedded_broker({TOPIC: FEED.kafka_partitions}) as bootstrap:
        yield KafkaLog(bootstrap)


@pytest.fixture
def take(tmp_path, log):
    """Start to feed by a table, with a lake that holds so much."""
    (tmp_path / "config").mkdir()
    feeding = ExitStack()

    def take(tiers, committed=None, home="home"):
        settings = Settings(home=tmp_path / home, config=tmp_path / "config")
        (settings.config / "partitions.yaml").write_text(json.dumps({"topics": {TOPIC: tiers}}))
        return feeding.enter_context(Partitioner(settings, [FEED], log, committed))

    take.stop = feeding.close
    with feeding:
        yield take


def send(log, partitioned, *symbols):
    with LogWriter(log.bootstrap) as writer:
        for symbol in symbols:
            key, place = partitioned.place(TOPIC, "BINANCE", symbol)
            writer.send(TOPIC, key, b"v", partition=place)
    return {partition for (_, partition) in writer.delivered_offsets}


def nothing(_topic):
    return {}


@given(SYMBOLS)
def test_every_symbol_has_one_place_by_its_tier(symbol):
    layout = Layout(TOPIC, 8, ("BTCUSDT", "ETHUSDT"), ("SOLUSDT", "XRPUSDT"))
    assert layout.place_of(b"BINANCE.BTCUSDT") == 0
    assert layout.place_of(b"BINANCE.ETHUSDT") == 1
    assert layout.place_of(b"BINANCE.SOLUSDT") in (2, 3, 4)
    assert layout.place_of(f"BINANCE.{symbol}".encode()) in (5, 6, 7)


def test_without_tiers_the_clients_hash_decides_as_ever(log, take):
    assert take({}).place(TOPIC, "BINANCE", "BTCUSDT") == (b"BINANCE.BTCUSDT", BY_KEY)


@pytest.mark.parametrize("key", [None, b"", b"no separator", b"\xff\xfe"])
def test_a_foreign_key_is_left_to_the_hash(key):
    assert Layout(TOPIC, 8, ("BTCUSDT",)).place_of(key) == BY_KEY


def test_the_hash_is_the_one_of_every_kafka_client(log):
    with LogWriter(log.bootstrap) as writer:
        for key in (b"BINANCE.BTCUSDT", b"ASX.BHP", b"a", b"ab", b"abc", "BINANCE.币安".encode()):
            writer.delivered_offsets.clear()
            writer.send(TOPIC, key, b"v")
            writer.flush(10)
            assert {(TOPIC, (murmur2(key) & 0x7FFFFFFF) % 8)} == writer.delivered_offsets.keys()


def test_records_lie_where_the_table_says(log, take):
    assert send(log, take(TIERED, nothing), "BTCUSDT") == {0}


def test_a_change_is_refused_while_anything_is_unread_and_taken_once_it_is_drained(log, take):
    send(log, take(TIERED, nothing), "BTCUSDT", "SOLUSDT", "ADAUSDT")
    take.stop()
    changed = {"own": ["SOLUSDT"], "shared": []}
    with pytest.raises(Misconfigured, match=r"changed while 3 records are not in the lake \(Kafka partitions 0"):
        take(changed, nothing)
    assert take(TIERED, nothing).place(TOPIC, "BINANCE", "BTCUSDT")[1] == 0
    take.stop()
    held = caught_up(log.bootstrap)
    assert take(changed, held).place(TOPIC, "BINANCE", "SOLUSDT")[1] == 0
    take.stop()
    assert take(changed, nothing).place(TOPIC, "BINANCE", "SOLUSDT")[1] == 0


def test_a_change_back_to_hashing_alone_is_a_change_too(log, take):
    send(log, take(TIERED, nothing), "BTCUSDT")
    take.stop()
    with pytest.raises(Misconfigured, match="changed while 1 records"):
        take({}, nothing)


def test_a_change_waits_for_the_feeds_that_send_by_the_old_table(log, take, monkeypatch):
    monkeypatch.setattr(partitioner, "_TAKING_SECONDS_MAX", 0.2)
    running = take(TIERED, nothing)
    with pytest.raises(Misconfigured, match="stop them first"):
        take({"own": ["SOLUSDT"]}, caught_up(log.bootstrap))
    assert running.place(TOPIC, "BINANCE", "BTCUSDT")[1] == 0
    assert take(TIERED, nothing).place(TOPIC, "BINANCE", "BTCUSDT")[1] == 0


def test_a_new_home_joins_where_every_unread_record_lies_by_its_table(log, take):
    send(log, take(TIERED, nothing), "BTCUSDT", "ADAUSDT")
    take(TIERED, nothing, home="another")
    with pytest.raises(Misconfigured, match=r"b'BINANCE.BTCUSDT' lie in Kafka partition 0, .* belong into 1"):
        take({"own": ["ETHUSDT", "BTCUSDT"]}, nothing, home="a third")


def test_a_new_home_that_knows_no_lake_takes_no_table_of_a_topic_in_use(log, take):
    send(log, take(TIERED, nothing), "BTCUSDT")
    with pytest.raises(Misconfigured, match="knows what the lake committed"):
        take(TIERED, None, home="another")


@pytest.mark.parametrize(
    ("tiers", "said"),
    [
        ({"own": list("ABCDEFGH")}, "leave none of 8"),
        ({"own": list("ABCDE"), "shared": ["F"]}, "leave none of 8"),
        ({"own": ["A"], "shared": ["A"]}, "named twice"),
        ({"first": ["A"]}, "first: expected own and shared"),
        (["A"], "partitions.yaml"),
    ],
)
def test_a_table_that_cannot_be_is_refused(take, tiers, said):
    with pytest.raises(Misconfigured, match=said):
        take(tiers, nothing)


def test_the_own_table_fits_the_own_feeds():
    layouts = load_layouts(Settings(), FEEDS.values())
    assert {layout.topic for layout in layouts} == {feed.topic for feed in FEEDS.values()}
    assert any(layout.has_tiers for layout in layouts)
