"""`k2 dead-letters` on a real stack: what is listed, what a replay does to a letter, and what it must not do."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from k2_assets.engine import ingest_until_caught_up, open_engine
from k2_cli.main import main
from k2_core.avro import avro_schema
from k2_core.contracts import COVERAGE, INGESTED, TRADES
from k2_core.letters import REPLAY_HEADER
from k2_core.offsets import OffsetRange
from k2_resources.kafka import KafkaLog
from k2_resources.lake.scans import dead_letters
from k2_resources.lake.verify import verify
from k2_resources.registry import Registry
from k2_tests.stacks import Stack, stack
from k2_tests.ticks import FEEDS, encoded, trade

FEED = FEEDS["binance-trades"]


@pytest.fixture
def here(tmp_path: Path, registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack on a home of its own, which the command finds by its settings as a user's would."""
    with stack(tmp_path / "home", registry_url) as running:
        monkeypatch.setenv("K2_KAFKA_BOOTSTRAP", str(running.settings.kafka_bootstrap))
        monkeypatch.setenv("K2_REGISTRY_URL", registry_url)
        yield running


def called(here: Stack, *arguments: object, code: int = 0, **options: Any) -> Result:
    command = ["dead-letters", *map(str, arguments), "--home", str(here.settings.home)]
    result = CliRunner().invoke(main, command, catch_exceptions=False, **options)
    assert result.exit_code == code, result.output
    return result


def listed(here: Stack, *arguments: object) -> list[dict[str, Any]]:
    letters: list[dict[str, Any]] = json.loads(called(here, "list", "--json", *arguments).stdout)["letters"]
    return letters


def ingest(here: Stack) -> None:
    with open_engine(here.settings) as engine:
        ingest_until_caught_up(engine)


def stored_ids(here: Stack) -> list[str]:
    with open_engine(here.settings) as engine:
        rows = engine.lake.load(TRADES).scan(selected_fields=("message_id",)).to_arrow()
    return sorted(rows["message_id"].to_pylist())


def balanced(here: Stack) -> bool:
    with open_engine(here.settings) as engine:
        return [verify(engine.lake, table).findings for table in INGESTED] == [()] * len(INGESTED)


def newer_schema(name: str) -> dict[str, Any]:
    """A schema the registry has never seen, with which trades can be read."""
    schema = deepcopy(avro_schema(TRADES))
    schema["fields"].append({"name": name, "type": ["null", "string"], "default": None})
    return schema


def test_a_letter_of_a_schema_that_came_late_is_resolved_by_a_replay_and_stored_once(
    here: Stack, tmp_path: Path
) -> None:
    here.send(FEED, [trade(1)])
    with closing(Registry(here.settings.registry())) as registry:
        late_id = (
            registry.register(f"probe-{tmp_path.name}", newer_schema(f"probe_{tmp_path.name.replace('-', '_')}")) + 1
        )
        # what the newer writer adds is null: one byte behind the record every reader knows
        here.send_bytes(
            FEED, [encoded(trade(2), schema_id=late_id) + b"\0", encoded(trade(3), schema_id=here.register(FEED))]
        )
        ingest(here)
        (letter,) = listed(here)
        assert (letter["reason"], letter["status"], letter["offset"]) == ("unknown_schema", "open", 1)
        given = registry.register(f"late-{tmp_path.name}", newer_schema(f"late_{tmp_path.name.replace('-', '_')}"))
        assert given == late_id, "the registry counts up"
    at = (letter["topic"], letter["partition"], letter["offset"])
    assert "was delivered as" in called(here, "replay", *at).stdout
    assert [one["status"] for one in listed(here)] == ["pending"]
    assert "BAD_INPUT" in called(here, "replay", *at, code=2).stderr
    ingest(here)
    assert [one["status"] for one in listed(here)] == ["resolved"]
    assert "Say --again" in called(here, "replay", *at, code=2).stderr
    assert stored_ids(here) == [f"BINANCE:BTCUSDT:trade:{n}" for n in (1, 2, 3)]
    called(here, "replay", *at, "--again")
    ingest(here)
    assert stored_ids(here) == [f"BINANCE:BTCUSDT:trade:{n}" for n in (1, 2, 3)]
    assert balanced(here)


def test_a_hopeless_letter_is_dead_again_and_what_it_became_is_open(here: Stack) -> None:
    here.register(FEED)
    here.send_bytes(FEED, [b"junk"], key=b"no symbol: sent again where it lay")
    ingest(here)
    called(here, "replay", "--all", "--yes")
    ingest(here)
    assert [(one["offset"], one["status"]) for one in listed(here)] == [(0, "dead again"), (1, "open")]
    assert listed(here)[0]["delivered"] == [f"{FEED.topic}[{listed(here)[0]['partition']}]@0:1"]
    called(here, "replay", "--all", "--yes")
    ingest(here)
    assert [(one["offset"], one["status"]) for one in listed(here)] == [
        (0, "dead again"),
        (1, "dead again"),
        (2, "open"),
    ]
    assert balanced(here)


def test_a_replay_sends_the_same_bytes_key_and_headers_and_says_where_they_died(here: Stack) -> None:
    producer = Producer({"bootstrap.servers": here.settings.bootstrap()})
    headers = [("trace", b"\xff\x00"), ("none", None)]
    producer.produce(FEED.topic, b"junk\xfe", b"BINANCE.BTCUSDT", partition=3, headers=headers)
    assert producer.flush(10) == 0
    ingest(here)
    called(here, "replay", FEED.topic, 3, 0)
    (delivered,) = listed(here)[0]["delivered"]
    partition, offset = int(delivered.partition("[")[2].partition("]")[0]), int(delivered.rpartition(":")[2])
    log = KafkaLog(here.settings.bootstrap())
    (batch,) = log.read([OffsetRange(FEED.topic, partition, offset, offset + 1)], rows_max=1)
    (records,) = batch.records
    origin = f"{FEED.topic}[3]@0:0"
    assert list(records.values) == [b"junk\xfe"]
    assert records.envelopes[0].key == b"BINANCE.BTCUSDT"
    assert list(records.envelopes[0].headers) == [*headers, (REPLAY_HEADER, origin.encode())]


def test_only_open_letters_of_the_reason_are_sent_and_only_after_a_yes(here: Stack) -> None:
    here.register(FEED)
    here.send_bytes(FEED, [b"junk", b"", b"more junk", None])
    ingest(here)
    assert "Aborted" in called(here, "replay", "--reason", "bad_magic", code=1, input="n\n").output
    assert {one["status"] for one in listed(here)} == {"open"}
    called(here, "replay", "--reason", "bad_magic", input="y\n")
    standing = {one["offset"]: one["status"] for one in listed(here)}
    assert standing == {0: "pending", 1: "open", 2: "pending", 3: "open"}
    assert "nothing to do" in called(here, "replay", "--reason", "bad_magic", "--yes").stdout
    counted = json.loads(called(here, "list", "--status", "open", "--limit", "1", "--json").stdout)
    assert (counted["total"], len(counted["letters"]), counted["by_status"]) == (2, 1, {"open": 2})


def test_a_letter_is_shown_with_its_bytes_and_what_they_say(here: Stack) -> None:
    schema_id = here.register(FEED)
    here.send_bytes(FEED, [encoded(trade(1, exchange="ASX"), schema_id=schema_id), b"\1junk"])
    ingest(here)
    partition = listed(here)[0]["partition"]
    shown = json.loads(called(here, "show", FEED.topic, partition, 0, "--json").stdout)
    assert base64.b64decode(shown["value"]) == encoded(trade(1, exchange="ASX"), schema_id=schema_id)
    assert (shown["reason"], shown["key"], shown["says"]["exchange"]) == ("unknown_exchange", "BINANCE.BTCUSDT", "ASX")
    text = called(here, "show", FEED.topic, partition, 1).stdout
    assert "01 6a 75 6e 6b" in text and ".junk" in text and "bad_magic" in text
    assert "NOT_FOUND" in called(here, "show", FEED.topic, partition, 77, code=2).stderr


def test_letters_can_be_listed_when_no_broker_answers(here: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    here.send_bytes(FEED, [b"junk"])
    ingest(here)
    monkeypatch.delenv("K2_KAFKA_BOOTSTRAP")
    said = called(here, "list", "--table", "trades", "--json")
    assert [one["reason"] for one in json.loads(said.stdout)["letters"]] == ["bad_magic"]
    assert "MISCONFIGURED" in said.stderr


def test_what_was_sent_again_and_lost_with_its_log_is_open(here: Stack, tmp_path: Path, registry_url: str) -> None:
    """The embedded broker dies before the delivery is read: its adoption jumps over it."""
    here.register(FEED)
    here.send_bytes(FEED, [b"junk"])
    ingest(here)
    called(here, "replay", "--all", "--yes")
    with open_engine(here.settings) as engine:
        plan = engine.plan(COVERAGE)
        list(engine.execute(COVERAGE, plan.ranges, "test"))
        assert engine.plan(TRADES).ranges
    with stack(tmp_path / "other", registry_url) as other:
        anew = here.elsewhere(kafka_bootstrap=str(other.settings.kafka_bootstrap))
        with open_engine(anew.settings) as engine:
            for table in INGESTED:
                engine.adopt(table, engine.topics(table), run_id="test", who="a test", why="another broker")
            ingest_until_caught_up(engine)
    assert [one["status"] for one in listed(here)] == ["open"]


def test_a_replay_on_the_embedded_broker_holds_back_as_every_feed_does(
    here: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.register(FEED)
    here.send_bytes(FEED, [b"junk"] * 3)
    ingest(here)
    monkeypatch.delenv("K2_KAFKA_BOOTSTRAP")
    file = here.settings.endpoints_file
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"kafka": here.settings.kafka_bootstrap}))
    assert "3 letters sent again" in called(here, "replay", "--topic", FEED.topic, "--yes").stdout
    ingest(here)
    assert len(dead_letters(here.engine().lake)) == 6
    assert balanced(here)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "say which letters"),
        (("--all", FEED.topic, "0", "0"), "say which letters"),
        ((FEED.topic, "0"), "expected TOPIC PARTITION OFFSET"),
        (("--table", "nonsense"), "no table 'nonsense'"),
    ],
)
def test_a_replay_that_does_not_say_which_letters_is_refused(
    here: Stack, arguments: tuple[str, ...], says: str
) -> None:
    here.engine()
    assert says in called(here, "replay", *arguments, code=2).stderr
