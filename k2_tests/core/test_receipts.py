from __future__ import annotations

from datetime import date

import pytest

from k2_core.offsets import Offsets, Position
from k2_core.receipts import SUMMARY_BYTES_MAX, DateRows, FileEntry, RangeCount, Receipt, check_ranges, fold_offsets


def receipt(*ranges, kind="batch"):
    return Receipt("market_data.trades", kind, "run", "0", "1", ranges)


def read(partition, start, end, epoch=0):
    n = end - start
    return RangeCount("t", epoch, partition, start, end, read=n, written=n)


def register(*partitions):
    return receipt(*(RangeCount("t", 0, p, 0, 0) for p in partitions), kind="register")


def problems(*receipts):
    return [found.problem for found in check_ranges(receipts)]


def test_contiguous_balanced_ranges_are_right():
    assert problems(register(0), receipt(read(0, 0, 5)), receipt(read(0, 5, 9))) == []


def test_a_partition_added_to_a_registered_topic_starts_at_zero():
    assert problems(register(0), receipt(read(0, 0, 5), read(1, 0, 3))) == []
    assert problems(register(0), receipt(read(1, 2, 3))) == ["leaves a hole after 0:0"]


@pytest.mark.parametrize(
    ("ranges", "problem"),
    [
        ((read(0, 3, 5),), "leaves a hole after 0:0"),
        ((read(0, 0, 5), read(0, 4, 6)), "overlaps 0:5"),
        ((read(0, 0, 5), read(0, 5, 6, epoch=1)), "leaves a hole after 0:5"),
    ],
)
def test_a_hole_an_overlap_and_a_silent_epoch_are_named(ranges, problem):
    assert problems(register(0), *(receipt(r) for r in ranges)) == [problem]


def test_an_adoption_is_the_way_to_another_epoch():
    adopted = receipt(RangeCount("t", 1, 0, 0, 0), kind="adopt")
    assert problems(register(0), receipt(read(0, 0, 5)), adopted, receipt(read(0, 0, 2, epoch=1))) == []


def test_reading_before_a_registration_is_named():
    assert problems(receipt(read(0, 0, 5))) == ["read before the topic was registered"]


def test_more_records_than_offsets_do_not_balance():
    assert len(problems(register(0), receipt(RangeCount("t", 0, 0, 0, 2, read=3, written=3)))) == 1


def test_holes_of_transactions_inside_a_range_balance():
    assert problems(register(0), receipt(RangeCount("t", 0, 0, 0, 9, read=3, written=1, duplicates=1, dead=1))) == []


def test_a_receipt_comes_back_from_its_file_as_it_was():
    whole = Receipt(
        "market_data.trades",
        "batch",
        "run",
        "0",
        "1",
        (read(0, 0, 5),),
        (1, 2),
        (FileEntry("data", "/p", 5, "ab"),),
        (DateRows(date(2024, 8, 8), "binance-trades", 5),),
        3,
        4,
        "who",
        "why",
    )
    assert Receipt.from_json(whole.to_json()) == whole


def test_a_summary_never_outgrows_the_metadata():
    wide = receipt(*(read(p, 0, 10**9) for p in range(500)))
    assert len(wide.summary("/path", "0" * 64)) < SUMMARY_BYTES_MAX
    assert '"ranges"' in receipt(read(0, 0, 5)).summary("/path", "0" * 64)


def test_the_offset_vector_never_goes_back():
    at = fold_offsets(Offsets(), receipt(read(0, 0, 5)))
    assert at.positions == {("t", 0): Position(0, 5)}
    with pytest.raises(ValueError, match="would go back"):
        fold_offsets(at, receipt(read(0, 0, 3)))


def test_a_version_depends_on_the_positions_and_on_nothing_else():
    one = Offsets({("a", 0): Position(0, 1), ("b", 1): Position(2, 3)})
    same = Offsets({("b", 1): Position(2, 3), ("a", 0): Position(0, 1)})
    assert one.version == same.version
    assert one.version != one.advanced({("a", 0): Position(0, 2)}).version
    assert Position.parse(str(Position(2, 3))) == Position(2, 3)
