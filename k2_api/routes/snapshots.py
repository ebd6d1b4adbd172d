"""The history of the tables: their snapshots, what each holds, in what two differ, and the names some have."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from k2_api.answers import Asked, answer_ticks
from k2_api.formats import JSON, negotiated
from k2_api.histories import TABLES, difference_answer, snapshots_answer, state_answer, tags_answer
from k2_api.history_models import (
    DifferenceAnswer,
    DifferenceQuestion,
    SnapshotQuery,
    SnapshotQueryAnswer,
    StateAnswer,
    TagsAnswer,
)
from k2_api.models import SnapshotsAnswer
from k2_api.problems import Problem, documented
from k2_api.questions import At
from k2_api.responses import backend, unless_gone
from k2_api.tick_answers import written
from k2_core.contracts import Table
from k2_core.windows import iso

router = APIRouter(prefix="/v1", tags=["snapshots"])
TableParameter = Annotated[str, Query(description="trades or quotes.", max_length=200)]
SnapshotId = Annotated[int, Path(ge=0, lt=2**63, description="Id of a snapshot, retained or not.")]


@router.get("/snapshots", responses={200: {"model": SnapshotsAnswer}, **documented(400, 422, 504)})
async def snapshots(
    request: Request,
    table: TableParameter = "trades",
    limit: Annotated[int, Query(ge=1, le=100, description="Snapshots, newest first.")] = 10,
) -> Response:
    """The retained snapshots of a table, newest first."""
    return await unless_gone(request, snapshots_answer(request, _table(table), limit))


@router.get("/snapshots/diff", responses={200: {"model": DifferenceAnswer}, **documented(400, 404, 410, 422, 504)})
async def difference(request: Request, question: Annotated[DifferenceQuestion, Query()]) -> Response:
    """Rows that the later of two states shows anew, and rows it shows no more because they were corrected."""
    return await unless_gone(request, difference_answer(request, question))


@router.get("/snapshots/{snapshot_id}", responses={200: {"model": StateAnswer}, **documented(400, 404, 410, 422, 504)})
async def snapshot(request: Request, snapshot_id: SnapshotId, table: TableParameter = "trades") -> Response:
    """The state one snapshot left, also long after it expired: its version, its offsets and its files."""
    return await unless_gone(request, state_answer(request, _table(table), snapshot_id))


@router.post(
    "/snapshots/{snapshot_id}/query",
    responses={**written(SnapshotQueryAnswer), **documented(400, 404, 410, 413, 422, 504)},
)
async def snapshot_query(request: Request, snapshot_id: SnapshotId, query: SnapshotQuery) -> Response:
    """Rows of the state one snapshot left: the same bytes for ever, whatever is rewritten or forgotten."""
    named = await backend(request).reads.pin(TABLES[query.data_type], At(snapshot_id=snapshot_id))
    told = {"snapshot_id": snapshot_id, "snapshot_timestamp": iso(named.commit_time) if named.commit_time else None}
    asked = Asked(
        table=named.table,
        ticks=query.ticks(),
        at=At(snapshot_id=snapshot_id),
        format=(format_ := negotiated(request.headers.get("Accept", ""), query.format)),
        cursor=query.cursor,
        count=query.count,
        offset=query.offset,
        is_file=format_ is not JSON,
        facts=lambda _: told,
    )
    return await answer_ticks(request, asked)


@router.get("/tags", responses={200: {"model": TagsAnswer}, **documented(400, 422, 504)})
async def tags(request: Request, table: TableParameter = "trades") -> Response:
    """The names that states of a table were given with `k2 tags`."""
    return await unless_gone(request, tags_answer(request, _table(table)))


def _table(name: str) -> Table:
    if name not in TABLES:
        raise Problem(400, "INVALID_TABLE", f"table must be one of {', '.join(TABLES)}")
    return TABLES[name]
