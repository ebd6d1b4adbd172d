"""Names for what can be wrong with a row: soft findings are flag bits, hard ones are dead-letter reasons."""

from __future__ import annotations

from enum import IntFlag, StrEnum


class Flag(IntFlag):
    """Bits of `quality_flags`. A flagged row is stored; the bit says how to read it. Bits never change meaning."""

    VENDOR_EXCLUDED = 1 << 0
    """The vendor recommends leaving the print out of the series."""
    RECEIVE_TIME_AS_EVENT_TIME = 1 << 1
    """The source states no event time; ours of receipt stands in."""
    RECEIVE_BEFORE_EVENT = 1 << 2
    """Received before it happened: one of the two clocks is off."""
    CROSSED = 1 << 3
    """Bid above ask in this one message; venues update the sides one after the other. What stood: see `crosses`."""
    ONE_SIDED = 1 << 4
    """Nobody bids, or nobody asks."""
    OUT_OF_SESSION = 1 << 5
    """The exchange did not trade the symbol then: before the open, after the close, or on a day without trading."""


FEED_FLAGS = Flag.VENDOR_EXCLUDED | Flag.RECEIVE_TIME_AS_EVENT_TIME
"""Bits a feed may state; the judge decides the others."""
DOUBTFUL_FLAGS = Flag.VENDOR_EXCLUDED | Flag.RECEIVE_BEFORE_EVENT | Flag.CROSSED | Flag.OUT_OF_SESSION
"""Bits that say a row is hard to trust: view=clean leaves it out. The other two tell how a row came to be, or what is
true of the market: a time of receipt where the source states none, a side that nobody quotes."""


class Reason(StrEnum):
    """Why a record is a dead letter. Stable: operators and clients match on these words."""

    EMPTY = "empty"
    NULL_VALUE = "null_value"
    BAD_MAGIC = "bad_magic"
    UNKNOWN_SCHEMA = "unknown_schema"
    WRONG_RECORD = "wrong_record"
    TRUNCATED = "truncated"
    TRAILING_BYTES = "trailing_bytes"
    UNDECODABLE = "undecodable"
    DECIMAL_OVERFLOW = "decimal_overflow"
    MISSING_VALUE = "missing_value"
    NOT_POSITIVE = "not_positive"
    HALF_A_SIDE = "half_a_side"
    UNKNOWN_EXCHANGE = "unknown_exchange"
    KEY_MISMATCH = "key_mismatch"
    IMPLAUSIBLE_TIME = "implausible_time"
    BAD_ID = "bad_id"
    BAD_SYMBOL = "bad_symbol"
    WRONG_ASSET_CLASS = "wrong_asset_class"
    BAD_GAP = "bad_gap"
    BAD_ISSUE = "bad_issue"
    UNKNOWN_STATE = "unknown_state"
