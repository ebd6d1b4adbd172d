"""`k2 topics` on a real stack: what it lists, and each way past a halt."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from getpass import getuser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from k2_assets.engine import ingest_until_caught_up, open_engine
from k2_cli.main import main
from k2_cli.status import is_healthy
from k2_core.contracts import TRADES
from k2_core.errors import OffsetBelowRetention, PartitionPaused
from k2_core.poison import DEAD_MIN
from k2_resources.lake.scans import receipt_rows
from k2_resources.lake.verify import verify
from k2_tests.stacks import Stack, stack
from k2_tests.ticks import FEEDS, trade

FEED = FEEDS["binance-trades"]
RECORD_BYTES = 900_000
"""Ten of them are more than the embedded broker keeps of one Kafka partition: it drops the oldest."""


@pytest.fixture
def here(tmp_path: Path, registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack on a home of its own, which the command finds by its settings as a user's would."""
    with stack(tmp_path / "home", registry_url) as running:
        monkeypatch.setenv("K2_KAFKA_BOOTSTRAP", str(running.settings.kafka_bootstrap))
        monkeypatch.setenv("K2_REGISTRY_URL", registry_url)
        yield running


def called(here: Stack, *arguments: object, code: int = 0, **options: Any) -> Result:
    command = ["topics", *map(str, arguments), "--home", str(here.settings.home)]
    result = CliRunner().invoke(main, command, catch_exceptions=False, **options)
    assert result.exit_code == code, result.output
    return result


def listed(here: Stack, topic: str = FEED.topic) -> dict[str, Any]:
    """What the list says of one topic."""
    (entry,) = (t for t in json.loads(called(here, "list", "--json").stdout) if t["topic"] == topic)
    return dict(entry)


def ingest(here: Stack) -> None:
    with open_engine(here.settings) as engine:
        ingest_until_caught_up(engine)


def decisions(here: Stack) -> list[dict[str, Any]]:
    """Receipts of trades that somebody decided."""
    with open_engine(here.settings) as engine:
        engine.collect(TRADES)
        assert verify(engine.lake, TRADES).findings == ()
        return [r for r in receipt_rows(engine.lake, TRADES).to_pylist() if r["who"] is not None]


def test_the_list_says_per_partition_what_is_stored_and_what_waits(here: Stack) -> None:
    here.send(FEED, [trade(n) for n in range(5)])
    before = listed(here)
    assert (before["epoch"], before["lag"], before["halt"]) == (None, 5, None)
    ingest(here)
    here.send(FEED, [trade(5)])
    after = listed(here)
    (busy,) = (p for p in after["partitions"] if p["high"])
    assert (after["epoch"], after["lag"]) == (0, 1)
    assert (busy["next"], busy["low"], busy["high"], busy["lag"], busy["paused"]) == (5, 0, 6, 1, None)
    lines = called(here, "list").stdout.splitlines()
    assert lines[0].split() == ["table", "topic", "epoch", "partition", "next", "low", "high", "lag", "stands"]
    assert len(lines) == 1 + sum(feed.kafka_partitions for feed in FEEDS.values())


def test_a_topic_made_anew_is_adopted_by_name_with_who_and_why(
    here: Stack, tmp_path: Path, registry_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.send(FEED, [trade(n) for n in range(5)])
    ingest(here)
    with stack(tmp_path / "other", registry_url) as other:
        monkeypatch.setenv("K2_KAFKA_BOOTSTRAP", str(other.settings.kafka_bootstrap))
        assert listed(here)["halt"]["code"] == "INCARNATION_CHANGED"
        assert listed(here)["lag"] is None
        another_way = called(here, "accept-loss", FEED.topic, "--why", "a test", "--yes")
        assert "nothing to do" in another_way.stdout and "INCARNATION_CHANGED" in another_way.stderr
        declined = called(here, "adopt", FEED.topic, "--why", "a test", code=1, input="n\n").output
        assert "epoch 0 offset 5 -> epoch 1 offset 0" in declined
        assert decisions(here) == []
        said = called(here, "adopt", FEED.topic, "--why", "the broker was made anew", "--who", "an operator", "--yes")
        assert "adopt by an operator" in said.stdout
        assert "nothing to do" in called(here, "adopt", FEED.topic, "--why", "again", "--yes").stdout
        (decision,) = decisions(here)
        assert (decision["kind"], decision["who"], decision["why"]) == (
            "adopt",
            "an operator",
            "the broker was made anew",
        )
        assert {r["topic"] for r in decision["ranges"]} == {FEED.topic}
        assert listed(here)["epoch"] == 1
        assert listed(here, "market.equities.trades.asx")["halt"]["code"] == "INCARNATION_CHANGED"


def lose_records(here: Stack) -> None:
    """More than the broker can hold, after something was ingested: its low watermark passes the stored offset."""
    here.send(FEED, [trade(n) for n in range(5)])
    ingest(here)
    here.send_bytes(FEED, (os.urandom(RECORD_BYTES) for _ in range(10)))


def test_a_loss_is_accepted_with_its_range_in_the_receipt(here: Stack) -> None:
    lose_records(here)
    with open_engine(here.settings) as engine, pytest.raises(OffsetBelowRetention):
        engine.plan(TRADES)
    (lost,) = (p for p in listed(here)["partitions"] if p["halt"])
    assert (lost["halt"]["code"], lost["next"]) == ("OFFSET_BELOW_RETENTION", 5)
    where = FEED.topic, "--why", "the night shift slept"
    preview = called(here, "accept-loss", *where, code=1, input="\n").output
    assert f"[5, {lost['low']}): {lost['low'] - 5} records are gone" in preview
    called(here, "accept-loss", *where, "--yes")
    assert "nothing to do" in called(here, "accept-loss", *where, "--yes").stdout
    ingest(here)
    (decision,) = decisions(here)
    (jump,) = decision["ranges"]
    assert (decision["kind"], jump["start"], jump["end"], jump["read"]) == ("accept_loss", 5, lost["low"], 0)
    assert (decision["who"], decision["why"]) == (getuser(), "the night shift slept")
    assert listed(here)["lag"] == 0


def test_a_paused_partition_is_resumed_and_the_others_never_stood(here: Stack) -> None:
    here.send(FEED, [trade(1)])
    here.send_bytes(FEED, [b"junk"] * DEAD_MIN, key=b"another partition")
    with open_engine(here.settings) as engine, pytest.raises(PartitionPaused):
        ingest_until_caught_up(engine)
    here.send(FEED, [trade(2)])
    here.send_bytes(FEED, [b"junk"], key=b"another partition")
    (paused,) = (p for p in listed(here)["partitions"] if p["paused"])
    assert f"{DEAD_MIN} of {DEAD_MIN} records" in paused["paused"]
    ingest(here)
    assert listed(here)["lag"] == 1, "only the paused partition waits"
    elsewhere = (paused["kafka_partition"] + 1) % FEED.kafka_partitions
    assert "nothing to do" in called(here, "resume", FEED.topic, "--partition", elsewhere, "--why", "x", "--yes").stdout
    said = called(here, "resume", FEED.topic, "--partition", paused["kafka_partition"], "--why", "mended", input="y\n")
    assert "1 records wait; paused because" in said.stdout
    ingest(here)
    assert listed(here)["lag"] == 0
    assert [(d["kind"], d["why"], d["ranges"]) for d in decisions(here)] == [("resume", "mended", [])]


@pytest.mark.parametrize("command", ["adopt", "accept-loss", "resume"])
def test_a_topic_of_no_feed_is_refused_by_name(here: Stack, command: str) -> None:
    here.engine().register(TRADES, "test")
    said = called(here, command, "market.nowhere", "--why", "a test", "--yes", code=2).stderr
    assert "NOT_FOUND" in said and FEED.topic in said
    assert "Missing option '--why'" in called(here, command, FEED.topic, code=2).stderr


def test_a_decision_without_somebody_to_confirm_it_is_no_decision(here: Stack) -> None:
    lose_records(here)
    assert "Aborted" in called(here, "accept-loss", FEED.topic, "--why", "a script", code=1).output
    assert decisions(here) == []


def test_the_list_says_that_no_broker_answers(here: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("K2_KAFKA_TIMEOUT_SECONDS", "1")
    assert "UNREACHABLE" in called(here, "list", code=2).stderr


def test_the_status_tells_the_halt_of_one_topic_and_the_lag_of_its_neighbours(here: Stack) -> None:
    lose_records(here)
    arguments = ["status", "--json", "--home", str(here.settings.home)]
    said = CliRunner().invoke(main, arguments, catch_exceptions=False)
    told = {topic["topic"]: topic for topic in json.loads(said.stdout)["topics"]}
    assert said.exit_code == 1
    assert told[FEED.topic]["halted"].startswith("OFFSET_BELOW_RETENTION: ")
    assert told[FEED.topic]["lag"] is None
    neighbour = told["market.equities.trades.asx"]
    assert (neighbour["lag"], neighbour["halted"], neighbour["paused"]) == (0, None, None)


def test_a_stack_whose_services_all_answer_is_degraded_while_something_stands() -> None:
    up = {"kafka": {"answers": True}}
    topic = {"halted": None, "paused": None}
    assert is_healthy(up, {"topics": [topic]})
    assert not is_healthy(up, {"topics": [topic, {**topic, "halted": "LOG_TRUNCATED: ..."}]})
    assert not is_healthy(up, {"topics": [topic, {**topic, "paused": "[0]: ..."}]})
    assert not is_healthy(up, {"error": "UNREACHABLE: ..."})
    assert not is_healthy({**up, "api": {"answers": False}}, {"topics": [topic]})
