"""The verdict over one batch of one feed: new, duplicate, or revision; which holes opened and closed.

Pure: the sequence state and the stored rows come in as arguments. The verdict is the same however a stream is cut into
batches, and whatever is delivered again, how often and in which order. What it owes to the order of first deliveries:
the number of a revision is that of its first arrival, and `numberings` says when ids begin anew. All vectorised.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.absorption import absorb
from k2_core.contracts import COVERAGE
from k2_core.feeds import Feed
from k2_core.gaps import gap_events
from k2_core.identity import session_suffix
from k2_core.numberings import Sessions, place
from k2_core.ordering import in_table_order
from k2_core.revisions import Compared, codes_of, compare
from k2_core.scopes import Places
from k2_core.screen import int64s, screen
from k2_core.statements import stated_gaps
from k2_core.verdict import DUPLICATE, REVISION, WRITTEN, GapEvent, Mask, Screened, State, StoredRows, Verdict, Wanted

_DATE_MARGIN = timedelta(days=1)
"""A correction may move a print over midnight; one that moved it further is found by the wider scan."""
_US_PER_MS = 1_000


def judge_rows(
    feed: Feed, rows: pa.Table, *, state: State, stored: StoredRows, today: date
) -> tuple[Screened, Verdict]:
    """Screen the rows of one topic and judge those that passed: all that decides what a commit stores of them.

    rows: feed and lineage columns. today: UTC date of the commit.
    """
    screened = screen(feed, rows, today)
    return screened, decide(feed, screened, state, stored)


def decide(feed: Feed, screened: Screened, state: State, stored: StoredRows) -> Verdict:
    """Judge a batch, fetching what is stored of its suspects."""
    if feed.rule == "none":
        verdict = _verdict(feed, screened, screened.rows, _met_by_key(feed, screened, stored), state=state)
        return replace(verdict, gaps=stated_gaps(verdict.rows)) if feed.table.name == COVERAGE.name else verdict
    ids = int64s(screened.rows["source_sequence"])
    placed = place(screened.scopes, int64s(screened.rows["timestamp"]) // _US_PER_MS, ids, state)
    absorbed = absorb(feed, screened, placed, ids, state)
    gaps = gap_events(feed, screened, placed, state, absorbed)
    rows = _with_sessions(screened.rows, placed.sessions)
    met = _met_by_id(feed, rows, absorbed.known, absorbed.repeated, stored)
    return _verdict(feed, screened, rows, met, state=absorbed.state, gaps=gaps)


def _with_sessions(rows: pa.Table, sessions: Sessions) -> pa.Table:
    """Rows under the keys they are stored by: the one the feed states, and the numbering where it is not the first."""
    if not sessions.any():
        return rows
    present, which = np.unique(sessions, return_inverse=True)
    suffixes = pa.array([session_suffix(session) for session in present.tolist()]).take(pa.array(which))
    keys = pc.binary_join_element_wise(rows["message_id"].combine_chunks(), suffixes, "")
    return rows.set_column(rows.schema.get_field_index("message_id"), rows.schema.field("message_id"), keys)


@dataclass(frozen=True)
class _Met:
    """The rows that met another of their key, stored or in the batch: where they are, and how they compare."""

    at: Places
    compared: Compared
    stored: pa.Table


def _met_by_key(feed: Feed, screened: Screened, stored: StoredRows) -> _Met | None:
    """A key without an id names its symbol and date, so the touched dates hold every revision of it.

    Where it names another date than that of the table partition, they may lie anywhere.
    """
    keys, rows = screened.rows["message_id"].combine_chunks(), screened.rows
    if not len(rows):
        return None
    days = tuple(sorted(_days(rows))) if feed.table.dated_by == feed.table.partition else None
    found = stored(Wanted(keys, tuple(screened.scopes.names), days, None))
    codes = codes_of(rows["message_id"])
    met = np.bincount(codes)[codes] > 1
    if len(found):
        met |= pc.is_in(keys, found["message_id"].combine_chunks().cast(keys.type)).to_numpy(zero_copy_only=False)
    at = np.flatnonzero(met)
    return _Met(at, compare(feed, _looked_at(feed, rows).take(pa.array(at)), found), found) if len(at) else None


def _looked_at(feed: Feed, rows: pa.Table) -> pa.Table:
    """The columns by which rows are found and compared."""
    names = {"message_id", "exchange_date", "quality_flags", *feed.table.content}
    return rows.select([name for name in rows.column_names if name in names])


def _met_by_id(feed: Feed, rows: pa.Table, known: Mask, repeated: Mask, stored: StoredRows) -> _Met | None:
    """A key of a source with ids is first looked for near its own time, which finds a plain repetition.

    Where nothing is found there, or what is found differs, only all revisions over all dates can tell duplicate from
    revision, and which number it has.
    """
    at = np.flatnonzero(known | repeated)
    if not len(at):
        return None
    some, known = _looked_at(feed, rows).take(pa.array(at)), known[at]
    suspects = some.filter(pa.array(known))
    if not len(suspects):
        nothing = feed.table.arrow_schema().empty_table()
        return _Met(at, compare(feed, some, nothing), nothing)
    near = stored(_near(suspects))
    compared = compare(feed, some, near)
    unsure = _unsure(some, known & compared.is_new, near)
    if not len(unsure):
        return _Met(at, compared, near)
    others = near.filter(pc.invert(pc.is_in(near["message_id"], unsure)))
    symbols = tuple(sorted(pc.unique(suspects["symbol"]).to_pylist()))
    found = pa.concat_tables([others, stored(Wanted(unsure, symbols, None, None))])
    return _Met(at, compare(feed, some, found), found)


def _near(suspects: pa.Table) -> Wanted:
    days = {day + margin for day in _days(suspects) for margin in (-_DATE_MARGIN, timedelta(0), _DATE_MARGIN)}
    symbols = tuple(sorted(pc.unique(suspects["symbol"]).to_pylist()))
    return Wanted(suspects["message_id"].combine_chunks(), symbols, tuple(sorted(days)), _bounds(suspects))


def _days(rows: pa.Table) -> list[date]:
    days: list[date] = pc.unique(rows["exchange_date"]).to_pylist()
    return days


def _bounds(rows: pa.Table) -> tuple[datetime, datetime]:
    bounds = pc.min_max(rows["timestamp"]).as_py()
    return bounds["min"], bounds["max"]


def _unsure(some: pa.Table, open_: Mask, near: pa.Table) -> pa.Array:
    """Keys about which what is stored near their time does not say enough."""
    keys = some["message_id"].filter(pa.array(open_)).combine_chunks()
    revised = near["message_id"].filter(pc.greater(near["revision"], 0)).combine_chunks()
    return pc.unique(pa.concat_arrays([keys, revised.cast(keys.type)]))


def _verdict(
    feed: Feed, screened: Screened, rows: pa.Table, met: _Met | None, *, state: State, gaps: tuple[GapEvent, ...] = ()
) -> Verdict:
    outcome = np.full(len(rows), WRITTEN, np.int8)
    if met is None:
        return Verdict(in_table_order(feed, rows, screened.scopes, None), outcome, state, gaps)
    is_new, revision = met.compared.is_new, met.compared.revision
    outcome[met.at] = np.where(is_new, np.where(revision == 0, WRITTEN, REVISION), DUPLICATE)
    kept = np.flatnonzero(outcome != DUPLICATE)
    return Verdict(
        rows=in_table_order(feed, _with_revisions(rows, met), screened.scopes, kept),
        outcome=outcome,
        state=state,
        gaps=gaps,
        reverted=met.compared.reverted,
        precision_upgrades=met.compared.precision_upgrades,
        touched=_dates_of_revised(rows, met.stored, outcome),
    )


def _with_revisions(rows: pa.Table, met: _Met) -> pa.Table:
    revisions = np.zeros(len(rows), np.int32)
    revisions[met.at] = met.compared.revision
    at = rows.schema.get_field_index("revision")
    return rows.set_column(at, rows.schema.field("revision"), pa.array(revisions))


def _dates_of_revised(rows: pa.Table, stored: pa.Table, outcome: npt.NDArray[np.int8]) -> frozenset[date]:
    revised = rows["message_id"].filter(pa.array(outcome == REVISION))
    if not len(revised):
        return frozenset()
    first = rows.filter(pa.array(outcome == WRITTEN))
    older = [t.filter(pc.is_in(t["message_id"], revised.combine_chunks())) for t in (stored, first)]
    return frozenset(day for table in older for day in _days(table))
