"""/metrics of a stack that stands still in every way it can: what is said, and what is said to be absent."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from k2_assets.engine import ingest_until_caught_up, open_engine
from k2_core.contracts import TRADES
from k2_core.errors import PartitionPaused
from k2_core.poison import DEAD_MIN
from k2_tests.api.homes import serving
from k2_tests.stacks import Stack, stack
from k2_tests.ticks import FEEDS, trade

FEED = FEEDS["binance-trades"]
OF_TOPIC = f'table="{TRADES.name}",topic="{FEED.topic}"'


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, registry_url: str) -> Iterator[Stack]:
    """One row and a storm of letters on a partition of its own, which is paused now. For tests that only look."""
    with stack(tmp_path_factory.mktemp("scraped") / "home", registry_url) as running:
        running.send(FEED, [trade(1)])
        running.send_bytes(FEED, [b"junk"] * DEAD_MIN, key=b"another partition")
        with open_engine(running.settings) as engine, pytest.raises(PartitionPaused):
            ingest_until_caught_up(engine)
        running.send_bytes(FEED, [b"junk"] * 3, key=b"another partition")
        yield running


def scraped(here: Stack) -> dict[str, float]:
    with serving(here.settings) as client:
        return samples(client.get("/metrics").text)


def samples(text: str) -> dict[str, float]:
    """Sample with its labels in alphabetical order -> value."""
    found = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {_sorted(name): float(value) for name, _, value in found}


def _sorted(name: str) -> str:
    head, _, labels = name.rstrip("}").partition("{")
    return f"{head}{{{','.join(sorted(labels.split(',')))}}}" if labels else head


def test_pauses_lag_letters_and_room_are_told(here: Stack) -> None:
    told = scraped(here)
    paused = {name for name, value in told.items() if name.startswith("k2_partition_paused") and value == 1}
    (where,) = paused
    assert OF_TOPIC in where
    assert told[where.replace("paused", "lag_records")] == 3
    assert told[f'k2_dead_letters_total{{reason="bad_magic",{OF_TOPIC}}}'] == DEAD_MIN
    assert told["k2_kafka_answers"] == 1
    assert told[f"k2_topic_exists{{{OF_TOPIC}}}"] == 1
    codes = ("INCARNATION_CHANGED", "LOG_TRUNCATED", "OFFSET_BELOW_RETENTION")
    assert [told[f'k2_topic_halted{{code="{code}",{OF_TOPIC}}}'] for code in codes] == [0, 0, 0]
    assert told['k2_dependency_answers{dependency="registry"}'] == 1
    assert told['k2_disk_free_bytes{place="warehouse"}'] > 0


def test_a_halted_topic_is_told_by_its_code_and_its_lag_is_absent(
    here: Stack, tmp_path: Path, registry_url: str
) -> None:
    with stack(tmp_path / "other", registry_url) as other:
        told = scraped(here.elsewhere(kafka_bootstrap=str(other.settings.kafka_bootstrap)))
    assert told[f'k2_topic_halted{{code="INCARNATION_CHANGED",{OF_TOPIC}}}'] == 1
    assert not any(name.startswith("k2_partition_lag_records") and OF_TOPIC in name for name in told)


def test_a_log_that_does_not_answer_is_told_as_absent_never_as_no_lag(here: Stack) -> None:
    told = scraped(here.elsewhere(kafka_bootstrap="127.0.0.1:1", registry_url="http://127.0.0.1:1"))
    assert told["k2_kafka_answers"] == 0
    assert told['k2_dependency_answers{dependency="registry"}'] == 0
    absent = ("k2_partition_lag_records", "k2_topic_halted", "k2_topic_exists")
    assert not [name for name in told if name.startswith(absent)]
    assert [value for name, value in told.items() if name.startswith("k2_partition_paused") and value], (
        "the lake says so"
    )


def test_a_locked_catalog_is_told_before_a_scrape_is_given_up(here: Stack) -> None:
    rival = sqlite3.connect(here.settings.home / "catalog.db", isolation_level=None)
    with serving(here.settings) as client, closing(rival):
        rival.execute("BEGIN EXCLUSIVE")
        told = samples(client.get("/metrics", timeout=8).text)
    assert told['k2_dependency_answers{dependency="catalog"}'] == 0
    assert not [name for name in told if name.startswith(("k2_table_rows", "k2_dead_letters"))]
