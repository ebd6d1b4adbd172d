"""Reference data: which descriptions of instruments can be believed, and which of them holds on a date."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.exchange_dates import EFFECTIVE_DATES
from k2_core.quality import Reason
from k2_core.verdict import Mask

Rule = tuple[Mask, Reason, str]
_EPOCH = date(1970, 1, 1)
_FIRST_DAY, _END_DAY = ((day - _EPOCH).days for day in EFFECTIVE_DATES)
_DAY_MAX = (date.max - _EPOCH).days
"""What a calendar holds; a column of dates holds six million years."""


def instrument_rules(rows: pa.Table) -> Iterator[Rule]:
    """Every rule about descriptions with the rows that break it. rows: feed columns of market_data.instruments."""
    first, end = _days(rows["valid_from"]), _days(rows["valid_to"], absent=_DAY_MAX)
    outside = (first < _FIRST_DAY) | (first >= _END_DAY)
    yield outside, Reason.IMPLAUSIBLE_TIME, f"valid_from outside [{EFFECTIVE_DATES[0]}, {EFFECTIVE_DATES[1]})"
    yield (end <= first) | (end > _DAY_MAX), Reason.IMPLAUSIBLE_TIME, "valid_to is not after valid_from, or no date"
    for name in ("price_increment", "quantity_increment"):
        not_above = pc.fill_null(pc.less_equal(rows[name], pa.scalar(0, rows[name].type)), False).to_numpy()
        yield not_above, Reason.NOT_POSITIVE, f"{name} must be above 0; absent when there is none"


def effective_days(rows: pa.Table) -> npt.NDArray[np.int32]:
    """The days from which descriptions hold, since 1970-01-01; those outside come back as the nearest day inside."""
    return np.clip(_days(rows["valid_from"]), _FIRST_DAY, _END_DAY - 1)


def _days(dates: pa.ChunkedArray, absent: int = 0) -> npt.NDArray[np.int32]:
    out: npt.NDArray[np.int32] = pc.fill_null(dates.cast(pa.int32()), absent).to_numpy()
    return out


def in_force(rows: pa.Table, day: date) -> pa.Table:
    """The description of every instrument that holds on a date, one row each, by instrument_id.

    rows: market_data.instruments, every revision, in any order. Of a key the newest revision counts; of an instrument
    the last description that began by then, unless it has ended.
    """
    newest = _last_of_each(rows, ("message_id",), ("revision",))
    begun = newest.filter(pc.less_equal(newest["valid_from"], day))
    latest = _last_of_each(begun, ("exchange", "instrument_id"), ("valid_from", "ingestion_timestamp", "message_id"))
    has_ended = pc.fill_null(pc.less_equal(latest["valid_to"], day), False)
    return latest.filter(pc.invert(has_ended))


def _last_of_each(rows: pa.Table, key: tuple[str, ...], order: tuple[str, ...]) -> pa.Table:
    """The last row of each key, in the order given."""
    if not len(rows):
        return rows
    ordered = rows.sort_by([(name, "ascending") for name in (*key, *order)])
    ends = np.ones(len(ordered), bool)
    same = np.ones(len(ordered) - 1, bool)
    for name in key:
        column = ordered[name].combine_chunks()
        same &= np.asarray(pc.equal(column[:-1], column[1:]))
    ends[:-1] = ~same
    return ordered.filter(pa.array(ends))
