"""The history of the tables."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from k2_api.models import SnapshotsAnswer
from k2_api.problems import Problem, documented
from k2_api.responses import backend, data_response, unless_gone
from k2_core.contracts import TICK_TABLES
from k2_core.windows import iso
from k2_resources.lake.catalog import SnapshotEntry

router = APIRouter(prefix="/v1", tags=["snapshots"])
_TABLES = {table.short_name: table for table in TICK_TABLES}


@router.get("/snapshots", responses={200: {"model": SnapshotsAnswer}, **documented(400, 422)})
async def snapshots(
    request: Request,
    table: Annotated[str, Query(description="trades or quotes.")] = "trades",
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> Response:
    """The retained snapshots of a table, newest first."""
    if table not in _TABLES:
        raise Problem(400, "INVALID_TABLE", f"table must be one of {', '.join(_TABLES)}")
    return await unless_gone(request, _snapshots(request, table, limit))


async def _snapshots(request: Request, name: str, limit: int) -> Response:
    reads = backend(request).reads
    pinned = await reads.pin(_TABLES[name])
    request.state.canonical = json.dumps([name, limit])
    found = await reads.snapshots(_TABLES[name], limit)
    return data_response(request, (pinned,), [json.dumps(_row(s)) for s in found], table_name=name)


def _row(snapshot: SnapshotEntry) -> dict[str, Any]:
    return {
        "snapshot_id": snapshot.snapshot_id,
        "snapshot_id_string": str(snapshot.snapshot_id),
        "sequence_number": snapshot.sequence_number,
        "timestamp": iso(snapshot.timestamp),
        "operation": snapshot.operation,
        "manifest_list": snapshot.manifest_list,
        "summary": snapshot.summary,
    }
