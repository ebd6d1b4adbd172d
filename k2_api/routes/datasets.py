"""Datasets: which feeds there are, what their rows look like, what they span, and how good each date is."""

from __future__ import annotations

import json
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from k2_api.dataset_models import ConditionAnswer, DatasetsAnswer, RangeAnswer, SchemaAnswer
from k2_api.ledger_models import WORD_CHARACTERS_MAX, ConditionQuestion
from k2_api.ledger_pages import Turn, entries_response, later, rendered, told_response, turn_of
from k2_api.ledgers import Row, ledgers
from k2_api.problems import Problem, documented
from k2_api.questions import Ticks
from k2_api.responses import backend, data_response, not_modified, unless_gone
from k2_core.contracts import CONTRACT_VERSION, TICK_TABLES, Column
from k2_core.feeds import Feed

router = APIRouter(prefix="/v1", tags=["datasets"])
Name = Annotated[str, Path(description="A dataset.", max_length=WORD_CHARACTERS_MAX, examples=["asx-trades"])]


@router.get("/datasets", responses={200: {"model": DatasetsAnswer}, **documented(422, 504)})
async def datasets(request: Request) -> Response:
    """Every feed of trades and quotes, by name."""
    return data_response(request, (), rendered(_about(feed) for feed in _feeds(request).values()))


@router.get("/datasets/{dataset}/schema", responses={200: {"model": SchemaAnswer}, **documented(404, 422, 504)})
async def schema(request: Request, dataset: Name) -> Response:
    """The columns of a dataset: what each means, its type and unit, and who states it."""
    table = _feed(request, dataset).table
    told = {
        "dataset": dataset,
        "table": table.name,
        "grain": table.grain,
        "key": table.key,
        "partition": table.partition,
        "sort": table.sort,
        "contract_version": CONTRACT_VERSION,
        "columns": [_column(column) for column in table.columns],
    }
    return told_response(request, (), told)


@router.get("/datasets/{dataset}/range", responses={200: {"model": RangeAnswer}, **documented(404, 422, 504)})
async def range_(request: Request, dataset: Name) -> Response:
    """Event time and exchange date of the first and the last row of a dataset."""
    return await unless_gone(request, _range(request, _feed(request, dataset)))


@router.get(
    "/datasets/{dataset}/condition", responses={200: {"model": ConditionAnswer}, **documented(400, 404, 422, 504)}
)
async def condition(request: Request, dataset: Name, question: Annotated[ConditionQuestion, Query()]) -> Response:
    """How good each exchange date of a dataset is, newest first: dates with rows, and dates that were closed."""
    feed = _feed(request, dataset)
    return await unless_gone(request, _condition(request, feed, question, turn_of(request, question)))


async def _range(request: Request, feed: Feed) -> Response:
    reads = backend(request).reads
    pinned = await reads.pin(feed.table)
    if unchanged := not_modified(request, (pinned,)):
        return unchanged
    ends = [
        await reads.page(pinned, Ticks(exchanges=(feed.exchange,), limit=1, descending=descending), None)
        for descending in (False, True)
    ]
    first, last = ({} if not end.rows else json.loads(end.rows[0]) for end in ends)
    told = {
        "dataset": feed.name,
        "first_timestamp": first.get("timestamp"),
        "last_timestamp": last.get("timestamp"),
        "first_date": first.get("exchange_date"),
        "last_date": last.get("exchange_date"),
    }
    return told_response(request, (pinned,), told)


async def _condition(request: Request, feed: Feed, question: ConditionQuestion, turn: Turn) -> Response:
    books = ledgers(request)
    receipts, touched = await books.touched_dates(feed.table, feed.name)
    days, told = await books.verdicts(feed.name, question.date_start, question.date_end)
    if unchanged := not_modified(request, (receipts, days)):
        return unchanged
    dates = {day for day in touched if question.date_start <= day < question.date_end} | told.keys()
    found = [_dated(day, touched.get(day), told.get(day, [])) for day in sorted(dates, reverse=True)]
    entries = [((row["date"],), row) for row in found]
    return entries_response(request, (receipts, days), question, later(entries, turn), turn, total=len(entries))


def _dated(day: date, touched: Row | None, told: list[Row]) -> dict[str, Any]:
    """How one date is. touched: what commits stored of it. told: what was said of its symbols, per verdict."""
    verdicts = {row["verdict"]: row["days"] for row in told}
    missing = [row["missing"] for row in told if row["missing"] is not None]
    return {
        "date": day.isoformat(),
        "condition": _word(verdicts),
        "verdicts": verdicts,
        "rows_stored": touched["rows"] if touched else 0,
        "rows_missing": sum(missing) if missing else None,
        "last_modified": touched and touched["last_modified"],
        "closed": max((row["closed"] for row in told), default=None),
    }


def _word(verdicts: dict[str, int]) -> str:
    if not verdicts:
        return "pending"
    if set(verdicts) == {"not_collected"}:
        return "missing"
    return "degraded" if "incomplete" in verdicts else "available"


def _feeds(request: Request) -> dict[str, Feed]:
    return {feed.name: feed for feed in sorted(request.app.state.feeds, key=_name) if feed.table in TICK_TABLES}


def _feed(request: Request, dataset: str) -> Feed:
    feeds = _feeds(request)
    if dataset not in feeds:
        raise Problem(404, "NOT_FOUND", f"no dataset {dataset!r}; there are {', '.join(feeds)}")
    return feeds[dataset]


def _name(feed: Feed) -> str:
    return feed.name


def _about(feed: Feed) -> dict[str, Any]:
    return {
        "dataset": feed.name,
        "table": feed.table.name,
        "grain": feed.table.grain,
        "exchange": feed.exchange,
        "asset_class": feed.asset_class,
        "sequence_rule": feed.rule,
        "timezone": feed.timezone,
        "sessions": feed.sessions and feed.sessions.name,
        "source_of_record": feed.source_of_record and feed.source_of_record.reader,
        "topic": feed.topic,
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": str(column.type),
        "nullable": column.nullable,
        "unit": column.unit or None,
        "description": column.doc,
        "choices": column.choices,
        "is_content": column.content,
        "stated_by": column.origin,
    }
