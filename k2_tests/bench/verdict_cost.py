"""What the verdict costs: `python -m k2_tests.bench.verdict_cost [--rows N] [--json]`.

Clean new rows of the three rules, as the decoder hands them over: 100 symbols of Zipf popularity, 100,000 rows a
batch. Prints CPU seconds per million rows of each step from decoded rows to a balanced receipt, best of the rounds, and
as `again` what a batch costs that was stored before, the search in the table left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2_assets import batches
from k2_core.decode import Decoded
from k2_core.feeds import Feed
from k2_core.judge import decide
from k2_core.offsets import OffsetRange
from k2_core.records import Records
from k2_core.screen import screen
from k2_core.states import state_from, state_table
from k2_core.verdict import State, Verdict, Wanted
from k2_tests.bench.command import bench
from k2_tests.ticks import FEEDS

BATCH_ROWS = 100_000
SYMBOLS = 100
ZIPF = 1.1
"""The busiest of 100 symbols has a fifth of the rows, as on a spot exchange."""
ROUNDS = 3
FEED_NAMES = ("binance-trades", "binance-quotes", "asx-trades")
_START = datetime(2024, 8, 8, 1, tzinfo=UTC)
_TODAY = datetime(2024, 8, 9, tzinfo=UTC).date()
_MICROSECONDS_APART = 50

Columns = dict[str, pa.Array]
Ids = npt.NDArray[np.int64]
Steps = dict[str, float]


def run(rows: int = 1_000_000) -> dict[str, Any]:
    """CPU seconds per million rows: feed -> step -> cost, with the sum of the steps as `total`."""
    return {name: _best(_measure(FEEDS[name], rows) for _ in range(ROUNDS)) for name in FEED_NAMES}


def _best(rounds: Iterator[Steps]) -> Steps:
    return min(rounds, key=lambda steps: steps["total"])


def _measure(feed: Feed, rows: int) -> Steps:
    spent: Steps = {}
    state: State = {}
    stored = feed.table.arrow_schema().empty_table()
    count = max(1, rows // BATCH_ROWS)
    for decoded, records in _batches(feed, count):
        with _timed(spent, "read_state"):
            state = state_from(state_table(state))
        verdict = _judge(feed, decoded, records, state, lambda _: stored, spent)
        state = verdict.state
    steps = {name: round(cpu / (count * BATCH_ROWS) * 1e6, 4) for name, cpu in spent.items()}
    again: Steps = {}
    _judge(feed, decoded, records, state, lambda _: verdict.rows, again)
    repeated = round(sum(again.values()) / BATCH_ROWS * 1e6, 4)
    return {**steps, "total": round(sum(steps.values()), 4), "again": repeated}


def _judge(
    feed: Feed, decoded: Decoded, records: Records, state: State, stored: Callable[[Wanted], pa.Table], spent: Steps
) -> Verdict:
    with _timed(spent, "lineage"):
        rows = batches.with_lineage(decoded, records, epoch=0)
    with _timed(spent, "screen"):
        screened = screen(feed, rows, _TODAY)
    with _timed(spent, "decide_and_sort"):
        verdict = decide(feed, screened, state, stored)
    judged = batches.Judged(feed, records, decoded, screened, verdict, epoch=0)
    ranges = [OffsetRange(feed.topic, p, 0, BATCH_ROWS) for p in range(feed.kafka_partitions)]
    with _timed(spent, "receipt"):
        receipt = batches.receipt_for(
            feed.table, ranges, epochs={feed.topic: 0}, judged=[judged], run_id="bench", code_version="bench"
        )
    with _timed(spent, "dead_and_gaps"):
        batches.dead_letter_rows(feed.table, [judged])
        batches.gap_rows([judged])
    assert sum(r.written + r.duplicates for r in receipt.ranges) == BATCH_ROWS
    assert sum(r.written for r in receipt.ranges) == len(verdict.rows)
    return verdict


@contextmanager
def _timed(spent: Steps, step: str) -> Iterator[None]:
    start = time.process_time()
    yield
    spent[step] = spent.get(step, 0.0) + time.process_time() - start


def _batches(feed: Feed, count: int) -> Iterator[tuple[Decoded, Records]]:
    following = np.full(SYMBOLS, 3_700_000_000)
    shares = 1 / np.arange(1, SYMBOLS + 1) ** ZIPF
    schema = feed.table.arrow_schema(origins=("feed",))
    nothing: list[Any] = [None] * BATCH_ROWS
    for number in range(count):
        random = np.random.default_rng(number)
        which = random.choice(SYMBOLS, BATCH_ROWS, p=shares / shares.sum())
        ids = _ids(which, following) if feed.rule != "none" else None
        following = following + np.bincount(which, minlength=SYMBOLS)
        made = _columns(feed, which, ids, number, random)
        rows = pa.table([made[name].cast(schema.field(name).type) for name in schema.names], schema=schema)
        partitions = (which % feed.kafka_partitions).astype(np.int32)
        records = Records(feed.topic, partitions, np.arange(BATCH_ROWS), values=nothing, envelopes=[])
        yield Decoded(rows, np.arange(BATCH_ROWS), (), (1,)), records


def _ids(which: Ids, following: Ids) -> Ids:
    """Ids that rise by one within each symbol. following: the next id of each."""
    order = np.argsort(which, kind="stable")
    starts = np.searchsorted(which[order], np.arange(SYMBOLS))
    ids = np.empty(len(which), np.int64)
    ids[order] = np.arange(len(which)) - starts[which[order]]
    return ids + following[which]


def _columns(feed: Feed, which: Ids, ids: Ids | None, number: int, random: np.random.Generator) -> Columns:
    """Feed columns of one batch. which: the symbol of each row."""
    names = np.array([f"{'ABCDEFGHJK'[i % 10]}{i:02d}USDT" for i in range(SYMBOLS)])
    times = int(_START.timestamp()) * 1_000_000 + (number * BATCH_ROWS + np.arange(BATCH_ROWS)) * _MICROSECONDS_APART
    tails = [str(i) for i in ids] if ids is not None else _file_keys(feed, times)
    keys = [f"{feed.exchange}:{names[w]}:{feed.kind}:{tail}" for w, tail in zip(which, tails, strict=True)]
    values = {n: _decimals(random) for n in ("price", "quantity", "bid_price", "bid_quantity")}
    return {
        "message_id": pa.array(keys),
        f"{feed.kind}_id": pa.array([f"{feed.exchange}-{tail}" for tail in tails]),
        "symbol": pa.array(names[which]),
        "exchange": pa.repeat(feed.exchange, BATCH_ROWS),
        "asset_class": pa.repeat(feed.asset_class, BATCH_ROWS),
        "currency": pa.repeat("USDT", BATCH_ROWS),
        "timestamp": pa.array(times, pa.timestamp("us", "UTC")),
        **values,
        "ask_price": values["bid_price"],
        "ask_quantity": values["bid_quantity"],
        "side": pa.array(np.array(["BUY", "SELL"])[random.integers(0, 2, BATCH_ROWS)]),
        "trade_conditions": pa.array([["5"] if feed.rule == "none" else []] * BATCH_ROWS, pa.list_(pa.string())),
        "source_sequence": pa.nulls(BATCH_ROWS, pa.int64()) if ids is None else pa.array(ids),
        "platform_sequence": pa.array(np.arange(BATCH_ROWS)) if ids is None else pa.nulls(BATCH_ROWS, pa.int64()),
        "ingestion_timestamp": pa.array(times + 1_000, pa.timestamp("us", "UTC")),
        "vendor_data": pa.nulls(BATCH_ROWS, pa.map_(pa.string(), pa.string())),
        "quality_flags": pa.array(np.zeros(BATCH_ROWS, np.int32)),
    }


def _file_keys(feed: Feed, times: Ids) -> list[str]:
    day = datetime.fromtimestamp(times[0] / 1e6, ZoneInfo(feed.timezone)).date()
    return [f"{day}:{us / 1e6:.6f}:36.55:400:5:0" for us in (times % 86_400_000_000).tolist()]


def _decimals(random: np.random.Generator) -> pa.Array:
    cents = pa.array(random.integers(1, 10**9, BATCH_ROWS)).cast(pa.decimal128(19, 0))
    return cents.cast(pa.decimal128(36, 8)).cast(pa.decimal128(18, 8))


def table(result: Mapping[str, Steps]) -> str:
    """The figures as a table of Markdown, CPU seconds per million rows."""
    steps = list(next(iter(result.values())))
    rows = [f"| {feed} | " + " | ".join(f"{cost[s]:.2f}" for s in steps) + " |" for feed, cost in result.items()]
    return "\n".join([f"| feed | {' | '.join(steps)} |", "|---" * (len(steps) + 1) + "|", *rows])


if __name__ == "__main__":
    bench(__doc__, run, table, rows=1_000_000)
