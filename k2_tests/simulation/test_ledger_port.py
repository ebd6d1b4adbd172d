"""One suite for both ledgers: what the simulation may rely on is what the lake does."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from k2_core.contracts import CONTRACT_VERSION, DEAD_LETTERS, RECEIPTS, TRADES
from k2_core.errors import FencedOut
from k2_core.keys import CONTRACT_KEY, SWEPT_KEY, offset_key, paused_key, state_key, topic_key
from k2_core.offsets import Position
from k2_core.protocol import retain
from k2_core.protocol.collect import collect, collected_until
from k2_core.protocol.commit import commit, expectations
from k2_core.protocol.ports import Change, Outpaced
from k2_core.receipts import RangeCount
from k2_tests.lakes import TOPIC
from k2_tests.simulation.sides import LEDGER_SIDES, TROUBLES, batch, receipt

PAUSED = paused_key(TOPIC, 0)


@pytest.fixture(params=sorted(LEDGER_SIDES))
def side(request, tmp_path):
    return LEDGER_SIDES[request.param](tmp_path / "home")


@pytest.fixture
def ledger(side):
    return side.ledger


def head(ledger):
    return ledger.head(TRADES)


def register(ledger):
    change = Change(receipt(RangeCount(TOPIC, 0, 0, 0, 0), kind="register"), properties={topic_key(TOPIC): "{}"})
    return commit(ledger, head(ledger), change)


def put(side, count=2, **changes):
    at = head(side.ledger)
    return commit(side.ledger, at, batch(side, at.offsets.positions[TOPIC, 0].next, count, **changes))


def swap(ledger, at, change):
    staged = ledger.stage(at, change)
    return staged, ledger.swap(at, staged, expectations(at, staged))


def k2_properties(at):
    return {key: value for key, value in at.properties.items() if key.startswith("k2.")}


def passes(name):
    """No step stops."""


def test_a_new_table_knows_its_contract_and_nothing_else(side, ledger):
    at = head(ledger)
    assert k2_properties(at) == {CONTRACT_KEY: CONTRACT_VERSION}
    assert (dict(at.offsets.positions), side.held(at)) == ({}, 0)
    assert list(ledger.snapshots(at)) == list(ledger.receipts(at, 0)) == []


def test_a_swap_brings_rows_offsets_state_and_receipt_together(side, ledger):
    register(ledger)
    staged, landed = swap(ledger, head(ledger), batch(side, 0, 3))
    at = head(ledger)
    assert k2_properties(at) == k2_properties(landed.head)
    assert at.offsets.positions == {(TOPIC, 0): Position(0, 3)}
    assert side.exists(at.property(state_key(TOPIC)))
    assert side.held(at) == side.held(landed.head) == 3
    assert landed.committed.receipt == staged.receipt == ledger.receipts(at, 0)[-1].receipt
    assert [f.kind for f in staged.receipt.files] == ["data", "state"]


def test_what_is_staged_is_there_and_nobody_sees_it(side, ledger):
    register(ledger)
    before = head(ledger)
    staged = ledger.stage(before, batch(side, 0, 2, letters=1))
    assert all(side.exists(path) for path in (staged.receipt_path, *(f.path for f in staged.receipt.files)))
    assert head(ledger).properties == before.properties
    assert len(ledger.snapshots(head(ledger))) == 1


def test_a_key_that_moved_fences_out_and_nothing_lands(side, ledger):
    register(ledger)
    mine = head(ledger)
    put(side)
    before = head(ledger)
    with pytest.raises(FencedOut):
        swap(ledger, mine, batch(side, 0, 2))
    after = head(ledger)
    assert after.properties == before.properties
    assert (side.held(after), len(ledger.snapshots(after))) == (2, 2)


def test_the_fence_is_compared_with_what_is_replaced_and_not_with_what_was_loaded(side, ledger):
    register(ledger)
    mine = head(ledger)
    staged = ledger.stage(mine, batch(side, 0, 2))
    put(side)
    now = head(ledger)
    with pytest.raises(FencedOut):
        ledger.swap(now, staged, expectations(mine, staged))
    with pytest.raises(FencedOut):
        ledger.swap(mine, staged, expectations(mine, staged))
    assert side.held(head(ledger)) == 2


def test_absent_is_a_value_that_fences(side, ledger):
    register(ledger)
    at = head(ledger)
    staged = ledger.stage(at, batch(side, 0, 1))
    with pytest.raises(FencedOut):
        ledger.swap(at, staged, {PAUSED: "a reason"})
    with pytest.raises(FencedOut):
        ledger.swap(at, staged, {topic_key(TOPIC): None})
    ledger.swap(at, staged, {PAUSED: None})
    assert side.held(head(ledger)) == 1


def test_a_property_is_removed_with_none_and_is_absent_then(side, ledger):
    register(ledger)
    put(side, properties={PAUSED: "a reason"})
    assert head(ledger).is_paused(TOPIC, 0)
    commit(ledger, head(ledger), Change(receipt(kind="resume"), properties={PAUSED: None}))
    assert not head(ledger).is_paused(TOPIC, 0)
    assert head(ledger).property(PAUSED) is None
    put(side)


def test_a_commit_that_moves_no_expected_key_is_no_obstacle(side, ledger):
    register(ledger)
    mine = head(ledger)
    side.touch(TRADES)
    assert commit(ledger, mine, batch(side, 0, 2)).committed.sequence_number == 2
    assert side.held(head(ledger)) == 2
    mine = head(ledger)
    commit(ledger, head(ledger), Change(receipt(kind="maintenance")))
    swap(ledger, mine, batch(side, 2, 2))
    assert side.held(head(ledger)) == 4


def test_a_change_is_found_by_its_receipt_in_any_later_head_until_it_is_forgotten(side, ledger):
    register(ledger)
    at = head(ledger)
    staged = ledger.stage(at, batch(side, 0, 2))
    assert ledger.landed(head(ledger), staged) is None
    ledger.swap(at, staged, expectations(at, staged))
    first = ledger.landed(head(ledger), staged)
    put(side)
    later = head(ledger)
    found = ledger.landed(later, staged)
    assert found.committed == first.committed
    assert found.head is later
    ledger.expire(later, [m.snapshot_id for m in ledger.snapshots(later)[:-1]])
    assert ledger.landed(head(ledger), staged) is None


def test_receipts_come_in_commit_order_from_past_a_number(side, ledger):
    kinds = ["register", "batch", "maintenance", "batch"]
    register(ledger)
    put(side)
    commit(ledger, head(ledger), Change(receipt(kind="maintenance")))
    put(side)
    at = head(ledger)
    found = ledger.receipts(at, 0)
    assert [c.receipt.kind for c in found] == kinds
    numbers = [c.sequence_number for c in found]
    assert numbers == sorted(set(numbers)) == [m.sequence_number for m in ledger.snapshots(at)]
    assert [c.snapshot_id for c in found] == [m.snapshot_id for m in ledger.snapshots(at)]
    assert [c.receipt.kind for c in ledger.receipts(at, numbers[1])] == kinds[2:]
    assert {c.table_uuid for c in found} == {at.table_uuid}


def test_copies_are_one_row_a_receipt_and_every_letter(side, ledger):
    register(ledger)
    put(side, letters=2)
    put(side)
    source = head(ledger)
    fresh = ledger.receipts(source, 0)
    assert len(ledger.copies(ledger.head(RECEIPTS), source, fresh)) == 3
    assert len(ledger.copies(ledger.head(DEAD_LETTERS), source, fresh)) == 2
    assert len(ledger.copies(ledger.head(DEAD_LETTERS), source, fresh[2:])) == 0


def test_an_append_brings_copies_and_its_key_or_neither(side, ledger):
    register(ledger)
    put(side, letters=3)
    source, mine = head(ledger), ledger.head(DEAD_LETTERS)
    copies = ledger.copies(mine, source, ledger.receipts(source, 0))
    ledger.append(mine, copies, {"k2.test": "1"}, {"k2.test": None})
    with pytest.raises(FencedOut):
        ledger.append(mine, copies, {"k2.test": "1"}, {"k2.test": None})
    now = ledger.head(DEAD_LETTERS)
    assert (side.held(now), now.property("k2.test")) == (3, "1")
    ledger.append(now, ledger.copies(now, source, []), {"k2.test": "2"}, {"k2.test": "1"})
    now = ledger.head(DEAD_LETTERS)
    assert (side.held(now), now.property("k2.test")) == (3, "2")


def test_many_appends_leave_every_copy_once(side, ledger):
    register(ledger)
    for _ in range(6):
        put(side, letters=1)
        collect(ledger, TRADES, passes)
        collect(ledger, TRADES, passes)
    assert side.held(ledger.head(RECEIPTS)) == 7
    assert side.held(ledger.head(DEAD_LETTERS)) == 6
    assert collected_until(ledger.head(RECEIPTS), head(ledger)) == 7


def expired(side, kept=1):
    at = head(side.ledger)
    marks = side.ledger.snapshots(at)
    side.ledger.expire(at, [m.snapshot_id for m in marks[:-kept]])
    return at


def test_an_expiry_deletes_what_only_the_forgotten_referred_to(side, ledger):
    register(ledger)
    receipts = [put(side, letters=1).committed.receipt for _ in range(3)]
    before = expired(side)
    after = head(ledger)
    assert [m.snapshot_id for m in ledger.snapshots(after)] == [ledger.snapshots(before)[-1].snapshot_id]
    assert k2_properties(after) == k2_properties(before)
    assert side.held(after) == 6
    gone = [f for r in receipts[:-1] for f in r.files if f.kind != "data"]
    kept = [f for r in receipts for f in r.files if f.kind == "data" or r is receipts[-1]]
    assert [side.exists(f.path) for f in gone] == [False] * len(gone)
    assert [side.exists(f.path) for f in kept] == [True] * len(kept)


def test_a_state_that_a_property_names_outlives_the_snapshot_that_brought_it(side, ledger):
    register(ledger)
    put(side)
    commit(ledger, head(ledger), Change(receipt(kind="maintenance")))
    expired(side)
    at = head(ledger)
    assert len(ledger.snapshots(at)) == 1
    assert side.exists(at.property(state_key(TOPIC)))
    assert list(ledger.unreferenced(at)) == []


def test_a_rival_that_forgot_the_same_snapshots_is_no_harm(side, ledger):
    register(ledger)
    for _ in range(3):
        put(side)
    at = expired(side)
    with suppress(Outpaced):
        ledger.expire(at, [m.snapshot_id for m in ledger.snapshots(at)[:-1]])
    assert side.held(head(ledger)) == 6
    assert len(ledger.snapshots(head(ledger))) == 1


def test_what_was_staged_and_never_swapped_is_unreferenced(side, ledger):
    register(ledger)
    put(side, letters=1)
    assert list(ledger.unreferenced(head(ledger))) == []
    staged = ledger.stage(head(ledger), batch(side, 3, 2, letters=1))
    left = ledger.unreferenced(head(ledger))
    assert sorted(left) == sorted([staged.receipt_path, *(f.path for f in staged.receipt.files)])
    for _ in range(2):
        ledger.delete(head(ledger), left)
    assert list(ledger.unreferenced(head(ledger))) == []
    assert side.held(head(ledger)) == 2


def test_a_sweep_fences_out_whoever_planned_before_it(side, ledger):
    register(ledger)
    mine = head(ledger)
    staged = ledger.stage(mine, batch(side, 0, 2))
    assert (
        retain.sweep(ledger, TRADES, run_id="s", code_version="0", contract_version="1")
        == len(staged.receipt.files) + 1
    )
    assert head(ledger).property(SWEPT_KEY) == "1"
    with pytest.raises(FencedOut):
        ledger.swap(mine, staged, expectations(mine, staged))
    put(side)
    assert side.held(head(ledger)) == 2


@pytest.mark.parametrize("trouble", sorted(TROUBLES))
def test_what_a_swap_raises_says_whether_it_may_have_landed(side, ledger, trouble):
    register(ledger)
    at = head(ledger)
    staged = ledger.stage(at, batch(side, 0, 2))
    with side.trouble(trouble), pytest.raises(Outpaced if trouble == "refused" else OSError):
        ledger.swap(at, staged, expectations(at, staged))
    assert (ledger.landed(head(ledger), staged) is not None) == (trouble == "answer_lost")
    assert side.held(head(ledger)) == (2 if trouble == "answer_lost" else 0)


@pytest.mark.parametrize("trouble", ["answer_lost", "not_sent"])
def test_an_unknown_outcome_ends_in_exactly_one_commit(side, ledger, trouble, monkeypatch):
    register(ledger)
    at, honest, calls = head(ledger), ledger.swap, []

    def once(*args):
        calls.append(args)
        if len(calls) > 1:
            return honest(*args)
        with side.trouble(trouble):
            return honest(*args)

    monkeypatch.setattr(ledger, "swap", once)
    landed = commit(ledger, at, batch(side, 0, 2))
    assert len(calls) == (1 if trouble == "answer_lost" else 2)
    assert side.held(head(ledger)) == side.held(landed.head) == 2
    assert [c.receipt.kind for c in ledger.receipts(head(ledger), 0)] == ["register", "batch"]


def test_the_same_change_swapped_twice_is_fenced_by_itself(side, ledger):
    register(ledger)
    at = head(ledger)
    staged, _ = swap(ledger, at, batch(side, 0, 2))
    with pytest.raises(FencedOut):
        ledger.swap(at, staged, expectations(at, staged))
    assert ledger.landed(head(ledger), staged) is not None
    assert side.held(head(ledger)) == 2


def test_offsets_are_set_for_every_range_of_a_receipt(side, ledger):
    register(ledger)
    change = batch(side, 0, 1)
    ranges = (*change.receipt.ranges, RangeCount(TOPIC, 0, 1, 0, 5))
    swap(ledger, head(ledger), replace(change, receipt=replace(change.receipt, ranges=ranges)))
    at = head(ledger)
    assert (at.property(offset_key(TOPIC, 0)), at.property(offset_key(TOPIC, 1))) == ("0:1", "0:5")
