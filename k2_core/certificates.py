"""Certificates: what proves the rows of a day, computed from the rows alone, so that anybody can do it again.

A canonical row is message_id and the content columns as UTF-8 text, separated by tabs and ended by a newline: decimals
with eight places, timestamps as µs since 1970, null as `\\N`, lists joined by commas. A backslash stands before every
backslash, tab (`\\t`) and newline (`\\n`) of a text, and before every comma in an element of a list; an empty element
is `\\e`. The digest is SHA-256 over the canonical rows in total order. Files, row groups and the order of columns have
no part in it. scripts/check_certificate.py says the same in plain Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.contracts import Table
from k2_core.day_tables import SUM
from k2_core.offsets import Offsets, Position
from k2_core.tables import LINEAGE_NAMES, PRICE

Mask = npt.NDArray[np.bool_]

CANONICAL_VERSION = "1"
"""Raised when the text of a canonical row changes; certificates of before name the version they were made by."""

_ROWS_AT_ONCE = 1 << 20
"""Rows made text at a time: some 150 MB."""
_PLACES = 10**8
"""Units of 1e-8 in one."""
_NULL = "\\N"
_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"))
_EMPTY_ELEMENT = "\\e"


def digest_columns(table: Table) -> tuple[str, ...]:
    """The columns of a canonical row, in order."""
    return ("message_id", *table.content)


def decimal_columns(table: Table) -> tuple[str, ...]:
    """The columns a certificate sums."""
    return tuple(column.name for column in table.columns if column.content and column.type == PRICE)


def digest(rows: pa.Table, columns: Sequence[str]) -> str:
    """SHA-256 over the canonical rows. rows: newest revisions in total order."""
    found = hashlib.sha256()
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        found.update(canonical(rows.select(columns).slice(start, _ROWS_AT_ONCE)))
    return found.hexdigest()


def canonical(rows: pa.Table) -> memoryview:
    """All columns of rows as canonical text: some 150 bytes a row."""
    if not len(rows):
        return memoryview(b"")
    texts = [_texts(pa.chunked_array(column).combine_chunks()) for column in rows.columns]
    last = pc.binary_join_element_wise(texts[-1], "\n", "")
    lines = pc.binary_join_element_wise(*texts[:-1], last, "\t").cast(pa.large_string())
    offsets = np.frombuffer(lines.buffers()[1], np.int64)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(lines.buffers()[2])[int(offsets[0]) : int(offsets[-1])]


def sums(rows: pa.Table, table: Table) -> list[dict[str, Any]]:
    """The exact sum of every decimal content column, as audit.days holds them."""
    totals = {name: pc.sum(rows[name].cast(SUM)).as_py() for name in decimal_columns(table)}
    return [{"column": name, "total": total or Decimal(0).scaleb(-8)} for name, total in totals.items()]


def ranges(rows: pa.Table) -> list[dict[str, Any]]:
    """The Kafka offsets [start, end) that hold some rows, per topic, epoch and Kafka partition. rows: lineage."""
    keys = list(LINEAGE_NAMES[:3])
    found = rows.group_by(keys).aggregate([("kafka_offset", "min"), ("kafka_offset", "max")])
    ordered = found.sort_by([(name, "ascending") for name in keys]).to_pylist()
    bounds = ("kafka_offset_min", "kafka_offset_max")
    return [
        {**{name: row[name] for name in keys}, "start": row[bounds[0]], "end": row[bounds[1]] + 1} for row in ordered
    ]


def vector(offsets: Offsets) -> list[dict[str, Any]]:
    """C as audit.days holds it."""
    return [
        {"topic": topic, "kafka_partition": p, "kafka_epoch": at.epoch, "next": at.next}
        for (topic, p), at in sorted(offsets.positions.items())
    ]


def stated(row: Mapping[str, Any]) -> Offsets:
    """C of a row of audit.days: the inverse of `vector`."""
    return Offsets({(o["topic"], o["kafka_partition"]): Position(o["kafka_epoch"], o["next"]) for o in row["offsets"]})


def below(rows: pa.Table, offsets: Offsets) -> Mask:
    """Which rows are below C. rows: lineage."""
    found = np.zeros(len(rows), bool)
    epochs, partitions, numbers = (rows[name].to_numpy() for name in LINEAGE_NAMES[1:])
    for topic in {topic for topic, _ in offsets.positions}:
        here = pc.equal(rows["kafka_topic"], topic).to_numpy()
        for p, at in offsets.of_topic(topic).items():
            earlier = (epochs < at.epoch) | ((epochs == at.epoch) & (numbers < at.next))
            found |= here & (partitions == p) & earlier
    return found


def newest(rows: pa.Table, revised: pa.Table) -> Mask:
    """Which rows no later revision replaces, and no equal one repeats.

    rows: message_id and revision. revised: the same of every row of their symbols whose revision is not 0, of whatever
    date: a correction may have moved a row to another one.
    """
    keys = rows["message_id"].combine_chunks().dictionary_encode()
    if not len(revised) and len(keys.dictionary) == len(rows):  # as almost always: there is nothing to choose
        return np.ones(len(rows), bool)
    codes, revisions = keys.indices.to_numpy(), rows["revision"].to_numpy().astype(np.int64)
    at = pc.index_in(revised["message_id"], keys.dictionary)
    held = at.is_valid().to_numpy()
    best = np.full(len(keys.dictionary), -1, np.int64)
    np.maximum.at(best, codes, revisions)
    np.maximum.at(best, pc.drop_null(at).to_numpy(), revised["revision"].to_numpy().astype(np.int64)[held])
    is_best = revisions == best[codes]
    places = np.flatnonzero(is_best)
    first = np.zeros(len(rows), bool)
    first[places[np.unique(codes[places], return_index=True)[1]]] = True
    return first


def _texts(column: pa.Array) -> pa.Array:
    return pc.fill_null(_plain(column), _NULL)


def _plain(column: pa.Array) -> pa.Array:
    """A column as text; null stays null."""
    if pa.types.is_decimal(column.type):
        return _decimals(column)
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).cast(pa.string())
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return _lists(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _escaped(column.cast(pa.string()))
    return column.cast(pa.string())


def _escaped(texts: pa.Array) -> pa.Array:
    content = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
    present = [escape for escape in _ESCAPES if (content == ord(escape[0])).any()]
    return reduce(lambda some, escape: pc.replace_substring(some, *escape), present, texts)


def _lists(lists: pa.Array) -> pa.Array:
    elements = pc.replace_substring(_escaped(lists.flatten().cast(pa.string())), ",", "\\,")
    elements = pc.if_else(pc.equal(elements, ""), _EMPTY_ELEMENT, elements)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(ends, elements), ",")
    return pc.if_else(lists.is_valid(), joined, None) if lists.null_count else joined


def _decimals(column: pa.Array) -> pa.Array:
    """Arrow's own text of a decimal is scientific for the smallest, so the places are written here."""
    filled = pc.fill_null(column.cast(PRICE), Decimal(0))
    low_words = np.frombuffer(filled.buffers()[1], np.int64)[::2]  # 18 digits fit the lower half of each value
    units = low_words[filled.offset : filled.offset + len(filled)]
    whole, rest = np.divmod(np.abs(units), _PLACES)
    places = pc.utf8_lpad(pa.array(rest).cast(pa.string()), 8, "0")
    sign = pc.if_else(pa.array(units < 0), "-", "")
    texts = pc.binary_join_element_wise(
        pc.binary_join_element_wise(sign, pa.array(whole).cast(pa.string()), ""), places, "."
    )
    return pc.if_else(column.is_valid(), texts, None) if column.null_count else texts
