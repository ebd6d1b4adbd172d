"""What a row says that was not said before: stored and arriving rows of the same keys compared by content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.feeds import Feed
from k2_core.quality import Flag
from k2_core.screen import int64s
from k2_core.verdict import Mask

Codes = npt.NDArray[np.int64]
"""Equal codes, equal values."""

_MILLISECOND_US = 1_000


@dataclass(frozen=True)
class Compared:
    """What is new in rows, per row: whether, and as which revision of its key."""

    is_new: Mask
    revision: npt.NDArray[np.int32]
    reverted: int = 0
    precision_upgrades: int = 0


def compare(feed: Feed, rows: pa.Table, stored: pa.Table) -> Compared:
    """Compare rows with every stored revision of their keys, and with each other.

    The stored revisions in their order, then the rows in arrival order, are one sequence. A row is new when nothing
    before it in the sequence says the same of the same key; its revision is the number of different things said before.
    """
    columns = ["message_id", *feed.table.content, *(["quality_flags"] if "quality_flags" in rows.column_names else [])]
    repeats, upgrades = _plain_repeats(feed, rows, stored.select([*columns, "revision"]).combine_chunks())
    others = pa.array(~repeats)
    rest = rows.filter(others).select(columns)
    is_new, revision = np.zeros(len(rows), bool), np.zeros(len(rows), np.int32)
    if not len(rest):
        return Compared(is_new, revision, 0, upgrades)
    theirs = stored.filter(pc.is_in(stored["message_id"], rest["message_id"].combine_chunks()))
    compared = _compare_in_order(feed, rest, theirs.sort_by([("message_id", "ascending"), ("revision", "ascending")]))
    is_new[~repeats], revision[~repeats] = compared.is_new, compared.revision
    return Compared(is_new, revision, compared.reverted, compared.precision_upgrades + upgrades)


def _plain_repeats(feed: Feed, rows: pa.Table, stored: pa.Table) -> tuple[Mask, int]:
    """Which rows are the only one of their key here, and say what the only stored one says; how many in another unit.

    Nearly all of a delivery again, found without sorting.
    """
    repeats = np.zeros(len(rows), bool)
    if not len(stored):
        return repeats, 0
    keys, theirs = codes_of(rows["message_id"]), codes_of(stored["message_id"])
    found = pc.index_in(rows["message_id"].combine_chunks(), stored["message_id"].combine_chunks())
    at = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
    alone = (at >= 0) & (np.bincount(keys)[keys] == 1) & (np.bincount(theirs)[theirs] == 1)[at]
    mine, its = rows.filter(pa.array(alone)), stored.take(pa.array(at[alone]))
    same = np.ones(len(mine), bool)
    for name in feed.table.content:
        if name != "timestamp":
            same &= _equal(mine[name], its[name])
    times, its_times = _content_times(mine), _content_times(its)
    whole = (times % _MILLISECOND_US == 0) | (its_times % _MILLISECOND_US == 0)
    same &= (times == its_times) | (whole & (times // _MILLISECOND_US == its_times // _MILLISECOND_US))
    repeats[np.flatnonzero(alone)[same]] = True
    return repeats, int((times != its_times)[same].sum())


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> Mask:
    """Row by row; two nulls are equal."""
    if pa.types.is_list(one.type):
        one, other = (_list_texts(column.combine_chunks()) for column in (one, other))
    equal = pc.fill_null(pc.equal(one, other), False)
    if one.null_count or other.null_count:
        equal = pc.or_(equal, pc.and_(pc.is_null(one), pc.is_null(other)))
    out: Mask = np.asarray(equal).astype(bool)
    return out


def _compare_in_order(feed: Feed, rows: pa.Table, stored: pa.Table) -> Compared:
    """Compare as one sequence. stored: ordered by key and revision."""
    both = pa.concat_tables([stored.select(rows.column_names), rows], promote_options="permissive")
    keys = codes_of(both["message_id"])
    times = _content_times(both)
    said = _combine(keys, *(codes_of(both[c]) for c in feed.table.content if c != "timestamp"))
    mine = np.arange(len(both)) >= len(stored)
    new = _first_said(said, times) | ~mine
    revision = _rank_within(keys, new)
    same_as, again = _first_index_of(said, times), mine & ~new
    exact = _combine(said, times)
    return Compared(
        is_new=new[mine],
        revision=np.where(new, revision, 0)[mine].astype(np.int32),
        reverted=int((revision[same_as] < revision - 1)[again].sum()),
        precision_upgrades=int((exact != exact[same_as])[again].sum()),
    )


def _content_times(both: pa.Table) -> npt.NDArray[np.int64]:
    """Event times in µs; where they are no content, or our time of receipt stands in for them, all the same."""
    if "timestamp" not in both.column_names:
        return np.zeros(len(both), np.int64)
    times = int64s(both["timestamp"])
    if "quality_flags" not in both.column_names:
        return np.zeros_like(times)
    received = both["quality_flags"].to_numpy() & int(Flag.RECEIVE_TIME_AS_EVENT_TIME)
    return np.where(received != 0, 0, times)


def codes_of(column: pa.ChunkedArray) -> Codes:
    """Equal values, equal codes."""
    values = column.combine_chunks()
    if pa.types.is_list(column.type):
        values = _list_texts(values)
    out: Codes = values.dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
    return out


def _list_texts(lists: pa.ListArray) -> pa.Array:
    """Each list of strings as one string that no other list has: every element after its length."""
    elements = lists.flatten()
    lengths = pc.binary_length(elements).cast(pa.string())
    marked = pc.binary_join_element_wise(lengths, elements, ":")
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).to_numpy())])
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), marked), "")


def _combine(*codes: Codes) -> Codes:
    """One code for each different tuple of codes."""
    out = codes[0]
    for other in codes[1:]:
        _, dense = np.unique(other, return_inverse=True)
        _, out = np.unique(out * (int(dense.max(initial=0)) + 1) + dense, return_inverse=True)
    return out


def _first_said(said: Codes, times: npt.NDArray[np.int64]) -> Mask:
    """Which rows say something first. Times compare at the coarser unit of the two.

    Within one (key, other content, millisecond): a whole-millisecond row repeats whatever came before it, and if it
    came first, everything after repeats it. Otherwise equal means equal to the microsecond.
    """
    coarse = _combine(said, times // _MILLISECOND_US)
    whole = times % _MILLISECOND_US == 0
    first_coarse = _is_first(coarse)
    opener_whole = whole[_index_of_first(coarse)]
    new: Mask = first_coarse | (~opener_whole & ~whole & _is_first(_combine(coarse, times)))
    return new


def _first_index_of(said: Codes, times: npt.NDArray[np.int64]) -> Codes:
    """For each row the index of the row it repeats: the same microsecond if there is one, else the same millisecond."""
    exact = _index_of_first(_combine(said, times))
    coarse = _index_of_first(_combine(said, times // _MILLISECOND_US))
    new = _first_said(said, times)
    return np.where(new[exact], exact, coarse)


def _index_of_first(codes: Codes) -> Codes:
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    out: Codes = first[inverse].astype(np.int64)
    return out


def _is_first(codes: Codes) -> Mask:
    mask: Mask = _index_of_first(codes) == np.arange(len(codes))
    return mask


def _rank_within(keys: Codes, new: Mask) -> npt.NDArray[np.int32]:
    """For each row, how many new rows of its key came before it."""
    order = np.argsort(keys, kind="stable")
    counted = np.cumsum(new[order])
    starts = np.concatenate([[True], keys[order][1:] != keys[order][:-1]])
    base = np.maximum.accumulate(np.where(starts, counted - new[order], 0))
    rank = np.empty(len(keys), np.int32)
    rank[order] = counted - new[order] - base
    return rank
