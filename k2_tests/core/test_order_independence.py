"""What the verdict owes to the order of deliveries, and what it does not: see `k2_core.numberings`."""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_core.feeds import Feed
from k2_core.judge import decide
from k2_core.screen import screen
from k2_core.states import state_from, state_table
from k2_core.verdict import DUPLICATE, REVISION, WRITTEN, State, Wanted
from k2_tests.ticks import FEEDS, NOON, asx_trade, quote, table_of, trade

TODAY = date(2026, 11, 21)
TRADES_FEED, QUOTES_FEED, ASX_FEED = FEEDS["binance-trades"], FEEDS["binance-quotes"], FEEDS["asx-trades"]
RULES = pytest.mark.parametrize("feed", [TRADES_FEED, QUOTES_FEED, ASX_FEED], ids=["contiguous", "monotonic", "none"])
NUMBERED = pytest.mark.parametrize("feed", [TRADES_FEED, QUOTES_FEED], ids=["contiguous", "monotonic"])
HOUR = timedelta(hours=1)
EXAMPLES = int(os.environ.get("K2_TEST_EXAMPLES", "30"))
"""Of each property and rule; `make torture` asks for thousands."""
Record = dict[str, Any]


class Lake:
    """What one feed has stored, in memory, and searched as a table is: by the bounds asked for, and no further."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.state: State = {}
        self.rows = feed.table.arrow_schema().empty_table()
        self.gaps: dict[str, str] = {}
        self.read, self.counts, self.dead = 0, np.zeros(3, int), 0

    def feed_in(self, rows: pa.Table) -> None:
        """One batch; the state goes through its file form."""
        screened = screen(self.feed, rows, TODAY)
        verdict = decide(self.feed, screened, self.state, self.find)
        self.state = state_from(state_table(verdict.state))
        self.rows = pa.concat_tables([self.rows, verdict.rows])
        self.gaps.update((event.gap_id, event.state) for event in verdict.gaps)
        self.read += len(rows)
        self.counts += np.bincount(verdict.outcome, minlength=3)
        self.dead += len(screened.dead)
        assert len(verdict.rows) == (verdict.outcome != DUPLICATE).sum()

    def find(self, wanted: Wanted) -> pa.Table:
        kept = pc.and_(
            pc.is_in(self.rows["message_id"], wanted.message_ids),
            pc.is_in(self.rows["symbol"], pa.array(wanted.symbols, pa.string())),
        )
        if wanted.dates is not None:
            kept = pc.and_(kept, pc.is_in(self.rows["exchange_date"], pa.array(wanted.dates, pa.date32())))
        if wanted.times is not None:
            first, last = (pa.scalar(t, self.rows["timestamp"].type) for t in wanted.times)
            at = self.rows["timestamp"]
            kept = pc.and_(kept, pc.and_(pc.greater_equal(at, first), pc.less_equal(at, last)))
        return self.rows.filter(kept)

    @cached_property
    def stored(self) -> list[tuple[Any, ...]]:
        columns = ["message_id", "revision", *self.feed.table.content]
        return sorted(tuple(map(str, row.values())) for row in self.rows.select(columns).to_pylist())

    @property
    def open_gaps(self) -> list[str]:
        return sorted(gap for gap, state in self.gaps.items() if state == "open")

    @property
    def is_balanced(self) -> bool:
        rows = len(self.rows) == self.counts[WRITTEN] + self.counts[REVISION]
        return bool(rows and self.read == self.counts.sum() + self.dead)


def delivered(feed: Feed, rows: pa.Table, batches: Iterable[Sequence[int]]) -> Lake:
    lake = Lake(feed)
    for batch in batches:
        lake.feed_in(rows.take(pa.array(batch, pa.int64())))
    assert lake.is_balanced
    if feed.rule == "contiguous":
        account_for_every_id(lake, rows)
    return lake


def account_for_every_id(lake: Lake, rows: pa.Table) -> None:
    """Every id missing between two stored ones of its numbering is in an open gap or dead; no stored id is in one."""
    told: dict[str, list[int]] = {}
    for key in set(lake.rows["message_id"].to_pylist()):
        _, symbol, _, tail = key.split(":")
        number, _, session = tail.partition("~")
        told.setdefault(f"{symbol}:{session or 0}", []).append(int(number))
    dies = pc.or_(pc.equal(rows["asset_class"], DIES["asset_class"]), pc.equal(pc.year(rows["timestamp"]), 2031))
    dead = set(rows["source_sequence"].filter(dies).to_pylist())
    holes: dict[str, list[range]] = {}
    for gap in lake.open_gaps:
        _, scope, hole = re.fullmatch(r"([^:]+):(.+):(\d+-\d+)", gap).groups()
        first, last = map(int, hole.split("-"))
        holes.setdefault(scope, []).append(range(first, last + 1))
    for scope, numbers in told.items():
        ids, missing = sorted(numbers), holes.get(scope, [])
        assert not any(number in hole for number in ids for hole in missing)
        for low, high in itertools.pairwise(ids):
            open_ids = sum(len(hole) for hole in missing if low < hole.start <= hole.stop <= high)
            assert high - low - 1 - open_ids <= sum(low < number < high for number in dead)


def same(one: Lake, other: Lake) -> None:
    assert one.stored == other.stored
    assert one.open_gaps == other.open_gaps
    if one.feed.rule == "contiguous":  # of a monotonic feed a cover is kept, which only bounds what is looked up
        assert one.state == other.state


def cut(places: Sequence[int], chance: random.Random) -> list[list[int]]:
    """Split deliveries into batches anywhere."""
    edges = sorted(chance.sample(range(len(places) + 1), min(len(places), chance.randint(0, 4))))
    bounds = zip([0, *edges], [*edges, len(places)], strict=True)
    return [list(places[a:b]) for a, b in bounds]


def stated(feed: Feed, number: int, symbol: str, value: int, at: timedelta) -> Record:
    """One record of a feed: an id, something to correct, an event time."""
    when = {"timestamp": NOON + at, "ingestion_timestamp": NOON + at}
    if feed is ASX_FEED:
        second, side = str(36000 + number % 3600), ["BUY", "SELL", "UNKNOWN"][value % 3]
        return asx_trade(second, len(symbol), side=side)
    made, value_column = (quote, "bid_price") if feed is QUOTES_FEED else (trade, "price")
    key = {"message_id": f"BINANCE:{symbol}:{feed.kind}:{number}", "source_sequence": number, "symbol": symbol}
    return made(0, **{**key, value_column: Decimal(value), **when})


JUMPS = (timedelta(0), timedelta(minutes=59), HOUR, HOUR + timedelta(milliseconds=1), timedelta(hours=3))
DIES: Record = {"asset_class": "options"}
"""Breaks a hard rule and says nothing else wrong: its id is accounted for."""
SAYS_NOTHING: tuple[Record, ...] = ({"exchange": "EVIL"}, {"message_id": "x"})


@st.composite
def streams(draw: st.DrawFn, feed: Feed) -> list[Record]:
    """Anything a broken feed may send: ids that begin anew, late rows, corrections, dead letters, stray ids and times.

    Ids mostly rise; a step may jump in time or back in id, and every record may be touched by a defect.
    """
    chance = draw(st.randoms(use_true_random=False))
    clock, number, records = timedelta(0), chance.randint(0, 30), []
    for _ in range(chance.randint(1, 28)):
        jump = chance.random() < 0.25
        clock += chance.choice(JUMPS) if jump else timedelta(microseconds=chance.choice((1, 999, 5000)))
        anew = chance.random() < (0.5 if jump else 0.05)
        number = chance.randint(0, 3) if anew else number + chance.choice((1, 1, 1, 2, 4))
        records.append(broken(feed, number, clock, chance))
        if chance.random() < 0.2:
            earlier = chance.choice(records)
            records.append({**earlier, **touched(feed, chance)})
    for _ in range(chance.randint(0, 6)):
        records.insert(chance.randrange(len(records)), records.pop(chance.randrange(len(records))))
    return records


def broken(feed: Feed, number: int, clock: timedelta, chance: random.Random) -> Record:
    """A record as it should be, mostly; else with a stray id, a stray time, or one that no rule lets pass."""
    symbol = chance.choice(("BTCUSDT", "BTCUSDT", "ETHUSDT", "BNB"))
    stray = chance.random()
    if stray < 0.04:
        number = chance.choice((2**62, 2**63 - 1, 10**9))
    elif stray < 0.08:
        clock += timedelta(days=chance.choice((-400, -1, 1, 300)))
    changes: Record = {}
    if stray > 0.82:
        changes = DIES if stray > 0.86 else chance.choice((*SAYS_NOTHING, {"timestamp": NOON.replace(year=2031)}))
    return {**stated(feed, number, symbol, chance.randint(1, 3), clock), **changes}


def touched(feed: Feed, chance: random.Random) -> Record:
    """A later statement of the same record: other content, another time unit, another time."""
    if feed is ASX_FEED:
        moved = asx_trade(str(36000 + chance.randint(0, 9)), 0)["timestamp"]
        return chance.choice(({"side": chance.choice(("BUY", "SELL"))}, {"timestamp": moved}))
    price = "price" if feed is TRADES_FEED else "bid_price"
    moved = NOON + timedelta(microseconds=chance.choice((0, 250, 1000, 5000)), days=chance.choice((0, 0, 2)))
    return chance.choice(({price: Decimal(chance.randint(1, 3))}, {"timestamp": moved}))


@RULES
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), chance=st.randoms(use_true_random=False))
def test_deliveries_again_and_other_batches_end_in_the_same_rows_revisions_and_gaps(feed, data, chance):
    rows = table_of(feed, data.draw(streams(feed)))
    once = list(range(len(rows)))
    reference = delivered(feed, rows, [once])
    same(delivered(feed, rows, cut(once, chance)), reference)
    same(delivered(feed, rows, [once, once]), reference)
    again = chance.choices(once, k=2 * len(once))
    same(delivered(feed, rows, [once, *cut(again, chance)]), reference)
    same(delivered(feed, rows, cut(with_repeats(once, chance), chance)), reference)


def with_repeats(once: list[int], chance: random.Random) -> list[int]:
    """First deliveries in their order, with deliveries again of what came before in between."""
    return [at for first in once for at in (first, *chance.choices(range(first + 1), k=chance.choice((0, 1, 2))))]


@st.composite
def numberings(draw: st.DrawFn, feed: Feed) -> list[list[Record]]:
    """Numberings as a sound source makes them: ids rise with event time, hours lie between; a few dead letters."""
    chance = draw(st.randoms(use_true_random=False))
    clock, made = timedelta(0), []
    for highest in [chance.randint(60, 90), chance.randint(20, 29), 9][: chance.randint(1, 3)]:
        ids = sorted(chance.sample(range(highest), chance.randint(3, 9)))
        records = []
        for number in [*ids, highest]:
            clock += timedelta(milliseconds=chance.randint(1, 900))
            dies = 2 < len(records) < len(ids) and chance.random() < 0.3
            records.append({**stated(feed, number, "BTCUSDT", 1, clock), **(DIES if dies else {})})
        made.append(records)
        clock += HOUR + timedelta(minutes=chance.randint(1, 600))
    return made


@NUMBERED
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), chance=st.randoms(use_true_random=False))
def test_first_deliveries_of_a_sound_source_may_come_in_any_order_once_each_numbering_has_begun(feed, data, chance):
    made = data.draw(numberings(feed))
    records = [record for numbering in made for record in numbering]
    rows = table_of(feed, records)
    reference = delivered(feed, rows, [list(range(len(rows)))])
    assert len({row[0].partition("~")[2] for row in reference.stored}) == len(made)
    same(delivered(feed, rows, cut(any_order(made, chance), chance)), reference)


def any_order(made: list[list[Record]], chance: random.Random) -> list[int]:
    """A random order in which the first two of each numbering come after the last of the one before, and open it."""
    waiting: list[tuple[int, set[int]]] = []
    at = 0
    for before, numbering in zip([[], *made], made, strict=False):
        opening = {at, at + 1} if before else set()
        for place in range(at, at + len(numbering)):
            waiting.append((place, {at - 1} if place in opening else opening))
        at += len(numbering)
    order: list[int] = []
    while waiting:
        ready = [entry for entry in waiting if entry[1] <= set(order)]
        waiting.remove(entry := chance.choice(ready))
        order.append(entry[0])
    return order
