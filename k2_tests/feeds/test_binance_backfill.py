"""Past trades from REST: the ids of a time range, chunk by chunk, and on from where a run was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from k2_core.errors import Damaged, Unreachable
from k2_core.sequences import Intervals
from k2_feeds import binance_backfill
from k2_feeds.binance_backfill import Progress, ProgressFile, Wanted, backfilled, beside, located
from k2_feeds.coverage import Stamp
from k2_feeds.outcomes import Row
from k2_feeds.repair import Repair
from k2_resources.binance.rest import BinanceRest
from k2_tests.feeds.homes import FEEDS
from k2_tests.small_exchange import START_MS, Reply, SmallExchange, small_exchange

FEED = FEEDS["binance-trades"]
STAMP = Stamp("c0ffee", "backfill", 1_800_000_000_000_000)


def wanted(first_second: int, end_second: int) -> Wanted:
    return Wanted("http://x", "BTCUSDT", START_MS + first_second * 1_000, START_MS + end_second * 1_000)


@pytest.fixture(scope="module")
def serving() -> Iterator[SmallExchange]:
    with small_exchange() as here:
        yield here


@pytest.fixture
def here(serving: SmallExchange) -> SmallExchange:
    serving.begin_anew()
    serving.lists("BTCUSDT", range(1, 101))
    return serving


@pytest.fixture
def rest(here: SmallExchange) -> Iterator[BinanceRest]:
    with BinanceRest(here.url, attempts_max=2, weight_per_minute=10**9, wait=lambda _seconds: None) as rest:
        yield rest


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binance_backfill, "CHUNK_IDS", 10)


def test_a_time_range_is_the_ids_from_its_first_trade_to_the_one_before_its_end(rest: BinanceRest) -> None:
    assert located(rest, wanted(10, 20), None) == Progress(wanted(10, 20), 10, 20, 10)


def test_an_end_that_is_still_to_come_is_the_newest_trade(rest: BinanceRest, here: SmallExchange) -> None:
    found = located(rest, wanted(90, 10_000), None)
    assert found == Progress(wanted(90, 10_000), 90, 101, 90)
    done = replace(found, next_id=101)
    assert located(rest, wanted(90, 10_000), done) == done
    here.lists("BTCUSDT", [101, 102])
    assert located(rest, wanted(90, 10_000), done) == replace(done, end_id=103)


def test_a_run_that_was_stopped_goes_on_without_asking_for_times(rest: BinanceRest, here: SmallExchange) -> None:
    stopped = Progress(wanted(10, 20), 10, 20, 15)
    assert located(rest, wanted(10, 20), stopped) == stopped
    assert here.asked == []


def test_a_time_without_trades_has_none(rest: BinanceRest, here: SmallExchange) -> None:
    assert located(rest, wanted(500, 600), None) is None
    here.trades["BTCUSDT"] = {}
    here.lists("BTCUSDT", [1, 90])
    assert located(rest, wanted(10, 20), None) is None


def test_aggregates_the_exchange_declared_invalid_are_passed_over(rest: BinanceRest, here: SmallExchange) -> None:
    invalid = {"a": 1, "p": "0", "q": "0", "f": -1, "l": -1, "T": START_MS + 10_000}
    valid = {"a": 2, "f": 11, "l": 11, "T": START_MS + 11_000}
    here.replies.append(Reply(200, json.dumps([invalid, valid]).encode()))
    found = located(rest, wanted(10, 20), None)
    assert found is not None
    assert (found.first_id, found.end_id) == (11, 20)


@pytest.mark.parametrize("body", [b'[{"a":1}]', b'[{"f":1,"l":2,"T":"x"}]', b'[{"f":true,"l":2,"T":1}]'])
def test_an_aggregate_that_is_none_is_told(body: bytes, rest: BinanceRest, here: SmallExchange) -> None:
    here.replies.append(Reply(200, body))
    with pytest.raises(Unreachable, match="without T, f and l"):
        located(rest, wanted(10, 20), None)


def run(rest: BinanceRest, start: Progress) -> tuple[list[int], list[tuple[str, str]], list[int]]:
    """Ids sent, statements made, and the next ids noted."""
    notes: list[int] = []
    repair = Repair(rest, lambda: STAMP.now_us, wait=lambda _seconds: None)
    outcomes = list(backfilled(repair, FEED, start, lambda: STAMP, lambda at: notes.append(at.next_id)))
    rows = [o for o in outcomes if isinstance(o, Row)]
    sent = [row.record["source_sequence"] for row in rows if row.feed == FEED.name]
    return sent, [(row.record["event"], row.record["gap_id"]) for row in rows if row.feed != FEED.name], notes


@pytest.mark.usefixtures("small_chunks")
def test_every_id_is_sent_once_and_each_chunk_noted(rest: BinanceRest, here: SmallExchange) -> None:
    here.trades["BTCUSDT"].pop(40)
    sent, stated, notes = run(rest, Progress(wanted(25, 62), 25, 62, 30))
    assert sent == [n for n in range(30, 62) if n != 40]
    assert stated == [
        ("backfilling", "binance-trades:BTCUSDT:0:30-61"),
        ("absent_at_source", "binance-trades:BTCUSDT:0:40-40"),
    ]
    assert notes == [40, 50, 60, 62]


def test_nothing_is_left_to_do_once_it_is_done(rest: BinanceRest) -> None:
    assert run(rest, Progress(wanted(1, 9), 1, 9, 9)) == ([], [], [])


def test_progress_is_read_as_it_was_written(tmp_path: Path) -> None:
    notes, progress = ProgressFile(tmp_path / "backfill", wanted(1, 9)), Progress(wanted(1, 9), 1, 9, 5)
    assert notes.read() is None
    notes.write(progress)
    notes.write(replace(progress, next_id=7))
    assert notes.read() == replace(progress, next_id=7)
    assert [path.name for path in notes.path.parent.iterdir()] == [notes.path.name]


def test_symbols_like_paths_stay_in_their_folder(tmp_path: Path) -> None:
    notes = ProgressFile(tmp_path, replace(wanted(1, 9), symbol="../../etc/passwd"))
    assert notes.path.parent == tmp_path


@pytest.mark.parametrize("content", ["", "{", "[]", '{"wanted":{}}', '{"wanted":null,"first_id":1}', "\x00"])
def test_a_file_nobody_here_wrote_is_damaged(content: str, tmp_path: Path) -> None:
    notes = ProgressFile(tmp_path, wanted(1, 9))
    notes.path.write_text(content)
    with pytest.raises(Damaged, match="Delete it to begin anew"):
        notes.read()


@pytest.mark.parametrize("change", [{"next_id": 99}, {"next_id": "5"}, {"end_id": None}, {"first_id": True}])
def test_a_progress_that_cannot_be_is_damaged(change: dict[str, object], tmp_path: Path) -> None:
    notes = ProgressFile(tmp_path, wanted(1, 9))
    notes.write(Progress(wanted(1, 9), 1, 9, 5))
    notes.path.write_text(json.dumps({**json.loads(notes.path.read_text()), **change}))
    with pytest.raises(Damaged):
        notes.read()


@pytest.mark.parametrize(
    ("stored", "holes"),
    [
        ([], []),
        ([5, 6, 90], ["7-29", "60-89"]),
        ([29, 60], []),
        ([40, 41], []),
        ([10], ["11-29"]),
    ],
)
def test_what_lies_between_a_backfill_and_its_neighbours_nobody_asked_for(stored: list[int], holes: list[str]) -> None:
    rows = beside(FEED, Progress(wanted(30, 60), 30, 60, 30), Intervals.of(np.array(stored, np.int64)), STAMP)
    assert [row.record["gap_id"].rpartition(":")[2] for row in rows] == holes
    assert {row.record["event"] for row in rows} <= {"not_collected"}
