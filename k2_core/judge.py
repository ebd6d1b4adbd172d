"""The verdict over one batch of one feed: new, duplicate, or revision; which holes opened and closed.

Pure: the sequence state and the stored rows come in as arguments. The verdict is the same whatever the order, split or
number of deliveries. All vectorised.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.feeds import Feed
from k2_core.quality import Flag
from k2_core.screen import int64s
from k2_core.sequences import Intervals, ScopeState, hole_changes
from k2_core.verdict import (
    DUPLICATE,
    REVISION,
    WRITTEN,
    GapEvent,
    Mask,
    Screened,
    State,
    StoredRows,
    Suspects,
    Verdict,
    Wanted,
    gap_id,
)

Codes = npt.NDArray[np.int64]

_MILLISECOND_US = 1_000
_DATE_MARGIN = timedelta(days=1)
"""A correction may move a print over midnight; one that moved it further is found by the wider scan."""


def decide(feed: Feed, screened: Screened, state: State, stored: StoredRows) -> Verdict:
    """Judge a batch, fetching what is stored of its suspects.

    A key of a source with ids is first looked for near its own time, which finds a plain repetition. Where nothing is
    found there, or what is found differs, only all revisions over all dates can tell duplicate from revision, and
    which number it has.
    """
    suspects = suspect(feed, screened, state)
    if not len(suspects):
        return judge(feed, screened, state, feed.table.arrow_schema().empty_table())
    symbols, ids = suspects.symbols, suspects.message_ids
    near = stored(Wanted(ids, symbols, suspects.dates, suspects.times))
    verdict = judge(feed, screened, state, near)
    if feed.rule == "none":
        return verdict
    known = np.isin(np.arange(len(screened.rows)), suspects.at)
    open_ = screened.rows["message_id"].filter(pa.array(known & (verdict.outcome != DUPLICATE))).combine_chunks()
    revised = near["message_id"].filter(pc.greater(near["revision"], 0)).combine_chunks()
    unsure = pc.unique(pa.concat_arrays([open_, revised.cast(open_.type)]))
    if not len(unsure):
        return verdict
    others = near.filter(pc.invert(pc.is_in(near["message_id"], unsure)))
    return judge(feed, screened, state, pa.concat_tables([others, stored(Wanted(unsure, symbols, None, None))]))


def suspect(feed: Feed, screened: Screened, state: State) -> Suspects:
    """Name the rows whose key may be stored already, cheaply: by id where the feed has ids, else all of them."""
    rows = screened.rows
    at = np.arange(len(rows)) if feed.rule == "none" else np.flatnonzero(_known_ids(feed, rows, state))
    some = rows.take(pa.array(at))
    bounds = pc.min_max(some["timestamp"]).as_py()
    days = pc.unique(some["exchange_date"]).to_pylist()
    dates = {day + margin for day in days for margin in (-_DATE_MARGIN, timedelta(0), _DATE_MARGIN)}
    return Suspects(
        at,
        some["message_id"].combine_chunks(),
        tuple(sorted(pc.unique(some["symbol"]).to_pylist())),
        tuple(sorted(days if feed.rule == "none" else dates)),
        (bounds["min"], bounds["max"]) if len(at) and feed.rule != "none" else None,
    )


def judge(feed: Feed, screened: Screened, state: State, stored: pa.Table) -> Verdict:
    """Decide every row. stored: every revision of the suspects' keys: message_id, revision, flags, date, content."""
    rows = screened.rows
    keyed = _Keyed(feed, rows, stored)
    outcome = np.where(keyed.is_new, np.where(keyed.revision == 0, WRITTEN, REVISION), DUPLICATE).astype(np.int8)
    kept = _with_revisions(rows, keyed).take(pa.array(np.flatnonzero(outcome != DUPLICATE)))
    after = _absorb(feed, screened, state)
    return Verdict(
        rows=kept.sort_by([("exchange_date", "ascending"), *((name, "ascending") for name in feed.table.sort)]),
        outcome=outcome,
        state=after,
        gaps=_gap_events(feed, screened, state, after),
        reverted=keyed.reverted,
        precision_upgrades=keyed.precision_upgrades,
        touched=_dates_of_revised(rows, stored, outcome),
    )


def _known_ids(feed: Feed, rows: pa.Table, state: State) -> Mask:
    """Which rows have an id that may be stored: seen, or at or below the highest."""
    ids = int64s(rows["source_sequence"])
    known = np.zeros(len(rows), bool)
    for scope, at in rows_by_scope(rows):
        before = state.get(scope, ScopeState())
        if feed.rule == "contiguous":
            known[at] = before.seen.contains(ids[at])
        elif before.high is not None:
            known[at] = ids[at] <= before.high
    return known


def rows_by_scope(rows: pa.Table) -> list[tuple[str, npt.NDArray[np.int64]]]:
    """Indices of the rows of each symbol, symbols in order, indices ascending."""
    encoded = rows["symbol"].combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
    names = encoded.dictionary.to_pylist()
    return sorted((str(name), order[bounds[c] : bounds[c + 1]]) for c, name in enumerate(names))


class _Keyed:
    """Stored and arriving rows as one sequence, compared by key and content.

    The sequence is: stored revisions in their order, then the batch in arrival order. A row is new when nothing
    before it in the sequence says the same of the same key; its revision is the number of different things said before.
    """

    def __init__(self, feed: Feed, rows: pa.Table, stored: pa.Table) -> None:
        columns = [
            "message_id",
            *feed.table.content,
            *(["quality_flags"] if "quality_flags" in rows.column_names else []),
        ]
        stored = stored.sort_by([("message_id", "ascending"), ("revision", "ascending")])
        both = pa.concat_tables([stored.select(columns), rows.select(columns)], promote_options="permissive")
        self._stored = len(stored)
        keys = _codes(both["message_id"])
        repeated = np.bincount(keys, minlength=1)[keys] > 1 if len(keys) else np.zeros(0, bool)
        self.is_new = np.ones(len(rows), bool)
        self.revision = np.zeros(len(rows), np.int32)
        self.reverted = self.precision_upgrades = 0
        if repeated.any():
            self._compare(feed, both.filter(pa.array(repeated)), keys[repeated], np.flatnonzero(repeated))

    def _compare(self, feed: Feed, both: pa.Table, keys: Codes, place: Codes) -> None:
        times = _content_times(both)
        said = _combine(keys, *(_codes(both[c]) for c in feed.table.content if c != "timestamp"))
        new = _first_said(said, times) | (place < self._stored)
        revision = _rank_within(keys, new)
        newest = _newest_before(keys, new, revision)
        mine = place >= self._stored
        exact = _combine(said, times)
        same_as = _first_index_of(said, times)
        self.is_new[place[mine] - self._stored] = new[mine]
        self.revision[place[mine] - self._stored] = np.where(new, revision, 0)[mine]
        again = mine & ~new
        self.reverted = int((revision[same_as] < newest)[again].sum())
        self.precision_upgrades = int((exact != exact[same_as])[again].sum())


def _content_times(both: pa.Table) -> npt.NDArray[np.int64]:
    """Event times in µs; where our time of receipt stands in for it, time is no content."""
    times = int64s(both["timestamp"])
    if "quality_flags" not in both.column_names:
        return np.zeros_like(times)
    received = both["quality_flags"].to_numpy() & int(Flag.RECEIVE_TIME_AS_EVENT_TIME)
    return np.where(received != 0, 0, times)


def _codes(column: pa.ChunkedArray) -> Codes:
    """Equal values, equal codes."""
    if pa.types.is_list(column.type):
        column = pa.chunked_array([[repr(values) for values in column.to_pylist()]], pa.string())
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    out: Codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return out


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
    """For each new row, how many new rows of its key came before it."""
    order = np.argsort(keys, kind="stable")
    counted = np.cumsum(new[order])
    starts = np.concatenate([[True], keys[order][1:] != keys[order][:-1]])
    base = np.maximum.accumulate(np.where(starts, counted - new[order], 0))
    rank = np.empty(len(keys), np.int32)
    rank[order] = counted - new[order] - base
    return rank


def _newest_before(keys: Codes, new: Mask, revision: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """For each row the highest revision of its key so far; `revision` of one that is not new counts those before it."""
    return np.where(new, revision, revision - 1).astype(np.int32)


def _with_revisions(rows: pa.Table, keyed: _Keyed) -> pa.Table:
    at = rows.schema.get_field_index("revision")
    return rows.set_column(at, rows.schema.field("revision"), pa.array(keyed.revision, pa.int32()))


def _dates_of_revised(rows: pa.Table, stored: pa.Table, outcome: npt.NDArray[np.int8]) -> frozenset[date]:
    revised = rows["message_id"].filter(pa.array(outcome == REVISION))
    if not len(revised):
        return frozenset()
    first = rows.filter(pa.array(outcome == WRITTEN))
    older = [t.filter(pc.is_in(t["message_id"], revised.combine_chunks()))["exchange_date"] for t in (stored, first)]
    return frozenset(day for column in older for day in column.to_pylist())


def _absorb(feed: Feed, screened: Screened, state: State) -> State:
    if feed.rule == "none":
        return state
    ids = int64s(screened.rows["source_sequence"])
    after = dict(state)
    for scope, at in rows_by_scope(screened.rows):
        before = after.get(scope, ScopeState())
        if feed.rule == "contiguous":
            after[scope] = replace(before, seen=before.seen.union(Intervals.of(ids[at])))
        else:
            after[scope] = replace(before, high=max(before.high or 0, int(ids[at].max())))
    for scope, dead in screened.dead_ids.items():
        before = after.get(scope, ScopeState())
        after[scope] = replace(before, dead=before.dead.union(Intervals.of(dead)))
    return after


def _gap_events(feed: Feed, screened: Screened, before: State, after: State) -> tuple[GapEvent, ...]:
    if feed.rule != "contiguous":
        return ()
    events: list[GapEvent] = []
    arrived = dict(rows_by_scope(screened.rows))
    for scope in sorted(set(arrived) | set(screened.dead_ids)):
        old = before.get(scope, ScopeState()).known()
        dated = _Dated(screened, arrived.get(scope, np.empty(0, np.int64)))
        for change in hole_changes(old, after[scope].known()):
            parent = gap_id(feed.name, scope, *change.parent) if change.parent else None
            day = dated.near(change.last)
            events.append(
                GapEvent(feed.name, feed.exchange, scope, change.first, change.last, change.state, day, parent)
            )
    return tuple(events)


class _Dated:
    """Exchange dates of the arrived ids of one scope, to date a hole by its neighbour."""

    def __init__(self, screened: Screened, at: npt.NDArray[np.int64]) -> None:
        self._today = screened.today
        ids = int64s(screened.rows["source_sequence"])[at]
        order = np.argsort(ids, kind="stable")
        self._ids = ids[order]
        self._days = screened.rows["exchange_date"].cast(pa.int32()).to_numpy()[at][order]

    def near(self, last: int) -> date:
        """The date of the arrived id next above the hole, else the one at or below its end, else today."""
        at = int(np.searchsorted(self._ids, last, side="right"))
        if not len(self._ids):
            return self._today
        above = at < len(self._ids) and self._ids[at] == last + 1
        day = self._days[at if above else max(at - 1, 0)]
        return date(1970, 1, 1) + timedelta(days=int(day))
