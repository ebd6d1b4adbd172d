"""/v1/trades/recent over a real log: snapshot and tail are one, at any moment, and what is missing is said."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from k2_assets.engine import Engine, ingest_until_caught_up
from k2_core.contracts import TRADES
from k2_resources.clock import now
from k2_resources.embedded_broker import embedded_broker
from k2_resources.kafka import LogWriter
from k2_tests.api.homes import lake_of, serving, settings_of
from k2_tests.conftest import free_port
from k2_tests.stacks import TOPICS, Stack, stack
from k2_tests.ticks import FEEDS, encoded, trade

FEED = FEEDS["binance-trades"]
PATIENCE_SECONDS = 40.0
Client = httpx.Client


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, registry_url: str) -> Iterator[Stack]:
    """A stack for the tests of this file, each with a symbol of its own."""
    with stack(tmp_path_factory.mktemp("tail") / "a home", registry_url) as running:
        running.engine()  # makes the tables
        yield _unlimited(running)


def _unlimited(running: Stack) -> Stack:
    """The same stack for clients that ask more often than a key may."""
    own = running.settings.model_dump(include={"kafka_bootstrap", "registry_url"})
    return Stack(settings_of(running.settings.home, **own), running.opened)


def ago(seconds: float) -> datetime:
    return now() - timedelta(seconds=seconds)


def recent(client: Client, **question: Any) -> httpx.Response:
    asked = {"symbol": "BTCUSDT", "exchange": "BINANCE", "limit": 10_000, **question}
    answer = client.get("/v1/trades/recent", params=asked)
    assert answer.status_code == 200, answer.text
    return answer


def ids(answer: httpx.Response) -> list[int]:
    return [row["source_sequence"] for row in answer.json()["data"]]


def rows_as_sent(answer: httpx.Response) -> str:
    text: str = answer.text
    return text[text.index('"data":') : text.rindex('"pagination"')]


def wait_for(client: Client, is_so: Callable[[httpx.Response], bool], **question: Any) -> httpx.Response:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so(answer := recent(client, **question)):
        assert time.monotonic() < deadline, (answer.headers, answer.text[:500])
        time.sleep(0.05)
    return answer


def test_what_no_commit_holds_yet_is_answered_as_it_will_be_after_the_commit(here: Stack) -> None:
    at, engine = ago(60), here.engine()
    here.send(FEED, [trade(n, timestamp=at) for n in range(20)])
    ingest_until_caught_up(engine)
    version = engine.lake.head(TRADES).offsets.version
    awkward = {"vendor_data": {"k": 'quote " é 😀 \u0001', "a": ""}, "trade_conditions": ["5", 'q"\\']}
    here.send(FEED, [trade(n, timestamp=at + timedelta(microseconds=n), **awkward) for n in range(10, 30)])
    here.send(FEED, [trade(30, timestamp=at, price=Decimal(0)), trade(31, timestamp=at, symbol="ETHUSDT")])
    here.send(FEED, [trade(5, timestamp=at, price=Decimal("9999999999.99999999"), quality_flags=1)])
    with serving(here.settings) as client:
        before = wait_for(client, lambda answer: len(ids(answer)) == 30)
        committed = recent(client, source="lake")
        numbers = recent(client, decimals="number", limit=7)
        ranged = client.get("/v1/trades?symbol=BTCUSDT&limit=100&source=lake+tail")
        assert rows_as_sent(ranged) == rows_as_sent(before)
        assert (ranged.headers["K2-Source"], ranged.headers["Cache-Control"]) == ("lake+tail", "no-store")
        assert (before.headers["K2-Source"], committed.headers["K2-Source"]) == ("lake+tail", "lake")
        assert before.headers["K2-Snapshot-Id"] == committed.headers["K2-Snapshot-Id"]
        assert committed.headers["K2-Version"] == version
        assert sorted(ids(committed)) == list(range(20))
        assert sorted(ids(before)) == list(range(30))
        corrected = next(row for row in before.json()["data"] if row["source_sequence"] == 5)
        assert (corrected["revision"], corrected["price"]) == (1, "9999999999.99999999")
        ingest_until_caught_up(engine)
        after = recent(client, source="lake")
        assert rows_as_sent(after) == rows_as_sent(before)
        assert rows_as_sent(recent(client, source="lake", decimals="number", limit=7)) == rows_as_sent(numbers)
        assert after.headers["K2-Version"] == before.headers["K2-Version"] != version
        assert rows_as_sent(recent(client)) == rows_as_sent(before)


def test_the_answer_has_the_shape_old_clients_know_and_is_of_this_moment(here: Stack) -> None:
    at, asking = ago(60), {"symbol": "SHAPED"}
    here.send(FEED, [trade(n, timestamp=at, symbol="SHAPED") for n in range(5)])
    with serving(here.settings) as client:
        answer = wait_for(
            client, lambda answer: answer.json()["pagination"]["total"] == 5, limit=2, count=True, **asking
        )
        body, headers = answer.json(), answer.headers
        assert [row["source_sequence"] for row in body["data"]] == [4, 3]
        assert body["pagination"] == {"limit": 2, "offset": 0, "total": 5, "has_more": True, "next_cursor": None}
        query = body["meta"]["query"]
        assert (query["symbol"], query["exchange"], query["window_minutes"]) == ("SHAPED", "BINANCE", 15)
        window = datetime.fromisoformat(query["end_time"]) - datetime.fromisoformat(query["start_time"])
        assert window == timedelta(minutes=15)
        assert (headers["Cache-Control"], headers["K2-Tail-Lag-Records"]) == ("no-store", "0")
        assert not {"ETag", "K2-Tail-Reason", "Link"} & headers.keys()
        assert float(headers["K2-Tail-Lag-Seconds"]) < PATIENCE_SECONDS
        assert recent(client, exchange="ASX", **asking).json()["data"] == []
        assert recent(client, symbol="UNKNOWN").json()["data"] == []
        lines = recent(client, format="ndjson", limit=3, **asking).text.splitlines()
        assert [json.loads(line).get("source_sequence") for line in lines[:-1]] == [4, 3, 2]
        for wrong in ({"symbol": ""}, {"exchange": None}, {"window_minutes": 61}, {"limit": 0}, {"source": "tail"}):
            asked = {"symbol": "BTCUSDT", "exchange": "BINANCE", **wrong}
            refused = client.get("/v1/trades/recent", params={k: v for k, v in asked.items() if v is not None})
            assert (refused.status_code, refused.json()["code"]) == (422, "VALIDATION_ERROR")


def test_a_reader_polling_through_commits_and_a_restart_sees_every_id_once_and_in_order(here: Stack) -> None:
    told = _Telling(here, total=200)
    with told.going_on():
        for _ in range(2):  # two servers, one after the other
            with serving(here.settings) as client:
                goal = min(told.total, told.most_seen + told.total // 2)
                wait_for(client, lambda answer, goal=goal: told.check(answer) >= goal, symbol=told.symbol)
    with serving(here.settings) as client:
        wait_for(client, lambda answer: told.check(answer) == told.total, symbol=told.symbol)
        ingest_until_caught_up(told.engine)
        assert told.check(recent(client, source="lake", symbol=told.symbol)) == told.total
    assert told.commits > 3
    assert told.mixed > 3


class _Telling:
    """A feed that sends ids one after the other, some of them twice, while an ingest commits what is there."""

    symbol = "POLLED"

    def __init__(self, here: Stack, total: int) -> None:
        self.here, self.total, self.engine = here, total, here.engine()
        self.at = ago(600)
        self.most_seen = self.commits = self.mixed = 0
        self._over = threading.Event()
        self._failures: list[Exception] = []

    @contextmanager
    def going_on(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._guarded, args=(work,)) for work in (self._feed, self._ingest)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        assert self._failures == []

    def check(self, answer: httpx.Response) -> int:
        """How many ids are there: all from 0 on, newest first, none twice, and never fewer than before."""
        found = ids(answer)
        assert found == list(range(len(found)))[::-1], answer.headers
        assert len(found) >= self.most_seen, (answer.headers, len(found), self.most_seen)
        self.most_seen = len(found)
        self.mixed += answer.headers["K2-Source"] == "lake+tail" and "K2-Snapshot-Id" in answer.headers
        return self.most_seen

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._failures.append(error)

    def _feed(self) -> None:
        schema_id = self.here.register(FEED)
        with LogWriter(self.here.settings.bootstrap()) as writer:
            for first in range(0, self.total, 5):
                again = range(max(0, first - 40), first, 13)
                for n in (*range(first, first + 5), *again):
                    record = trade(n, timestamp=self.at + timedelta(milliseconds=n), symbol=self.symbol)
                    writer.send(FEED.topic, b"BINANCE.POLLED", encoded(record, TRADES, schema_id))
                writer.flush(30)
                if self._over.wait(0.05):
                    return

    def _ingest(self) -> None:
        while not self._over.wait(0.3):
            self.commits += len(ingest_until_caught_up(self.engine))


def test_without_a_log_the_lake_answers_alone_and_says_so(tmp_path: Path) -> None:
    with serving(settings_of(tmp_path)) as client:
        answer = recent(client)
        assert (answer.json()["data"], answer.headers["K2-Source"]) == ([], "lake")
        assert answer.headers["K2-Tail-Reason"] == "off"
    with serving(settings_of(tmp_path, tail_records_max=0)) as client:
        assert recent(client).headers["K2-Tail-Reason"] == "off"


def test_more_than_it_may_hold_leaves_the_lake_alone_until_that_has_caught_up(here: Stack) -> None:
    engine, asking = here.engine(), {"symbol": "MANY"}
    ingest_until_caught_up(engine)
    here.send(FEED, [trade(n, timestamp=ago(60), symbol="MANY") for n in range(50)])
    with serving(here.settings.model_copy(update={"tail_records_max": 40})) as client:
        answer = wait_for(client, lambda answer: answer.headers.get("K2-Tail-Reason") == "behind", **asking)
        assert (answer.headers["K2-Source"], answer.headers["K2-Tail-Lag-Records"], ids(answer)) == ("lake", "50", [])
        ingest_until_caught_up(engine)
        here.send(FEED, [trade(n, timestamp=ago(60), symbol="MANY") for n in range(50, 60)])
        assert sorted(ids(wait_for(client, lambda answer: len(ids(answer)) == 60, **asking))) == list(range(60))


class _Elsewhere:
    """A home whose stack is found through its endpoints file, as `k2 up` writes it."""

    def __init__(self, home: Path, registry_url: str, opened: ExitStack) -> None:
        self.settings, self.registry_url = settings_of(home), registry_url
        self._opened = opened
        self.settings.endpoints_file.parent.mkdir(parents=True)

    def find(self, bootstrap: str) -> None:
        self.settings.endpoints_file.write_text(json.dumps({"kafka": bootstrap, "registry": self.registry_url}))

    def stack(self) -> Stack:
        return Stack(self.settings, self._opened)

    def engine(self) -> Engine:
        return self.stack().engine()


def test_a_broker_that_dies_takes_nothing_away_and_one_made_anew_is_not_read(tmp_path: Path, registry_url: str) -> None:
    with ExitStack() as opened:
        home = _Elsewhere(tmp_path / "home", registry_url, opened)
        with embedded_broker(TOPICS) as bootstrap:
            home.find(bootstrap)
            home.stack().send(FEED, [trade(n, timestamp=ago(60)) for n in range(10)])
            ingest_until_caught_up(home.engine())
            home.stack().send(FEED, [trade(n, timestamp=ago(60)) for n in range(10, 20)])
            client = opened.enter_context(serving(home.settings))
            wait_for(client, lambda answer: len(ids(answer)) == 20)
        silent = wait_for(client, lambda answer: answer.headers.get("K2-Tail-Reason") == "unreachable")
        assert (silent.headers["K2-Source"], sorted(ids(silent))) == ("lake+tail", list(range(20)))
        with embedded_broker(TOPICS) as bootstrap:
            home.find(bootstrap)
            home.stack().send(FEED, [trade(n, timestamp=ago(60)) for n in range(100, 130)])
            halted = wait_for(client, lambda answer: answer.headers.get("K2-Tail-Reason") == "halted")
            assert sorted(ids(halted)) == list(range(20))
            assert float(halted.headers["K2-Tail-Lag-Seconds"]) > 0
            engine = home.engine()
            engine.adopt(TRADES, engine.topics(TRADES), run_id="test", who="a test", why="the broker is another one")
            wait_for(client, lambda answer: sorted(ids(answer)) == [*range(10), *range(100, 130)])
            ingest_until_caught_up(engine)
            assert sorted(ids(recent(client, source="lake"))) == [*range(10), *range(100, 130)]


def test_records_that_wait_for_a_schema_wait_here_too(tmp_path: Path, registry_url: str) -> None:
    with stack(tmp_path / "home", registry_url) as running:
        here, port = _unlimited(running), free_port()  # nobody listens there yet
        lake_of(here.settings)
        here.send(FEED, [trade(n, timestamp=ago(60)) for n in range(3)])
        lost = here.settings.model_copy(update={"registry_url": f"http://127.0.0.1:{port}"})
        with serving(lost) as client:
            answer = wait_for(client, lambda answer: answer.headers.get("K2-Tail-Reason") == "schema")
            assert (ids(answer), answer.headers["K2-Tail-Lag-Records"]) == ([], "3")
