"""Canonical rows, digests and lineage, against plain Python that says the same."""

from __future__ import annotations

import hashlib
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_core.certificates import below, canonical, digest, newest, ranges, stated, sums, vector
from k2_core.contracts import TRADES
from k2_core.offsets import Offsets, Position
from k2_core.tables import CONDITIONS, PRICE, TIMESTAMP

TEXTS = st.text(st.sampled_from("a,\\\t\nN é\u2028😀"), max_size=6)
UNITS = st.integers(-(10**18) + 1, 10**18 - 1)
MOMENTS = st.integers(-(2**50), 2**50)
ROWS = st.lists(
    st.tuples(TEXTS, st.none() | TEXTS, st.none() | UNITS, MOMENTS, st.none() | st.lists(TEXTS, max_size=3)), max_size=6
)


def table(rows):
    names, texts, units, moments, lists = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    columns = {
        "message_id": pa.array(names, pa.string()),
        "side": pa.array(texts, pa.string()),
        "price": pa.array([None if u is None else Decimal(u).scaleb(-8) for u in units], PRICE),
        "timestamp": pa.array(moments, pa.int64()).cast(TIMESTAMP),
        "trade_conditions": pa.array(lists, CONDITIONS),
    }
    return pa.table(columns)


def escaped(text):
    return "".join({"\\": "\\\\", "\t": "\\t", "\n": "\\n"}.get(c, c) for c in text)


def line(name, text, units, moment, elements):
    """One canonical row, from its definition."""
    whole = None if units is None else divmod(abs(units), 10**8)
    sign = "-" if units is not None and units < 0 else ""
    joined = None if elements is None else ",".join(escaped(e).replace(",", "\\,") or "\\e" for e in elements)
    parts = [
        escaped(name),
        "\\N" if text is None else escaped(text),
        "\\N" if whole is None else f"{sign}{whole[0]}.{whole[1]:08d}",
        str(moment),
        "\\N" if joined is None else joined,
    ]
    return "\t".join(parts) + "\n"


@settings(max_examples=50)
@given(ROWS)
def test_canonical_rows_are_what_their_definition_says(rows):
    expected = "".join(line(*row) for row in rows).encode()
    assert bytes(canonical(table(rows))) == expected
    assert digest(table(rows), table(rows).column_names) == hashlib.sha256(expected).hexdigest()


@settings(max_examples=50)
@given(ROWS, ROWS)
def test_other_rows_have_another_text(one, other):
    assert (bytes(canonical(table(one))) == bytes(canonical(table(other)))) == (one == other)


@settings(max_examples=50)
@given(ROWS, st.integers(0, 6))
def test_a_slice_has_the_text_of_its_rows(rows, start):
    assert bytes(canonical(table(rows).slice(start))) == "".join(line(*row) for row in rows[start:]).encode()


@pytest.mark.parametrize(("units", "text"), [(1, "0.00000001"), (0, "0.00000000"), (10**18 - 1, "9999999999.99999999")])
def test_a_decimal_always_has_eight_places(units, text):
    assert text.encode() in bytes(canonical(table([("a", None, units, 0, [])])))


REVISED = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), max_size=12)


def keyed(rows):
    keys, revisions = zip(*rows, strict=True) if rows else ((), ())
    return pa.table({"message_id": pa.array(keys, pa.string()), "revision": pa.array(revisions, pa.int32())})


@settings(max_examples=50)
@given(REVISED, REVISED)
def test_the_newest_revision_stands_once_and_only_where_no_other_date_has_a_newer_one(here, elsewhere):
    moved = [(key, revision) for key, revision in elsewhere if revision]
    best = {key: max(r for k, r in [*here, *moved] if k == key) for key, _ in here}
    found = [row for row, stands in zip(here, newest(keyed(here), keyed(moved)), strict=True) if stands]
    assert sorted(found) == sorted((key, r) for key, r in best.items() if (key, r) in here)


PLACES = st.lists(st.tuples(st.sampled_from("tu"), st.integers(0, 2), st.integers(0, 2), st.integers(0, 5)), max_size=9)
VECTORS = st.dictionaries(
    st.tuples(st.sampled_from("tu"), st.integers(0, 2)), st.builds(Position, st.integers(0, 2), st.integers(0, 5))
)


def placed(places):
    names = ("kafka_topic", "kafka_epoch", "kafka_partition", "kafka_offset")
    types = (pa.string(), pa.int32(), pa.int32(), pa.int64())
    columns = zip(*places, strict=True) if places else ((), (), (), ())
    return pa.table({n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)})


@settings(max_examples=50)
@given(PLACES, VECTORS)
def test_rows_below_c_are_those_before_its_position_and_none_of_a_partition_it_does_not_name(places, positions):
    expected = [(t, p) in positions and Position(epoch, offset) < positions[t, p] for t, epoch, p, offset in places]
    assert below(placed(places), Offsets(positions)).tolist() == expected


@settings(max_examples=50)
@given(VECTORS)
def test_c_is_read_back_as_it_was_written(positions):
    assert stated({"offsets": vector(Offsets(positions))}) == Offsets(positions)


@settings(max_examples=50)
@given(PLACES)
def test_ranges_hold_every_row_and_end_just_after_the_last(places):
    spans = {tuple(s.values())[:3]: range(s["start"], s["end"]) for s in ranges(placed(places))}
    assert spans.keys() == {place[:3] for place in places}
    for at, span in spans.items():
        offsets = [offset for *log, offset in places if tuple(log) == at]
        assert (span.start, span.stop) == (min(offsets), max(offsets) + 1)


def test_sums_are_exact_and_nothing_sums_to_zero():
    most = Decimal("9999999999.99999999")
    columns = {"price": pa.array([most] * 100, PRICE), "quantity": pa.array([None] * 100, PRICE)}
    assert sums(pa.table(columns), TRADES) == [
        {"column": "price", "total": Decimal("999999999999.99999900")},
        {"column": "quantity", "total": Decimal(0)},
    ]
