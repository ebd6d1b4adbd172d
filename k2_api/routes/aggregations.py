"""Aggregations: averages, bars and profiles of some symbols over a range."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from fastapi import APIRouter, Request, Response

from k2_api.aggregations import Buckets, buckets_of
from k2_api.bar_answers import bar_reads, canonical, pinned_by
from k2_api.bar_models import AggregationQuestion
from k2_api.bar_shapes import AggregationAnswer
from k2_api.bar_texts import plain_texts
from k2_api.pinning import Pinned
from k2_api.problems import documented
from k2_api.responses import Data, cached, unless_gone
from k2_core.windows import iso

router = APIRouter(prefix="/v1", tags=["bars"])

_FILES = {"text/csv": {"schema": {"type": "string"}}, "application/octet-stream": {"schema": {"type": "string"}}}


@router.post(
    "/aggregations",
    responses={200: {"model": AggregationAnswer, "content": _FILES}, **documented(400, 404, 410, 413, 422, 504)},
)
async def aggregations(request: Request, question: AggregationQuestion) -> Response:
    """Averages, bars and profiles of the eligible prints in [start_time, end_time), by interval.

    An interval that the range cuts is of the prints inside alone.
    """
    return await unless_gone(request, _aggregations(request, question))


async def _aggregations(request: Request, question: AggregationQuestion) -> Response:
    pinned = await pinned_by(request, question)
    if question.format != "json":
        return _file(await _buckets(request, question, pinned), question, pinned)

    async def make() -> Data:
        buckets = await _buckets(request, question, pinned)
        rows = buckets.texts(question.metrics, numbers=question.decimals == "number")
        return Data(rows, {"request_summary": _summary(question, len(rows))})

    return await cached(request, (pinned,), canonical(request, pinned, question), make)


async def _buckets(request: Request, question: AggregationQuestion, pinned: Pinned) -> Buckets:
    asked = [question.asked(symbol) for symbol in dict.fromkeys(question.symbols)]
    numbers = question.decimals == "number" and question.format == "json"
    profiled = "volume_profile" in question.metrics
    return await buckets_of(bar_reads(request), pinned, asked, profiled=profiled, numbers=numbers)


def _summary(question: AggregationQuestion, count: int) -> dict[str, Any]:
    return {
        "symbols": question.symbols,
        "metrics": question.metrics,
        "interval": question.interval,
        "start_time": iso(question.start_time),
        "end_time": iso(question.end_time),
        "bucket_count": count,
    }


def _file(buckets: Buckets, question: AggregationQuestion, pinned: Pinned) -> Response:
    table, sink = buckets.table(question.metrics), pa.BufferOutputStream()
    if question.format == "csv":
        pacsv.write_csv(pa.table({name: plain_texts(table[name]) for name in table.column_names}), sink)
    else:
        pq.write_table(table, sink)
    headers = {
        "Content-Disposition": f'attachment; filename="aggregations.{question.format}"',
        "X-Record-Count": str(len(table)),
        "K2-Row-Count": str(len(table)),
        "K2-Version": pinned.version,
        "Cache-Control": "no-store",
    }
    media_type = "text/csv; charset=utf-8" if question.format == "csv" else "application/octet-stream"
    return Response(sink.getvalue().to_pybytes(), 200, headers, media_type)
