"""Hard and soft rules over the rows of one feed, vectorised. Hard: the row is a dead letter. Soft: a flag bit."""

from __future__ import annotations

from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.contracts import COVERAGE, QUOTES, TRADES
from k2_core.decode import Dead
from k2_core.exchange_dates import PLAUSIBLE_US, exchange_days, plausible_days
from k2_core.feeds import Feed
from k2_core.identity import symbol_problem
from k2_core.quality import FEED_FLAGS, Flag, Reason
from k2_core.verdict import Mask, Screened


def screen(feed: Feed, rows: pa.Table, today: date) -> Screened:
    """Split rows by the hard rules, flag the rest, and date every row by the calendar of its feed.

    rows: feed and lineage columns of one topic. today: UTC date of the commit, the latest plausible day but one.
    """
    days = exchange_days(int64s(rows["timestamp"]), feed.timezone)
    reasons = _hard(feed, rows, days, today)
    bad = np.logical_or.reduce([mask for mask, _, _ in reasons])
    dead = _dead(reasons, bad)
    dated = rows.append_column("exchange_date", pa.array(days, pa.int32()).cast(pa.date32()))
    dated = dated.append_column("revision", pa.array(np.zeros(len(dated), np.int32)))
    if "quality_flags" in dated.column_names:
        at = dated.schema.get_field_index("quality_flags")
        dated = dated.set_column(at, "quality_flags", pa.array(_flags(feed, rows), pa.int32()))
    good = np.flatnonzero(~bad)
    schema = feed.table.arrow_schema()
    kept = dated.select(schema.names).take(pa.array(good)).cast(schema)
    return Screened(kept.combine_chunks(), good, dead, _dead_ids(feed, rows, dead), today)


def int64s(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A column of integers or timestamps as numpy; a null is -1."""
    ints = column.cast(pa.int64()) if not pa.types.is_int64(column.type) else column
    out: npt.NDArray[np.int64] = pc.fill_null(ints, -1).to_numpy()
    return out


_Rule = tuple[Mask, Reason, str]


def _hard(feed: Feed, rows: pa.Table, days: npt.NDArray[np.int32], today: date) -> list[_Rule]:
    first, end = plausible_days(today)
    rules: list[_Rule] = [
        (_empty(rows["message_id"]), Reason.MISSING_VALUE, "message_id is empty"),
        *_time_rules(feed, rows),
        ((days < first) | (days >= end), Reason.IMPLAUSIBLE_TIME, f"exchange date outside [2010-01-01, {today} + 1]"),
    ]
    if feed.table.name == COVERAGE.name:
        return rules
    rules += _place_rules(feed, rows)
    if feed.table.name == TRADES.name:
        rules += [(_not_positive(rows[c]), Reason.NOT_POSITIVE, f"{c} must be above 0") for c in ("price", "quantity")]
    if feed.table.name == QUOTES.name:
        rules += _side_rules(rows, "bid") + _side_rules(rows, "ask")
    return [*rules, *(_dated_key_rules(feed, rows, days) if feed.rule == "none" else _id_rules(feed, rows))]


def _time_rules(feed: Feed, rows: pa.Table) -> list[_Rule]:
    """Every instant of the record, not only its event time: what no calendar holds no file can hold either."""
    low, high = PLAUSIBLE_US
    times = [c.name for c in feed.table.feed_columns if pa.types.is_timestamp(c.type)]
    rules = []
    for name in times:
        at = rows[name].cast(pa.int64())
        outside = _mask(pc.or_(pc.less(at, low), pc.greater_equal(at, high)))
        rules.append((outside, Reason.IMPLAUSIBLE_TIME, f"{name} outside [1990, 2100)"))
    return rules


def _place_rules(feed: Feed, rows: pa.Table) -> list[_Rule]:
    """Where the row claims to belong."""
    elsewhere = _mask(pc.not_equal(rows["exchange"], feed.exchange))
    other = _mask(pc.not_equal(rows["asset_class"], feed.asset_class))
    problems = {symbol: symbol_problem(symbol) for symbol in pc.unique(rows["symbol"]).to_pylist()}
    bad = pa.array([symbol for symbol, problem in problems.items() if problem], pa.string())
    return [
        (elsewhere, Reason.UNKNOWN_EXCHANGE, f"exchange is not {feed.exchange}"),
        (other, Reason.WRONG_ASSET_CLASS, f"asset_class is not {feed.asset_class}"),
        (_empty(rows["symbol"]), Reason.MISSING_VALUE, "symbol is empty"),
        (
            _mask(pc.is_in(rows["symbol"], bad)),
            Reason.BAD_SYMBOL,
            "symbol is blank, too long, or holds a forbidden letter",
        ),
    ]


def _dated_key_rules(feed: Feed, rows: pa.Table, days: npt.NDArray[np.int32]) -> list[_Rule]:
    """A key without an id names its own place, so that the rows of its symbol and date are all there is to compare."""
    dates = pa.chunked_array([pa.array(days, pa.int32()).cast(pa.date32()).cast(pa.string())])
    prefix = _joined(rows["exchange"], rows["symbol"], feed.kind, dates, "")
    begins = pc.equal(_beginnings(rows["message_id"], prefix), prefix)
    detail = f"message_id does not begin with exchange:symbol:{feed.kind}:exchange_date:"
    return [(~_mask(begins), Reason.KEY_MISMATCH, detail)]


def _beginnings(texts: pa.ChunkedArray, prefixes: pa.ChunkedArray) -> pa.Array:
    """As much of each text as its prefix is long."""
    pairs = zip(texts.to_pylist(), prefixes.to_pylist(), strict=True)
    return pa.array([text[: len(prefix)] for text, prefix in pairs], pa.string())


def _joined(*parts: pa.ChunkedArray | str) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(*parts, ":", null_handling="replace", null_replacement="")


def _side_rules(rows: pa.Table, side: str) -> list[_Rule]:
    price, quantity = rows[f"{side}_price"], rows[f"{side}_quantity"]
    half = _mask(pc.not_equal(pc.is_null(price), pc.is_null(quantity)))
    negative = _not_positive(price) | _not_positive(quantity)
    return [
        (half, Reason.HALF_A_SIDE, f"{side}_price and {side}_quantity must both be there or both be absent"),
        (negative, Reason.NOT_POSITIVE, f"{side} must be above 0; absent when nobody is there"),
    ]


def _id_rules(feed: Feed, rows: pa.Table) -> list[_Rule]:
    ids = rows["source_sequence"]
    expected = _joined(rows["exchange"], rows["symbol"], feed.kind, ids.cast(pa.string()))
    return [
        (_mask(pc.is_null(ids)), Reason.MISSING_VALUE, f"source_sequence is null; {feed.name} has ids"),
        (_mask(pc.less(ids, 0)), Reason.BAD_ID, "source_sequence is negative"),
        (
            _mask(pc.not_equal(rows["message_id"], expected)),
            Reason.KEY_MISMATCH,
            f"message_id is not exchange:symbol:{feed.kind}:source_sequence",
        ),
    ]


def _mask(values: pa.ChunkedArray) -> Mask:
    """A boolean column as numpy; a comparison with null is false."""
    out: Mask = pc.fill_null(values, False).to_numpy().astype(bool)
    return out


def _empty(column: pa.ChunkedArray) -> Mask:
    return _mask(pc.equal(pc.utf8_length(column), 0))


def _not_positive(column: pa.ChunkedArray) -> Mask:
    return _mask(pc.less_equal(column, pa.scalar(0, column.type)))


def _dead(rules: list[_Rule], bad: Mask) -> tuple[Dead, ...]:
    """The first rule a row breaks names it."""
    found: dict[int, Dead] = {}
    for mask, reason, detail in rules:
        for i in np.flatnonzero(mask).tolist():
            found.setdefault(i, Dead(i, reason, detail))
    assert len(found) == int(bad.sum())
    return tuple(found[i] for i in sorted(found))


def _flags(feed: Feed, rows: pa.Table) -> npt.NDArray[np.int32]:
    flags: npt.NDArray[np.int32] = rows["quality_flags"].to_numpy() & np.int32(FEED_FLAGS)
    early = _mask(pc.less(rows["ingestion_timestamp"], rows["timestamp"]))
    flags |= np.where(early, np.int32(Flag.RECEIVE_BEFORE_EVENT), np.int32(0))
    if feed.table.name == QUOTES.name:
        crossed = _mask(pc.greater(rows["bid_price"], rows["ask_price"]))
        absent = _mask(pc.or_(pc.is_null(rows["bid_price"]), pc.is_null(rows["ask_price"])))
        flags |= np.where(crossed, np.int32(Flag.CROSSED), np.int32(0))
        flags |= np.where(absent, np.int32(Flag.ONE_SIDED), np.int32(0))
    return flags


_SAYS_NOTHING = (Reason.UNKNOWN_EXCHANGE, Reason.KEY_MISMATCH)
"""A record of another place, or one that contradicts itself, does not account for the id it carries."""


def _dead_ids(feed: Feed, rows: pa.Table, dead: tuple[Dead, ...]) -> dict[str, npt.NDArray[np.int64]]:
    if feed.rule != "contiguous":
        return {}
    at = [d.index for d in dead if d.reason not in _SAYS_NOTHING]
    told = rows.select(["symbol", "source_sequence"]).take(pa.array(at, pa.int64()))
    found: dict[str, list[int]] = {}
    for symbol, number in zip(told["symbol"].to_pylist(), told["source_sequence"].to_pylist(), strict=True):
        if symbol and number is not None and number >= 0:
            found.setdefault(symbol, []).append(number)
    return {symbol: np.array(numbers, np.int64) for symbol, numbers in found.items()}
