"""Answers about bars: the state they show, their envelope, and where the next page begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from fastapi import Request
from pydantic import BaseModel

from k2_api.bar_models import Pins
from k2_api.bar_pages import BarPage
from k2_api.bar_reads import BarReads
from k2_api.bar_texts import json_rows
from k2_api.cursors import Cursor, digest
from k2_api.models import Question
from k2_api.pinning import Pinned
from k2_api.questions import At
from k2_api.responses import backend
from k2_core.contracts import TRADES

_PRICES = ("open_price", "high_price", "low_price", "close_price")
_TOLD = ("volume", "trade_count", "excluded_count", "vwap", "twap", "twap_coverage", "gap_count", "is_final")

Columns = list[tuple[str, pa.ChunkedArray | pa.Array | str]]


@dataclass(frozen=True)
class Turn:
    """Where a client is in the pages of a question. after: key of the last bar it has; None on the first page."""

    question: str
    at: At
    after: tuple[Any, ...] | None = None
    offset: int = 0


def bar_reads(request: Request) -> BarReads:
    """The reads of bars of the app a request came to."""
    found: BarReads = request.app.state.bars
    return found


async def pinned_by(request: Request, question: Pins) -> Pinned:
    """The state of the trades that a question without pages is about."""
    return await backend(request).reads.pin(TRADES, question.at())


def turn_of(request: Request, question: Question, pins: Pins) -> Turn:
    """Read the cursor of a question. Raises Problem 400 for one that is not ours or belongs to another question."""
    asked = digest(TRADES.name, request.url.path, question.filters())
    if question.cursor is None:
        return Turn(asked, pins.at())
    cursor = backend(request).cursors.open(question.cursor, asked)
    return Turn(asked, At(version=cursor.version), cursor.key, cursor.offset)


def canonical(request: Request, pinned: Pinned, question: BaseModel) -> str:
    """Everything an answer about bars depends on beside its state: the question, and the rules it is computed by."""
    return f"{bar_reads(request).digest(pinned)} {question.model_dump_json()}"


def pagination_of(request: Request, question: Question, pinned: Pinned, page: BarPage, turn: Turn) -> dict[str, Any]:
    """Where a page lies."""
    following = None
    if page.next_key is not None and pinned.snapshot_id is not None:
        offset = turn.offset + len(page.bars)
        cursor = Cursor(turn.question, pinned.version, page.next_key, offset)
        following = backend(request).cursors.seal(cursor)
    return {
        "limit": question.limit,
        "offset": turn.offset,
        "total": page.total,
        "has_more": following is not None,
        "next_cursor": following,
    }


def ohlcv_texts(bars: pa.Table, timeframe: str, *, numbers: bool) -> list[str]:
    """Bars in the shape of the original platform."""
    columns: Columns = [("symbol", bars["symbol"]), ("exchange", bars["exchange"]), ("timeframe", timeframe)]
    names = ("window_start", "window_end", *_PRICES, "volume", "trade_count", "vwap")
    return json_rows([*columns, *((name, bars[name]) for name in names)], numbers=numbers)


def bar_texts(bars: pa.Table, interval: str, *, numbers: bool) -> list[str]:
    """Bars with all K2 tells of them. bars: with `is_filled` where windows were filled."""
    columns: Columns = [("symbol", bars["symbol"]), ("exchange", bars["exchange"]), ("interval", interval)]
    is_filled = bars["is_filled"] if "is_filled" in bars.column_names else pa.repeat(False, len(bars))
    names = ("exchange_date", "window_start", "window_end", *_PRICES, *_TOLD)
    last: Columns = [("is_filled", is_filled), ("conditions_version", bars["conditions_version"])]
    return json_rows([*columns, *((name, bars[name]) for name in names), *last], numbers=numbers)


def summary_text(bar: pa.Table, *, numbers: bool) -> str:
    """One daily bar as a summary."""
    columns: Columns = [("symbol", bar["symbol"]), ("exchange", bar["exchange"]), ("date", bar["exchange_date"])]
    names = ("window_start", "window_end", *_PRICES, *_TOLD, "conditions_version")
    return json_rows([*columns, *((name, bar[name]) for name in names)], numbers=numbers)[0]
