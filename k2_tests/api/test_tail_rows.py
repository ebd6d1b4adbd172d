"""What the tail holds beside a snapshot is what the commits after it store: row for row, wherever anybody cuts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_api.tail_rows import TailRows, TailView
from k2_assets.desk import Desk
from k2_core.contracts import CONTRACT_VERSION, TRADES
from k2_core.decode import Dead, Decoded
from k2_core.feeds import Feed
from k2_core.keys import paused_key, topic_key
from k2_core.offsets import OffsetRange
from k2_core.poison import DEAD_MIN
from k2_core.protocol.planning import Registered
from k2_core.protocol.ports import Change
from k2_core.quality import Reason
from k2_core.receipts import RangeCount, Receipt
from k2_core.records import Envelope, Incarnation, LogBatch, Records
from k2_resources.decoders import Decoding
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake
from k2_resources.lake.uncommitted import base_of
from k2_resources.settings import Settings
from k2_tests.lakes import commit
from k2_tests.ticks import FEEDS, NOON, asx_trade, table_of, trade

BINANCE, ASX = FEEDS["binance-trades"], FEEDS["asx-trades"]
PARTITIONS = 2
UNDER = Registered(0, Incarnation("cluster", "topic"))
BROKEN = None
"""A record that cannot be decoded."""

Sent = Mapping[str, Any] | None


class Story:
    """A log of one topic, the table its commits fill, and the tail past it."""

    def __init__(self, home: Path, feed: Feed, logs: Sequence[Sequence[Sent]]) -> None:
        self.feed, self.logs = feed, logs
        self.settings = Settings(home=home / "home")
        self.settings.home.mkdir()
        (home / "scratch").mkdir()
        self.lake = Lake(self.settings.catalog(), self.settings.warehouse_path())
        self.lake.ensure([TRADES])
        self.desk = Desk({feed.topic: feed}, None, reach, "test")  # type: ignore[arg-type]  # nothing is decoded here
        self.committed = [0] * PARTITIONS
        self.read = [0] * PARTITIONS
        self.tail = TailRows(TRADES, [feed], base_of(self.lake, TRADES), home / "scratch")
        self.tail.begin({feed.topic: UNDER}, {(feed.topic, p): 0 for p in range(PARTITIONS)})
        self.register()

    def register(self) -> None:
        counts = tuple(RangeCount(self.feed.topic, 0, p, 0, 0) for p in range(PARTITIONS))
        receipt = Receipt(TRADES.name, "register", "run", "0", CONTRACT_VERSION, counts)
        self.change(Change(receipt, properties={topic_key(self.feed.topic): UNDER.to_json()}))

    def change(self, change: Change) -> None:
        commit(self.lake, self.lake.head(TRADES), change)

    def arrived(self, starts: Sequence[int], ends: Sequence[int]) -> Decoding:
        """The records between, partition by partition, as a reader and a decoder hand them over."""
        places = [(p, o) for p in range(PARTITIONS) for o in range(starts[p], ends[p])]
        sent = [self.logs[p][o] for p, o in places]
        good = np.array([i for i, record in enumerate(sent) if record is not BROKEN], np.int64)
        rows = table_of(self.feed, [record for record in sent if record is not BROKEN])
        dead = tuple(Dead(i, Reason.EMPTY, "no bytes") for i, record in enumerate(sent) if record is BROKEN)
        decoded = Decoded(rows.select(_feed_columns()), good, dead, (1,))
        records = Records(
            self.feed.topic,
            np.array([p for p, _ in places], np.int32),
            np.array([o for _, o in places], np.int64),
            [b""] * len(places),
            [Envelope(None, (), -1)] * len(places),
        )
        moved = (p for p in range(PARTITIONS) if starts[p] < ends[p])
        ranges = tuple(OffsetRange(self.feed.topic, p, starts[p], ends[p]) for p in moved)
        return Decoding(LogBatch(ranges, (records,) if places else ()), (decoded,) if places else ())

    def ingest(self, ends: Sequence[int]) -> None:
        """Commit the records up to there, as a run would."""
        arrived = self.arrived(self.committed, ends)
        if arrived.ranges:
            self.change(self.desk.judge(self.lake.head(TRADES), arrived, {self.feed.topic: 0}, "run"))
            self.committed = list(ends)

    def follow(self, ends: Sequence[int]) -> None:
        """Let the tail read up to there."""
        arrived = self.arrived(self.read, ends)
        self.tail.take(arrived.ranges, zip(arrived.batch.records, arrived.decoded, strict=True))
        self.read = list(ends)

    def go_over(self) -> None:
        self.tail.rebase(base_of(self.lake, TRADES))
        self.read = [self.tail.ends[self.feed.topic, p].next for p in range(PARTITIONS)]

    def lake_rows(self, snapshot_id: int | None) -> list[dict[str, Any]]:
        if snapshot_id is None:
            return []
        found: list[dict[str, Any]] = self.lake.load(TRADES).scan(snapshot_id=snapshot_id).to_arrow().to_pylist()
        return found

    def union(self) -> list[dict[str, Any]]:
        view = self.tail.view()
        return in_log_order(self.lake_rows(view.snapshot_id) + rows_of(view))


def _feed_columns() -> list[str]:
    return [column.name for column in TRADES.feed_columns]


def rows_of(view: TailView) -> list[dict[str, Any]]:
    return [row for file in view.files for row in pq.read_table(file.path).to_pylist()]


def in_log_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["kafka_partition"], row["kafka_offset"]))


@contextmanager
def story(feed: Feed, logs: Sequence[Sequence[Sent]]) -> Iterator[Story]:
    home = Path(tempfile.mkdtemp())
    try:
        yield Story(home, feed, logs)
    finally:
        shutil.rmtree(home)


def binance(symbol: str, number: int, kind: str) -> Sent:
    """A trade; other content under its id; one of another hour with a low id; one that breaks a rule; or no record."""
    later = {"begins_anew": {"timestamp": NOON + timedelta(hours=3, milliseconds=number)}}
    changes = {"corrected": {"price": Decimal(5)}, "bad": {"price": Decimal(0)}, **later}
    return BROKEN if kind == "broken" else trade(number, symbol=symbol, **changes.get(kind, {}))


def asx(symbol: str, number: int, kind: str) -> Sent:
    changes = {"corrected": {"quantity": Decimal(7)}, "bad": {"quantity": Decimal(0)}}.get(kind, {})
    return BROKEN if kind == "broken" else asx_trade(f"{36_000 + number}.5", **changes)


MAKERS = {BINANCE.name: (BINANCE, binance), ASX.name: (ASX, asx)}
KINDS = st.sampled_from(["plain", "plain", "plain", "plain", "corrected", "begins_anew", "bad", "broken"])


@st.composite
def tales(draw: st.DrawFn) -> tuple[str, list[list[Sent]], list[tuple[str, list[float]]]]:
    """A feed, two partitions of records with few ids, and what happens in between: reads, commits, going over."""
    name = draw(st.sampled_from(sorted(MAKERS)))
    make = MAKERS[name][1]
    entries = st.lists(st.tuples(st.integers(1, 12), KINDS), max_size=14)
    logs = [[make(symbol, *entry) for entry in draw(entries)] for symbol in ("BTCUSDT", "ETHUSDT")]
    if name == ASX.name:  # one symbol: only one of the partitions may hold it
        logs[1] = []
    step = st.tuples(
        st.sampled_from(["follow", "follow", "ingest", "go_over"]), st.lists(st.floats(0, 1), min_size=2, max_size=2)
    )
    return name, logs, draw(st.lists(step, min_size=2, max_size=9))


@settings(max_examples=10)
@given(tales())
def test_snapshot_and_tail_are_at_any_moment_what_the_table_will_hold_up_to_there(tale: Any) -> None:
    name, logs, steps = tale
    with story(MAKERS[name][0], logs) as told:
        seen: list[tuple[list[int], list[dict[str, Any]]]] = []
        for what, shares in [*steps, ("go_over", [0, 0])]:
            at = told.committed if what == "ingest" else told.read
            ends = [a + round(share * (len(log) - a)) for a, share, log in zip(at, shares, logs, strict=True)]
            told.go_over() if what == "go_over" else getattr(told, what)(ends)
            seen.append(([told.tail.ends[told.feed.topic, p].next for p in range(PARTITIONS)], told.union()))
        told.ingest([len(log) for log in logs])
        told.go_over()
        final = told.union()
        assert told.tail.view().files == ()
        for ends, rows in seen:
            assert rows == [row for row in final if row["kafka_offset"] < ends[row["kafka_partition"]]]


def test_a_commit_that_overtook_the_reader_moves_it_on() -> None:
    with story(BINANCE, [[trade(n) for n in range(10)], []]) as told:
        told.follow([3, 0])
        told.ingest([8, 0])
        told.go_over()
        assert told.tail.ends[BINANCE.topic, 0].next == 8
        assert told.tail.view().files == ()
        told.follow([10, 0])
        assert [row["source_sequence"] for row in rows_of(told.tail.view())] == [8, 9]


def test_a_view_stays_as_it_is_and_its_files_go_with_it() -> None:
    with story(BINANCE, [[trade(n) for n in range(10)], []]) as told:
        told.follow([6, 0])
        told.ingest([4, 0])
        view = told.tail.view()
        told.go_over()
        assert (view.snapshot_id, len(rows_of(view))) == (None, 6)
        assert view.continues(view.table_uuid, told.lake.head(TRADES).offsets)
        told.ingest([10, 0])
        assert not view.continues(view.table_uuid, told.lake.head(TRADES).offsets)
        path = Path(view.files[0].path)
        del view
        assert not path.exists()


def test_many_small_batches_make_few_files() -> None:
    with story(BINANCE, [[trade(n) for n in range(60)], []]) as told:
        for end in range(1, 61):
            told.follow([end, 0])
        view = told.tail.view()
        assert len(view.files) <= 8
        assert sorted(row["source_sequence"] for row in rows_of(view)) == list(range(60))
        assert told.tail.held == 60


def test_a_paused_partition_is_let_go_of_and_the_other_stays() -> None:
    with story(BINANCE, [[trade(n) for n in range(5)], [trade(n, symbol="ETHUSDT") for n in range(5)]]) as told:
        told.follow([5, 5])
        receipt = Receipt(TRADES.name, "maintenance", "run", "0", CONTRACT_VERSION, ())
        told.change(Change(receipt, properties={paused_key(BINANCE.topic, 0): "a test"}))
        told.tail.rebase(base_of(told.lake, TRADES))
        assert {row["symbol"] for row in rows_of(told.tail.view())} == {"ETHUSDT"}
        assert list(told.tail.ends) == [(BINANCE.topic, 1)]


def test_a_topic_adopted_anew_is_let_go_of() -> None:
    with story(BINANCE, [[trade(n) for n in range(5)], []]) as told:
        told.follow([5, 0])
        receipt = Receipt(TRADES.name, "adopt", "run", "0", CONTRACT_VERSION, (RangeCount(BINANCE.topic, 1, 0, 0, 0),))
        adopted = Registered(1, Incarnation("cluster", "another topic"))
        told.change(Change(receipt, properties={topic_key(BINANCE.topic): adopted.to_json()}))
        told.tail.rebase(base_of(told.lake, TRADES))
        assert (told.tail.ends, told.tail.view().files) == ({}, ())


def test_what_follows_a_flood_of_letters_is_not_held_since_ingest_will_pause_there() -> None:
    flood = [BROKEN] * DEAD_MIN
    with story(BINANCE, [[*flood, trade(1)], [trade(2, symbol="ETHUSDT")]]) as told:
        told.follow([DEAD_MIN, 0])
        assert told.tail.stuck == {(BINANCE.topic, 0)}
        told.follow([DEAD_MIN + 1, 1])
        assert [row["symbol"] for row in rows_of(told.tail.view())] == ["ETHUSDT"]
        assert told.tail.ends[BINANCE.topic, 0].next == DEAD_MIN


@pytest.mark.parametrize("day", ["2024-08-08", "2024-08-09"])
def test_every_exchange_date_has_a_file_of_its_own_with_its_bounds(day: str) -> None:
    late = {"timestamp": NOON + timedelta(days=1)}
    with story(BINANCE, [[trade(1), trade(2, **late), trade(3, price=Decimal(1), symbol="AB")], []]) as told:
        told.follow([3, 0])
        file = next(f for f in told.tail.view().files if str(f.exchange_date) == day)
        held = pq.read_table(file.path)
        assert file.rows == len(held)
        assert (file.timestamp_min, file.timestamp_max) == tuple(_bounds(held["timestamp"]))
        assert (file.symbol_min, file.symbol_max) == tuple(_bounds(held["symbol"]))


def _bounds(column: pa.ChunkedArray) -> list[Any]:
    values = column.to_pylist()
    return [min(values), max(values)]
