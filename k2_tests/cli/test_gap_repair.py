"""`k2 gaps repair|accept` and `k2 backfill binance` on a real stack against a real HTTP server.

One stack for all, proven at the end: each test has a symbol of its own, and leaves no gap that anybody has to see to.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner, Result

from k2_assets.engine import Engine
from k2_cli.main import main
from k2_core.contracts import COVERAGE, TRADES
from k2_feeds import binance_backfill
from k2_feeds.repair import rest_row
from k2_resources.lake.scans import dead_letters, gap_events, unfilled_gaps
from k2_resources.lake.verify import verify
from k2_tests.core.test_statements import CONTRADICTIONS, statement
from k2_tests.small_exchange import START_MS, Reply, SmallExchange, rest_trade, small_exchange
from k2_tests.stacks import Stack, stack
from k2_tests.ticks import FEEDS

FEED = FEEDS["binance-trades"]
KILLED_AFTER = (5, 11)
"""Answers of the exchange: within the first chunk, and past its end."""


@dataclass(frozen=True)
class Here:
    """A running stack, its engine, and an exchange to ask."""

    stack: Stack
    engine: Engine
    exchange: SmallExchange

    def called(self, *arguments: object, code: int = 0) -> Result:
        """Run `k2` on this home."""
        command = [*map(str, arguments), "--home", str(self.stack.settings.home)]
        result = CliRunner().invoke(main, command, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    def send(self, numbers: Any, symbol: str) -> None:
        """Trades as a stream would have brought them."""
        rows = [dict(rest_row(symbol, rest_trade(n), START_MS * 1_000).record) for n in numbers]
        self.stack.send(FEED, rows)

    def ingest(self, *tables: Any) -> None:
        """Take in what waits."""
        for table in tables or (TRADES, COVERAGE):
            list(self.engine.execute(table, self.engine.plan(table).ranges, "test"))

    def standing(self, symbol: str) -> dict[str, str]:
        """State by ids of the unfilled gaps of a symbol."""
        gaps = unfilled_gaps(self.engine.lake, FEED.name)
        return {f"{gap['first_id']}-{gap['last_id']}": gap["state"] for gap in gaps if gap["scope"] == symbol}

    def stored(self, symbol: str) -> list[int]:
        columns = ("source_sequence", "revision")
        rows = self.engine.lake.load(TRADES).scan(f"symbol == '{symbol}'", selected_fields=columns).to_arrow()
        assert set(rows["revision"].to_pylist()) <= {0}
        return sorted(rows["source_sequence"].to_pylist())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, registry_url: str) -> Iterator[Here]:
    home = tmp_path_factory.mktemp("repair") / "home"
    with small_exchange() as exchange, stack(home, registry_url) as here, pytest.MonkeyPatch.context() as environment:
        environment.setenv("K2_KAFKA_BOOTSTRAP", str(here.settings.kafka_bootstrap))
        environment.setenv("K2_REGISTRY_URL", registry_url)
        environment.setenv("K2_BINANCE_REST_URL", exchange.url)
        running = Here(here, here.engine(), exchange)
        yield running
        running.ingest()
        assert [verify(running.engine.lake, table).findings for table in (TRADES, COVERAGE)] == [(), ()]


@pytest.fixture
def here(running: Here) -> Here:
    running.exchange.trades.clear()
    running.exchange.replies.clear()
    running.exchange.asked.clear()
    return running


def gap_id(symbol: str, ids: str) -> str:
    return f"{FEED.name}:{symbol}:0:{ids}"


def test_a_gap_is_asked_for_filled_and_what_the_exchange_lacks_is_on_the_ledger(here: Here) -> None:
    here.send([1, 2, 9, 10, 13], "AUSDT")
    here.exchange.lists("AUSDT", set(range(1, 14)) - {5, 6})
    here.ingest()
    assert here.standing("AUSDT") == {"3-8": "open", "11-12": "open"}
    done = here.called("gaps", "repair", gap_id("AUSDT", "3-8"), "--who", "ada")
    assert "4 rows sent, 4 acknowledged" in done.stdout
    here.ingest()
    assert here.stored("AUSDT") == [1, 2, 3, 4, 7, 8, 9, 10, 13]
    assert here.standing("AUSDT") == {"5-6": "absent_at_source", "11-12": "open"}
    assert "1 open gaps" in here.called("gaps", "list").stdout
    assert gap_id("AUSDT", "5-6") in here.called("gaps", "list", "--all").stdout
    shown = here.called("gaps", "show", gap_id("AUSDT", "5-6")).stdout
    assert "repair by ada" in shown
    assert "is absent_at_source" in shown
    here.called("gaps", "repair", "--all")
    here.ingest()
    assert "nothing to do" in here.called("gaps", "repair", "--all").stdout
    here.called("gaps", "repair", gap_id("AUSDT", "5-6"))
    here.ingest()
    assert here.stored("AUSDT") == [n for n in range(1, 14) if n not in (5, 6)]
    assert here.standing("AUSDT") == {"5-6": "absent_at_source"}
    rows = [row for row in gap_events(here.engine.lake).to_pylist() if row["scope"] == "AUSDT"]
    told = {
        table: {row["state"] for row in rows if row["table_name"] == table} for table in (TRADES.name, COVERAGE.name)
    }
    assert told == {TRADES.name: {"open", "filled"}, COVERAGE.name: {"backfilling", "absent_at_source"}}


def test_statements_that_arrive_before_the_hole_is_seen_say_the_same(here: Here) -> None:
    here.send([1, 2, 9], "BUSDT")
    here.exchange.lists("BUSDT", [1, 2, 9])
    here.ingest(TRADES)
    here.called("gaps", "repair", gap_id("BUSDT", "3-8"))
    here.ingest(COVERAGE)
    assert here.standing("BUSDT") == {"3-8": "absent_at_source"}
    coverage = statement(symbol="BUSDT", gap_id=gap_id("BUSDT", "10-19"), first_id=10, last_id=19, event="accepted")
    here.stack.send(FEEDS["coverage"], [coverage])
    here.ingest(COVERAGE)
    here.send([5, 12, 20], "BUSDT")
    here.ingest(TRADES)
    absent = dict.fromkeys(("3-4", "6-8"), "absent_at_source")
    assert here.standing("BUSDT") == absent | {"10-11": "accepted", "13-19": "accepted"}


def test_an_accepted_gap_asks_for_nothing_more_until_its_ids_come_after_all(here: Here) -> None:
    here.send([1, 2, 9], "CUSDT")
    here.ingest(TRADES)
    gap = gap_id("CUSDT", "3-8")
    assert "NOT_FOUND" in here.called("gaps", "accept", gap_id("CUSDT", "3-7"), "--why", "x", code=2).stderr
    here.called("gaps", "accept", gap, "--why", "the exchange was down", "--who", "ada")
    here.ingest(COVERAGE)
    assert here.standing("CUSDT") == {"3-8": "accepted"}
    told = json.loads(here.called("gaps", "show", gap, "--json").stdout)[-1]
    assert (told["state"], told["actor"], told["evidence"]) == ("accepted", "ada", '{"why": "the exchange was down"}')
    here.send(range(3, 9), "CUSDT")
    here.ingest(TRADES)
    assert here.standing("CUSDT") == {}


def test_hostile_statements_are_letters_and_the_ledger_goes_on(here: Here) -> None:
    here.send([1, 2, 9], "DUSDT")
    before = len(gap_events(here.engine.lake)), len(dead_letters(here.engine.lake, COVERAGE))
    hostile = [changes for changes, reason in CONTRADICTIONS.values() if reason != "implausible_time"]
    coverage = FEEDS["coverage"]
    here.stack.send(coverage, [statement(**{**changes, "message_id": f"x{n}"}) for n, changes in enumerate(hostile)])
    true = statement(symbol="DUSDT", gap_id=gap_id("DUSDT", "3-8"), last_id=8, event="accepted")
    here.stack.send(coverage, [true])
    here.ingest()
    after = len(gap_events(here.engine.lake)), len(dead_letters(here.engine.lake, COVERAGE))
    assert (after[0] - before[0], after[1] - before[1]) == (2, len(hostile))
    assert here.standing("DUSDT") == {"3-8": "accepted"}


def test_an_exchange_that_is_away_leaves_the_gap_in_backfilling_and_the_command_fails(here: Here) -> None:
    here.send([1, 2, 9], "EUSDT")
    here.ingest(TRADES)
    here.exchange.lists("EUSDT", range(1, 10))
    here.exchange.replies.append(Reply(418, b"", {"Retry-After": "100000"}))
    gap = gap_id("EUSDT", "3-8")
    assert "asks for silence" in here.called("gaps", "repair", gap, code=1).stderr
    here.ingest(COVERAGE)
    assert here.standing("EUSDT") == {"3-8": "backfilling"}
    here.called("gaps", "repair", gap)
    here.ingest(TRADES)
    assert here.standing("EUSDT") == {}


def test_only_gaps_that_can_be_asked_for_are_repaired(here: Here) -> None:
    assert "BAD_INPUT" in here.called("gaps", "repair", code=2).stderr
    assert "NOT_FOUND" in here.called("gaps", "repair", "nonsense", code=2).stderr
    assert "nothing to do" in here.called("gaps", "repair", "--all", "--feed", "asx-trades").stdout


RANGE = ("--from", "2025-01-01T00:00:30", "--to", "2025-01-01T00:01:00")


def test_a_backfill_sends_a_time_range_once_and_says_what_nobody_asked_for(here: Here) -> None:
    here.send([10, 11, 90], "FUSDT")
    here.ingest()
    here.exchange.lists("FUSDT", set(range(1, 101)) - {45})
    command = ("backfill", "binance", "FUSDT", *RANGE)
    report = json.loads(here.called(*command, "--json").stdout)
    assert (report["sent"], report["complete"]) == (29, True)
    here.ingest()
    assert here.stored("FUSDT") == [10, 11, *(n for n in range(30, 60) if n != 45), 90]
    assert here.standing("FUSDT") == {"12-29": "not_collected", "45-45": "absent_at_source", "60-89": "not_collected"}
    assert "all of it was sent" in here.called(*command).stdout
    here.called(*command, "--again")
    here.ingest()
    assert len(here.stored("FUSDT")) == 32
    assert "BAD_INPUT" in here.called("backfill", "binance", "NOPE", *RANGE, code=2).stderr
    backwards = ("--from", "2025-01-01", "--to", "2024-01-01")
    assert "BAD_INPUT" in here.called("backfill", "binance", "FUSDT", *backwards, code=2).stderr


def test_a_chunk_counts_once_the_broker_has_it(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binance_backfill, "CHUNK_IDS", 10)
    here.exchange.lists("GUSDT", range(1, 41))
    told: list[int] = []
    write = binance_backfill.ProgressFile.write

    def noted(self: Any, progress: Any) -> None:
        write(self, progress)
        told.append(progress.next_id)
        if told == [1, 11, 21]:
            here.exchange.replies.append(Reply(400, b'{"code":-1100,"msg":"Illegal characters"}'))

    monkeypatch.setattr(binance_backfill.ProgressFile, "write", noted)
    command = ("backfill", "binance", "GUSDT", "--from", "2025-01-01", "--to", "2025-01-02")
    assert "20 ids left; the same command goes on there" in here.called(*command, code=1).stderr
    here.exchange.asked.clear()
    here.called(*command)
    assert told == [1, 11, 21, 21, 31, 41]
    assert [path.split("fromId=")[1].split("&")[0] for path in here.exchange.paths()] == ["21", "31"]
    here.ingest()
    assert here.standing("GUSDT") == {}


def test_a_backfill_killed_again_and_again_ends_with_every_id_once(here: Here) -> None:
    here.exchange.lists("HUSDT", range(1, 13_001))
    here.exchange.seconds_per_answer = 0.02
    command = ["backfill", "binance", "HUSDT", "--from", "2025-01-01", "--to", "2025-02-01"]
    arguments = [sys.executable, "-m", "k2_cli.main", *command, "--home", str(here.stack.settings.home)]
    for answers in KILLED_AFTER:
        asked = len(here.exchange.asked)
        with subprocess.Popen(arguments, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            while child.poll() is None and len(here.exchange.asked) < asked + answers:
                time.sleep(0.005)
            os.kill(child.pid, signal.SIGKILL)
    here.exchange.seconds_per_answer = 0.0
    here.called(*command)
    notes = [json.loads(path.read_text()) for path in (here.stack.settings.home / "backfill").glob("*.json")]
    assert [note["next_id"] for note in notes if note["wanted"]["symbol"] == "HUSDT"] == [13_001]
    here.ingest()
    assert here.stored("HUSDT") == list(range(1, 13_001))
    assert here.standing("HUSDT") == {}
