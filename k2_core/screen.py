"""Hard and soft rules over the rows of one feed, vectorised. Hard: the row is a dead letter. Soft: a flag bit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.contracts import COVERAGE, INSTRUMENTS, QUOTES, TRADES
from k2_core.decode import Dead
from k2_core.exchange_dates import PLAUSIBLE_US, local_times, plausible_days
from k2_core.feeds import Feed
from k2_core.identity import dated_prefix, key_prefix, symbol_problem
from k2_core.instruments import effective_days, instrument_rules
from k2_core.issues import issue_rules
from k2_core.quality import FEED_FLAGS, Flag, Reason
from k2_core.scopes import Scopes, dense
from k2_core.sequences import EVER_MS
from k2_core.sessions import Sessions, within
from k2_core.statements import statement_rules
from k2_core.verdict import DeadIds, Mask, Screened
from k2_core.windows import DAY_US

Days = npt.NDArray[np.int32]
Flags = npt.NDArray[np.int32]
_US_PER_MS = 1_000


def screen(feed: Feed, rows: pa.Table, today: date) -> Screened:
    """Split rows by the hard rules, flag the rest, and date every row by the calendar of its feed.

    rows: feed and lineage columns of one topic. today: UTC date of the commit, the latest plausible day but one.
    """
    rows = rows.combine_chunks()
    times = int64s(rows["timestamp"])
    local = local_times(times, feed.timezone)
    days = (local // DAY_US).astype(np.int32)
    scopes = Scopes.of(rows["symbol"])
    broken = [rule for rule in _hard(feed, rows, scopes, days, today) if rule[0].any()]
    flags = _flags(feed, rows, times, _out_of_session(feed.sessions, scopes, local))
    kept = _contract_columns(feed, rows, flags, days)
    if not broken:
        return Screened(kept, np.arange(len(rows)), (), {}, today, scopes)
    good = np.flatnonzero(~np.logical_or.reduce([mask for mask, _, _ in broken]))
    dead = _dead(broken)
    dead_ids = _dead_ids(feed, rows, broken, _session_times(times, days, today))
    return Screened(kept.take(pa.array(good)), good, dead, dead_ids, today, scopes.kept(good))


def int64s(column: pa.ChunkedArray, absent: int = -1) -> npt.NDArray[np.int64]:
    """A column of integers or timestamps as numpy; a null is `absent`."""
    ints = column.cast(pa.int64()) if not pa.types.is_int64(column.type) else column
    out: npt.NDArray[np.int64] = (pc.fill_null(ints, absent) if ints.null_count else ints).to_numpy()
    return out


def _contract_columns(feed: Feed, rows: pa.Table, flags: Flags | None, days: Days) -> pa.Table:
    """All columns of the contract, revision 0, with the flags the judge decides."""
    columns = {name: rows[name] for name in rows.column_names}
    columns["exchange_date"] = pa.array(days, pa.int32()).cast(pa.date32())
    columns["revision"] = pa.array(np.zeros(len(rows), np.int32))
    if flags is not None:
        columns["quality_flags"] = pa.array(flags)
    schema = feed.table.arrow_schema()
    return pa.table([columns[field.name].cast(field.type) for field in schema], schema=schema)


_Rule = tuple[Mask, Reason, str]
_NOBODY: Mask = np.zeros(1, bool)


def _hard(feed: Feed, rows: pa.Table, scopes: Scopes, days: Days, today: date) -> Iterator[_Rule]:
    """Every rule with the rows that break it; a row is named by the first of them."""
    first, end = plausible_days(today)
    yield _empty(rows["message_id"]), Reason.MISSING_VALUE, "message_id is empty"
    yield from _time_rules(feed, rows)
    outside = _outside(days, first, end)
    yield outside, Reason.IMPLAUSIBLE_TIME, f"exchange date outside [2010-01-01, {today} + 1]"
    if feed.table.name == COVERAGE.name:
        yield from statement_rules(rows)
        yield from issue_rules(rows)
        return
    yield from _place_rules(feed, rows, scopes)
    if feed.table.name == TRADES.name:
        for name in ("price", "quantity"):
            yield _not_positive(rows[name]), Reason.NOT_POSITIVE, f"{name} must be above 0"
    if feed.table.name == QUOTES.name:
        yield from _side_rules(rows, "bid")
        yield from _side_rules(rows, "ask")
    if feed.table.name == INSTRUMENTS.name:
        yield from instrument_rules(rows)
        days = effective_days(rows)
    yield from _dated_key_rules(feed, rows, scopes, days) if feed.rule == "none" else _id_rules(feed, rows, scopes)


def _time_rules(feed: Feed, rows: pa.Table) -> Iterator[_Rule]:
    """Every instant of the record, not only its event time: what no calendar holds no file can hold either."""
    low, high = PLAUSIBLE_US
    for column in feed.table.feed_columns:
        if pa.types.is_timestamp(column.type):
            outside = _outside(int64s(rows[column.name], absent=low), low, high)
            yield outside, Reason.IMPLAUSIBLE_TIME, f"{column.name} outside [1990, 2100)"


def _place_rules(feed: Feed, rows: pa.Table, scopes: Scopes) -> Iterator[_Rule]:
    """Where the row claims to belong."""
    elsewhere = _mask(pc.not_equal(rows["exchange"], feed.exchange))
    yield elsewhere, Reason.UNKNOWN_EXCHANGE, f"exchange is not {feed.exchange}"
    other = _mask(pc.not_equal(rows["asset_class"], feed.asset_class))
    yield other, Reason.WRONG_ASSET_CLASS, f"asset_class is not {feed.asset_class}"
    yield _of_symbols(scopes, [not name for name in scopes.names]), Reason.MISSING_VALUE, "symbol is empty"
    problems = [symbol_problem(name) is not None for name in scopes.names]
    detail = "symbol is blank, too long, or holds a forbidden letter"
    yield _of_symbols(scopes, problems), Reason.BAD_SYMBOL, detail


def _of_symbols(scopes: Scopes, which: list[bool]) -> Mask:
    """The rows of the marked symbols."""
    return np.array(which, bool)[scopes.codes] if any(which) else _NOBODY


def _dated_key_rules(feed: Feed, rows: pa.Table, scopes: Scopes, days: Days) -> Iterator[_Rule]:
    """A key without an id names its own place, so that the rows of its symbol and date are all there is to compare.

    days: those the keys must name.
    """
    present, day_codes = dense(days)
    dates = present.astype("datetime64[D]").tolist()
    places, which = dense(scopes.codes.astype(np.int64) * len(dates) + day_codes)
    prefixes = [
        dated_prefix(feed.exchange, scopes.names[code], feed.kind, dates[day])
        for code, day in (divmod(place, len(dates)) for place in places.tolist())
    ]
    mismatch = ~_begins_with(rows["message_id"], pa.array(prefixes, pa.string()), which)
    yield (
        mismatch,
        Reason.KEY_MISMATCH,
        f"message_id does not begin with exchange:symbol:{feed.kind}:{feed.table.dated_by}:",
    )


def _begins_with(texts: pa.ChunkedArray, prefixes: pa.Array, which: npt.NDArray[np.int64]) -> Mask:
    """Whether each text begins with prefixes[which]; compared by byte, all of one length at a time."""
    raw = texts.combine_chunks().cast(pa.binary())
    lengths = pc.binary_length(prefixes).to_numpy()
    begins = np.zeros(len(raw), bool)
    for length in np.unique(lengths).tolist():
        at = pa.array(np.flatnonzero(lengths[which] == length))
        some = raw if len(at) == len(raw) else raw.take(at)
        expected = prefixes.cast(pa.binary()).take(pa.array(which).take(at))
        begins[at.to_numpy()] = _mask(pc.equal(pc.binary_slice(some, 0, length), expected))
    return begins


def _side_rules(rows: pa.Table, side: str) -> Iterator[_Rule]:
    price, quantity = rows[f"{side}_price"], rows[f"{side}_quantity"]
    if price.null_count or quantity.null_count:
        half = _mask(pc.not_equal(pc.is_null(price), pc.is_null(quantity)))
        yield half, Reason.HALF_A_SIDE, f"{side}_price and {side}_quantity must both be there or both be absent"
    negative = _not_positive(price) | _not_positive(quantity)
    yield negative, Reason.NOT_POSITIVE, f"{side} must be above 0; absent when nobody is there"


def _id_rules(feed: Feed, rows: pa.Table, scopes: Scopes) -> Iterator[_Rule]:
    ids, keys = rows["source_sequence"], rows["message_id"].combine_chunks()
    if ids.null_count:
        yield _mask(pc.is_null(ids)), Reason.MISSING_VALUE, f"source_sequence is null; {feed.name} has ids"
    yield int64s(ids, absent=0) < 0, Reason.BAD_ID, "source_sequence is negative"
    prefixes = scopes.by_name([key_prefix(feed.exchange, name, feed.kind) for name in scopes.names])
    expected = pc.binary_join_element_wise(prefixes, ids.combine_chunks().cast(pa.string()), "")
    mismatch = _NOBODY if expected.equals(keys) else _mask(pc.not_equal(keys, expected))
    yield mismatch, Reason.KEY_MISMATCH, f"message_id is not exchange:symbol:{feed.kind}:source_sequence"


def _mask(values: pa.Array | pa.ChunkedArray) -> Mask:
    """A boolean column as numpy; a comparison with null is false."""
    known = pc.fill_null(values, False) if values.null_count else values
    out: Mask = known.to_numpy() if isinstance(known, pa.ChunkedArray) else known.to_numpy(zero_copy_only=False)
    return out


def _outside(values: npt.NDArray[np.signedinteger[Any]], low: int, end: int) -> Mask:
    """Which are not in [low, end)."""
    if not len(values) or (values.min() >= low and values.max() < end):
        return _NOBODY
    return (values < low) | (values >= end)


def _empty(column: pa.ChunkedArray) -> Mask:
    return _mask(pc.equal(pc.binary_length(column), 0))


def _not_positive(column: pa.ChunkedArray) -> Mask:
    return _mask(pc.less_equal(column, pa.scalar(0, column.type)))


def _dead(rules: list[_Rule]) -> tuple[Dead, ...]:
    """The first rule a row breaks names it."""
    found: dict[int, Dead] = {}
    for mask, reason, detail in rules:
        for i in np.flatnonzero(mask).tolist():
            found.setdefault(i, Dead(i, reason, detail))
    return tuple(found[i] for i in sorted(found))


def _flags(feed: Feed, rows: pa.Table, times: npt.NDArray[np.int64], out_of_session: Mask) -> Flags | None:
    """The bits of each row; None for a table that has none. Each depends on its own row alone, never on the batch."""
    if "quality_flags" not in rows.column_names:
        return None
    flags: Flags = rows["quality_flags"].to_numpy() & np.int32(FEED_FLAGS)
    flags |= np.where(out_of_session, np.int32(Flag.OUT_OF_SESSION), np.int32(0))
    flags |= np.where(int64s(rows["ingestion_timestamp"]) < times, np.int32(Flag.RECEIVE_BEFORE_EVENT), np.int32(0))
    if feed.table.name == QUOTES.name:
        bid, ask = rows["bid_price"], rows["ask_price"]
        flags |= np.where(_mask(pc.greater(bid, ask)), np.int32(Flag.CROSSED), np.int32(0))
        if bid.null_count or ask.null_count:
            absent = _mask(pc.or_(pc.is_null(bid), pc.is_null(ask)))
            flags |= np.where(absent, np.int32(Flag.ONE_SIDED), np.int32(0))
    return flags


def _out_of_session(sessions: Sessions | None, scopes: Scopes, local: npt.NDArray[np.int64]) -> Mask:
    """Which rows happened while their exchange did not trade their symbol. local: µs of the exchange's clock."""
    return _NOBODY if sessions is None else ~within(sessions.trading, scopes.names, scopes.codes, local)


_SAYS_NOTHING = (Reason.UNKNOWN_EXCHANGE, Reason.KEY_MISMATCH)
"""A record of another place, or one that contradicts itself, does not account for the id it carries."""


def _session_times(times: npt.NDArray[np.int64], days: Days, today: date) -> npt.NDArray[np.int64]:
    """Event times in ms, to find the numbering of a dead id; a time that cannot be true names the first one."""
    first, end = plausible_days(today)
    return np.where((days < first) | (days >= end), EVER_MS, times // _US_PER_MS)


def _dead_ids(feed: Feed, rows: pa.Table, broken: list[_Rule], times_ms: npt.NDArray[np.int64]) -> DeadIds:
    if feed.rule != "contiguous":
        return {}
    dead = np.logical_or.reduce([mask for mask, _, _ in broken])
    silent = [mask for mask, reason, _ in broken if reason in _SAYS_NOTHING]
    at = np.flatnonzero(dead & ~np.logical_or.reduce([np.zeros(len(rows), bool), *silent]))
    told = rows.select(["symbol", "source_sequence"]).take(pa.array(at))
    found: dict[str, set[tuple[int, int]]] = {}
    entries = zip(told["symbol"].to_pylist(), times_ms[at].tolist(), told["source_sequence"].to_pylist(), strict=True)
    for symbol, time_ms, number in entries:
        if symbol and number is not None and number >= 0:
            found.setdefault(symbol, set()).add((time_ms, number))
    return {symbol: frozenset(pairs) for symbol, pairs in found.items()}
