"""The checker is checked: what is lost, doubled, altered or made up in a lake must not pass it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from k2_core.contracts import GAPS, TRADES
from k2_core.offsets import Offsets, Position
from k2_resources.lake.catalog import Lake
from k2_resources.lake.verify import verify
from k2_tests.crash.checker import check, prove_exactly_once
from k2_tests.crash.ledger import Ledger, Place, Told, row, sha256
from k2_tests.lakes import TOPIC, Batch, collect, new_lake, put, register, rewrite
from k2_tests.ticks import FEEDS, encoded, trade

JUNK = Told(sha256(b"junk"))


def sent(*trades: dict[str, Any]) -> list[Told]:
    return [row(TRADES, t, encoded(t)) for t in trades]


def ledger_of(records: Iterable[Told], epoch: int = 0) -> Ledger:
    """A ledger whose records have consecutive offsets from 0."""
    return Ledger(epoch, {(TOPIC, epoch, 0, offset): told for offset, told in enumerate(records)})


@dataclass
class Case:
    """A lake of two batches, trades 1, 2, 5 and a letter, then 6 and a letter; and what its producer was told."""

    lake: Lake
    ledger: Ledger

    def findings(self, before: Offsets | None = None) -> tuple[str, ...]:
        return check(self.lake, TRADES, FEEDS.values(), self.ledger, before).findings

    def says(self, *words: str) -> None:
        found = self.findings()
        assert all(any(word in finding for finding in found) for word in words), found


@pytest.fixture
def case(tmp_path) -> Case:
    lake = new_lake(tmp_path / "home")
    register(lake)
    put(lake, Batch([1, 2, 5], letters=[b"junk"], gaps=[(3, 4)]))
    put(lake, Batch([6], letters=[b"junk"]))
    collect(lake, TRADES)
    return Case(lake, ledger_of([*sent(trade(1), trade(2), trade(5)), JUNK, *sent(trade(6)), JUNK]))


def test_a_healthy_lake_passes_and_is_counted(case):
    checked = prove_exactly_once(case.lake, TRADES, FEEDS.values(), case.ledger)
    assert (checked.rows, checked.letters, checked.duplicates, checked.told_lost) == (4, 2, 0, 0)
    assert checked.offsets.positions == {(TOPIC, 0): Position(0, 6)}


def test_a_row_that_is_gone(case):
    case.lake.load(TRADES).delete("source_sequence == 2")
    case.says("lost: content not stored: 1, such as ['BINANCE:BTCUSDT:trade:2']")


def test_a_row_that_is_there_twice(case):
    loaded = case.lake.load(TRADES)
    loaded.append(loaded.scan("source_sequence == 2").to_arrow())
    case.says("doubled: stored more than once: 1", "doubled: content stored again", "revisions do not count from 0")


def test_a_row_that_says_something_else(case):
    loaded = case.lake.load(TRADES)
    rows = loaded.scan().to_arrow().to_pylist()
    rows[0]["price"] += Decimal(1)
    loaded.overwrite(pa.Table.from_pylist(rows, schema=TRADES.arrow_schema()))
    case.says("altered: row differs from its record: 1")


def test_a_letter_that_is_gone_or_says_something_else(case):
    from k2_core.contracts import DEAD_LETTERS

    rewrite(case.lake, DEAD_LETTERS, lambda letters: letters[0].update(value=b"other"))
    case.says("altered: letter differs: 1")
    rewrite(case.lake, DEAD_LETTERS, lambda letters: letters.pop())
    case.says("lost: no dead letter: 1")


def test_a_gap_nobody_told(case):
    rewrite(case.lake, GAPS, lambda events: events.clear())
    case.says("[('BTCUSDT', 3, 4)] are not told")


def test_a_sidecar_that_was_never_collected(case):
    put(case.lake, Batch([7], letters=[b"junk"]))
    case.ledger.acknowledged |= {(TOPIC, 0, 0, 6): sent(trade(7))[0], (TOPIC, 0, 0, 7): JUNK}
    case.says("audit.receipts is at 3, market_data.trades at 4", "audit.dead_letters lacks the sidecars of receipts")


def test_offsets_that_went_back(case):
    before = Offsets({(TOPIC, 0): Position(0, 7), (TOPIC, 1): Position(0, 0)})
    assert any("offsets went back: 2" in finding for finding in case.findings(before))
    assert case.findings(Offsets({(TOPIC, 0): Position(0, 6)})) == ()


class TestWhatReceiptsAgreeOn:
    """Lakes that prove themselves: nothing but the producer's own ledger can tell."""

    def test_a_record_never_read(self, case):
        case.ledger.acknowledged[TOPIC, 0, 0, 6] = sent(trade(7))[0]
        assert verify(case.lake, TRADES).findings == ()
        case.says("lost: acknowledged and never read: 1", "lost: content not stored: 1")

    def test_a_record_counted_as_a_repetition_of_nothing(self, case):
        put(case.lake, Batch([7], counts={"end": 8, "read": 2, "duplicates": 1}))
        collect(case.lake, TRADES)
        case.ledger.acknowledged |= {(TOPIC, 0, 0, 6 + i): told for i, told in enumerate(sent(trade(7), trade(8)))}
        assert verify(case.lake, TRADES).findings == ()
        case.says("lost: content not stored: 1, such as ['BINANCE:BTCUSDT:trade:8']")

    def test_other_content_than_was_sent(self, case):
        case.ledger.acknowledged[TOPIC, 0, 0, 1] = sent(trade(2, price=Decimal(1)))[0]
        assert verify(case.lake, TRADES).findings == ()
        case.says("altered: row differs", "lost: content not stored", "foreign: content nobody sent")

    def test_a_row_nobody_sent(self, case):
        del case.ledger.acknowledged[TOPIC, 0, 0, 4]
        assert verify(case.lake, TRADES).findings == ()
        case.says("foreign: stored, but nobody is owed it: 1", "foreign: content nobody sent")

    def test_a_good_record_that_died(self, case):
        case.ledger.acknowledged[TOPIC, 0, 0, 3] = sent(trade(3))[0]
        case.says("dead though it is a record: 1", "altered: letter differs: 1", "lost: content not stored: 1")

    def test_records_in_two_places_of_each_other(self, case):
        first, second = (TOPIC, 0, 0, 0), (TOPIC, 0, 0, 1)
        told = case.ledger.acknowledged
        told[first], told[second] = told[second], told[first]
        assert verify(case.lake, TRADES).findings == ()
        case.says("altered: row differs from its record: 2")


def test_what_a_killed_broker_took_along_is_told_lost_and_nothing_else_is(case):
    place: Place = (TOPIC, 0, 0, 6)
    case.ledger.acknowledged[place] = sent(trade(7))[0]
    case.ledger.epoch = 1
    checked = check(case.lake, TRADES, FEEDS.values(), case.ledger)
    assert (checked.findings, checked.told_lost) == ((), 1)


def test_a_record_whose_answer_was_lost_may_be_there_or_not(case):
    told = case.ledger.acknowledged.pop((TOPIC, 0, 0, 4))
    case.ledger.refused[told] += 1
    assert case.findings() == ()
    case.ledger.refused[sent(trade(99))[0]] += 1
    assert case.findings() == ()
