"""Hostile records written straight to the topics: each dies alone, with its bytes, and its neighbours land."""

from __future__ import annotations

import io
from copy import deepcopy
from decimal import Decimal

import fastavro
import pytest
from confluent_kafka import Producer

from k2_assets.engine import ingest_until_caught_up
from k2_core.avro import avro_schema
from k2_core.contracts import QUOTES, TRADES
from k2_core.errors import FencedOut, SchemaUnavailable
from k2_core.offsets import OffsetRange
from k2_resources.embedded_broker import embedded_broker
from k2_resources.lake.scans import dead_letters
from k2_resources.lake.verify import verify
from k2_resources.registry import Registry
from k2_tests.stacks import TOPICS, stack
from k2_tests.ticks import FEEDS, asx_trade, encoded, trade

FEED, ASX = FEEDS["binance-trades"], FEEDS["asx-trades"]


@pytest.fixture
def here(tmp_path, registry_url):
    with stack(tmp_path / "home", registry_url) as running:
        yield running


def stored_ids(engine, table=TRADES):
    return sorted(engine.lake.load(table).scan(selected_fields=("message_id",)).to_arrow()["message_id"].to_pylist())


def plain(record, **raw):
    """A trade written field by field as what is on the wire, so that raw values can be anything Avro can carry."""
    schema = avro_schema(TRADES)
    fields = [{**f, "type": f["type"]["type"]} if "logicalType" in f["type"] else f for f in schema["fields"]]
    whole = {
        **record,
        "timestamp": int(record["timestamp"].timestamp() * 1e6),
        "ingestion_timestamp": int(record["ingestion_timestamp"].timestamp() * 1e6),
        "price": (10**10).to_bytes(5, "big"),
        "quantity": (10**8).to_bytes(4, "big"),
        **raw,
    }
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema({**schema, "fields": fields}), whole)
    return body.getvalue()


def hostile(schema_id):
    """Name -> (bytes, the reason they must die with)."""
    frame = b"\0" + schema_id.to_bytes(4, "big")
    far = 2**62
    side = encoded(trade(1), schema_id=schema_id)
    at = side.index(b"\x0eBTCUSDT\x0eBINANCE") + 16
    return {
        "schema id with the sign bit": (b"\0\x80\0\0\0body", "unknown_schema"),
        "largest schema id": (b"\0\xff\xff\xff\xffbody", "unknown_schema"),
        "receive time no calendar holds": (frame + plain(trade(2), ingestion_timestamp=far), "implausible_time"),
        "receive time before time": (frame + plain(trade(2), ingestion_timestamp=-far), "implausible_time"),
        "event time in nanoseconds": (frame + plain(trade(2), timestamp=1_723_161_255_343_000_000), "implausible_time"),
        "price of no bytes": (frame + plain(trade(2), price=b""), "decimal_overflow"),
        "price of seventeen bytes": (frame + plain(trade(2), price=b"\1" * 17), "decimal_overflow"),
        "price of 46 billion": (
            frame + plain(trade(2), price=(46 * 10**17).to_bytes(8, "big")),
            "decimal_overflow",
        ),
        "negative enum index": (side[:at] + b"\x01" + side[at + 1 :], "undecodable"),
        "enum index past the end": (side[:at] + b"\x7e" + side[at + 1 :], "undecodable"),
        "flags past 32 bits": (frame + plain(trade(2))[:-1] + b"\x80\x80\x80\x80\x80\x80\x01", "undecodable"),
        "symbol of ten thousand letters": (
            encoded(trade(2, symbol="X" * 10_000), schema_id=schema_id),
            "bad_symbol",
        ),
        "another asset class": (encoded(trade(2, asset_class="options"), schema_id=schema_id), "wrong_asset_class"),
    }


def test_hostile_records_die_alone_with_their_bytes_and_their_neighbours_land(here):
    schema_id = here.register(FEED)
    cases = hostile(schema_id)
    for number, (value, _) in enumerate(cases.values()):
        here.send_bytes(FEED, [encoded(trade(100 + number), schema_id=schema_id), value])
    engine = here.engine()
    ingest_until_caught_up(engine)
    letters = {letter["value"]: letter for letter in dead_letters(engine.lake, TRADES).to_pylist()}
    assert {name: letters[value]["reason"] for name, (value, _) in cases.items() if value in letters} == {
        name: reason for name, (_, reason) in cases.items()
    }
    assert len(stored_ids(engine)) == len(cases)
    assert verify(engine.lake, TRADES).findings == ()


def test_a_screened_dead_letter_names_its_writer_schema(here):
    here.send(FEED, [trade(1, price=Decimal(0))])
    engine = here.engine()
    ingest_until_caught_up(engine)
    assert dead_letters(engine.lake, TRADES)["schema_id"].to_pylist() == [here.register(FEED)]


@pytest.mark.parametrize("sent_ms", [2**62, 2**52, -1])
def test_a_kafka_time_no_calendar_holds_is_no_obstacle(here, sent_ms):
    producer = Producer({"bootstrap.servers": here.settings.bootstrap()})
    producer.produce(FEED.topic, b"junk", b"BINANCE.BTCUSDT", timestamp=max(sent_ms, 0), headers=[("x", b"\xff")])
    assert producer.flush(10) == 0
    engine = here.engine()
    ingest_until_caught_up(engine)
    assert [letter["reason"] for letter in dead_letters(engine.lake, TRADES).to_pylist()] == ["bad_magic"]


def writer_schemas():
    """Schemas a registry accepts and no trade can be read with, or none safely."""
    text, loose, recursive, endless = (deepcopy(avro_schema(TRADES)) for _ in range(4))
    names = [field["name"] for field in text["fields"]]
    text["fields"][names.index("price")]["type"] = "string"
    loose["fields"][names.index("price")]["type"] = "bytes"
    node = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"], "default": None}]}
    recursive["fields"].append({"name": "extra", "type": node})
    endless["fields"].append({"name": "extra", "type": {"type": "array", "items": "null"}})
    return {
        "price as a string": text,
        "price as loose bytes": loose,
        "a recursive field": recursive,
        "an endless array": endless,
        "no record": {"type": "fixed", "name": "Amount", "size": 8, "logicalType": "decimal", "precision": 18},
        "a union": ["null", "string"],
    }


@pytest.mark.parametrize("name", sorted(writer_schemas()))
def test_a_writer_schema_no_trade_can_be_read_with_makes_dead_letters(here, name):
    registry = Registry(here.settings.registry())
    schema_id = registry.register(f"someone-elses-{name.replace(' ', '-')}", writer_schemas()[name])
    registry.close()
    mine = here.register(FEED)
    bad = b"\0" + schema_id.to_bytes(4, "big") + b"\x02" * 100_000
    here.send_bytes(FEED, [encoded(trade(1), schema_id=mine), bad, encoded(trade(2), schema_id=mine)])
    engine = here.engine()
    ingest_until_caught_up(engine)
    assert dead_letters(engine.lake, TRADES)["reason"].to_pylist() == ["wrong_record"]
    assert len(stored_ids(engine)) == 2


def test_a_newer_writer_with_another_fixed_decimal_is_read(here):
    newer = avro_schema(TRADES)
    fee = {"type": "fixed", "name": "Fee", "size": 8, "logicalType": "decimal", "precision": 18, "scale": 8}
    newer["fields"].append({"name": "fee", "type": ["null", fee], "default": None})
    registry = Registry(here.settings.registry())
    schema_id = registry.register("newer-trades-value", newer)
    registry.close()
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(newer), {**trade(1), "fee": Decimal("0.5")})
    here.register(FEED)
    here.send_bytes(FEED, [b"\0" + schema_id.to_bytes(4, "big") + body.getvalue()])
    engine = here.engine()
    ingest_until_caught_up(engine)
    assert stored_ids(engine) == ["BINANCE:BTCUSDT:trade:1"]


def test_long_records_come_in_batches_that_fit_the_memory(here):
    filler = {"filler": "x" * 900_000}
    here.send(FEED, [trade(n, vendor_data=filler) for n in range(200)])
    engine = here.engine()
    committed = ingest_until_caught_up(engine)
    batches = [c for c in committed if c.receipt.rows_stored]
    assert len(batches) > 1
    assert len(stored_ids(engine)) == 200


def test_a_feed_whose_schema_nobody_knows_waits_and_the_others_go_on(here):
    here.send(FEED, [trade(n) for n in range(5)])
    here.send_bytes(ASX, [encoded(asx_trade("36000.5"), schema_id=888_888)], key=b"ASX.BHP")
    here.send_bytes(ASX, [encoded(asx_trade("36000.6"), schema_id=888_888)], key=b"ASX.BHP")
    engine = here.engine()
    engine = engine.__class__(**{**engine.__dict__, "feeds": tuple(_renamed(f) for f in engine.feeds)})
    with pytest.raises(SchemaUnavailable, match="everything else was ingested"):
        ingest_until_caught_up(engine)
    assert len(stored_ids(engine)) == 5
    assert dead_letters(engine.lake, TRADES).num_rows == 0
    assert sum(engine.lake.committed(TRADES, ASX.topic).values()) == 0


def _renamed(feed):
    """A feed whose subject the session's registry has never heard of."""
    if feed.name != ASX.name:
        return feed
    return _Nameless(**feed.__dict__)


class _Nameless(type(ASX)):
    @property
    def subject(self):
        return "a-subject-nobody-registered"


def test_two_writers_of_a_feed_without_ids_never_both_store_a_key(here):
    """Each on a Kafka partition of its own, both planned before either committed."""
    schema_id = here.register(ASX)
    value = encoded(asx_trade("36000.5"), schema_id=schema_id)
    for key in (b"ASX.BHP", b"ASX.BHP.other"):
        here.send_bytes(ASX, [value], key=key)
    engine = here.engine()
    engine.register(TRADES, "test")
    plan = engine.plan(TRADES)
    assert len(plan.ranges) == 2, "the two keys went to one partition"
    planned = engine.lake.head(TRADES)
    mine, rival = (next(iter(engine.kafka.read([r], rows_max=10))) for r in plan.ranges)
    commit_batch = engine.ingestion._commit_batch
    commit_batch(engine.lake.head(TRADES), arrived(engine, mine), "mine")
    with pytest.raises(FencedOut):
        commit_batch(planned, arrived(engine, rival), "rival")
    ingest_until_caught_up(engine)
    assert len(stored_ids(engine)) == 1


def arrived(engine, batch):
    (decoded,) = engine.ingestion.desk.arrivals(TRADES, iter([batch]))
    return decoded


def test_a_batch_read_before_an_adoption_is_never_committed_under_the_new_epoch(here):
    here.send(FEED, [trade(n) for n in range(100, 105)])
    engine = here.engine()
    engine.register(TRADES, "test")
    read_under = engine.lake.head(TRADES)
    (batch,) = engine.kafka.read(engine.plan(TRADES).ranges, rows_max=100)
    with embedded_broker(TOPICS) as bootstrap:
        anew = here.elsewhere(kafka_bootstrap=bootstrap)
        anew.send(FEED, [trade(n) for n in range(200, 205)])
        fresh = anew.engine()
        fresh.adopt(TRADES, fresh.topics(TRADES), run_id="test", who="a test", why="another broker")
        with pytest.raises(FencedOut, match="another writer"):
            engine.ingestion._commit_batch(read_under, arrived(engine, batch), "late")
        plan = fresh.plan(TRADES)
        list(fresh.execute(TRADES, plan.ranges, "test"))
    assert stored_ids(fresh) == [f"BINANCE:BTCUSDT:trade:{n}" for n in range(200, 205)]


def test_an_edited_state_file_halts_loudly(here):
    here.send(FEED, [trade(1)])
    engine = here.engine()
    ingest_until_caught_up(engine)
    path = engine.lake.head(TRADES).property(f"k2.state.{FEED.topic}.0")
    with open(path, "ab") as file:
        file.write(b"!")
    here.send(FEED, [trade(2)])
    with pytest.raises(Exception, match="its name says"):
        ingest_until_caught_up(engine)


def test_an_empty_plan_commits_nothing(here):
    engine = here.engine()
    engine.register(TRADES, "test")
    before = engine.lake.state(TRADES).snapshot_id
    assert list(engine.execute(TRADES, [OffsetRange(FEED.topic, 0, 0, 0)], "test")) == []
    assert engine.lake.state(TRADES).snapshot_id == before
    assert engine.lake.state(QUOTES) is not None
