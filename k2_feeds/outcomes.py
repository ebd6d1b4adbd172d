"""What becomes of one line of a source: a row, a rejection, or a count of what was passed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Refusal(StrEnum):
    """Why a source line is not sent. Stable: operators match on these words; shared ones equal k2_core.quality."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_A_CAPTURE_LINE = "not_a_capture_line"
    LINE_TOO_LONG = "line_too_long"
    WRONG_COLUMNS = "wrong_columns"
    HEADER = "header"
    MISSING_VALUE = "missing_value"
    WRONG_TYPE = "wrong_type"
    NOT_A_NUMBER = "not_a_number"
    NOT_POSITIVE = "not_positive"
    DECIMAL_OVERFLOW = "decimal_overflow"
    TOO_MANY_DECIMALS = "too_many_decimals"
    HALF_A_SIDE = "half_a_side"
    BAD_ID = "bad_id"
    BAD_SYMBOL = "bad_symbol"
    BAD_CONDITION = "bad_condition"
    UNKNOWN_FLAG = "unknown_flag"
    UNKNOWN_SYMBOL = "unknown_symbol"
    IMPLAUSIBLE_TIME = "implausible_time"
    DAMAGED_FILE = "damaged_file"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    NOT_AN_ARCHIVE = "not_an_archive"
    ENCRYPTED = "encrypted"
    SEVERAL_ENTRIES = "several_entries"
    WRONG_NAME = "wrong_name"
    ZIP_BOMB = "zip_bomb"
    MIXED_UNITS = "mixed_units"
    WRONG_DATE = "wrong_date"


class Unusable(Exception):
    """Carries a refusal from a field parser to the line parser, which turns it into a value; it never leaves a feed."""

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Row:
    """One row ready to send. record: the feed columns of its contract; decimals as Decimal, times in µs since 1970."""

    feed: str
    symbol: str
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejected:
    """One line that could not be sent, where it stands, and its bytes.

    feed and symbol are what could be told of it. damaged: the file could not be read on from here.
    """

    file: str
    line: int
    reason: Refusal
    detail: str
    raw: bytes
    feed: str | None = None
    symbol: str | None = None
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class PassedOver:
    """One line that is well but none of ours."""

    kind: str


Outcome = Row | Rejected | PassedOver
Outcomes = Iterator[Outcome]
