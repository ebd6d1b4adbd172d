"""Days: what K2 says of each exchange date of each symbol, and the certificate of its rows."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from k2_api.ledger_models import (
    CLOSING_COLUMNS,
    WORD_CHARACTERS_MAX,
    Day,
    DayAnswer,
    DayQuestion,
    DaysAnswer,
    DaysQuestion,
)
from k2_api.ledger_pages import Turn, entries_response, rendered, turn_of
from k2_api.ledgers import Row, ledgers
from k2_api.problems import Problem, documented
from k2_api.responses import data_response, not_modified, unless_gone
from k2_core.contracts import DAYS

router = APIRouter(prefix="/v1", tags=["ledgers"])


@router.get("/days", responses={200: {"model": DaysAnswer}, **documented(400, 422, 504)})
async def days(request: Request, question: Annotated[DaysQuestion, Query()]) -> Response:
    """Closed exchange dates, newest first: by default what was said of each last."""
    return await unless_gone(request, _days(request, question, turn_of(request, question)))


@router.get("/days/{exchange}/{symbol}/{date}", responses={200: {"model": DayAnswer}, **documented(404, 422, 504)})
async def day(
    request: Request,
    exchange: Annotated[
        str, Path(description="Exchange, upper-cased.", max_length=WORD_CHARACTERS_MAX, examples=["ASX"])
    ],
    symbol: Annotated[
        str, Path(description="As the exchange writes it.", max_length=WORD_CHARACTERS_MAX, examples=["BHP"])
    ],
    at: Annotated[Day, Path(alias="date", description="Exchange-local date.", examples=["2014-03-11"])],
    question: Annotated[DayQuestion, Query()],
) -> Response:
    """One exchange date of one symbol, per feed: its verdict, its certificate, and every version there was."""
    return await unless_gone(request, _day(request, (exchange.upper(), symbol, at), question))


async def _days(request: Request, question: DaysQuestion, turn: Turn) -> Response:
    books = ledgers(request)
    at = await books.pin(DAYS)
    if unchanged := not_modified(request, (at,)):
        return unchanged
    after = turn.after or (None,) * 4
    values = {
        "feed": question.feed,
        "exchange": question.exchange,
        "symbol": question.symbol,
        "verdict": question.verdict,
        "every_version": question.versions == "all",
        "date_start": question.date_start,
        "date_end": question.date_end,
        **dict(zip(("after_date", "after_feed", "after_symbol", "after_version"), after, strict=True)),
        "limit": question.limit + 1,
    }
    entries = [(_key(row), row) for row in await books.rows(at, "closings", values)]
    return entries_response(request, (at,), question, entries, turn)


async def _day(request: Request, where: tuple[str, str, date], question: DayQuestion) -> Response:
    """where: exchange, symbol, exchange date."""
    books, version = ledgers(request), question.version
    at = await books.pin(DAYS)
    told = await books.closings_of(at, *where, question.feed)
    found = [_told(rows, version) for rows in told.values() if version in (None, *(r["version"] for r in rows))]
    if not found:
        raise Problem(404, "NOT_FOUND", f"{where[2]} of this symbol was never closed{f' as {version}' * bool(version)}")
    request.state.canonical = question.model_dump_json()
    return data_response(request, (at,), rendered(found))


def _told(versions: list[Row], version: int | None) -> dict[str, Any]:
    """One feed's day. versions: in their order."""
    chosen = versions[-1] if version is None else next(row for row in versions if row["version"] == version)
    return {
        "feed": chosen["feed"],
        "table": chosen["table_name"],
        "verdict": chosen["verdict"],
        "certificate": chosen,
        "versions": [{name: row[name] for name in CLOSING_COLUMNS} for row in versions],
    }


def _key(row: Row) -> tuple[int | str, ...]:
    return row["exchange_date"].isoformat(), row["feed"], row["symbol"], row["version"]
