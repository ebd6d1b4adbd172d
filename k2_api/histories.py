"""Answers about the states of the tick tables: what each is, and in which rows two of them differ."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request, Response

from k2_api.cursors import Cursor, digest
from k2_api.differences import Change, Difference, is_before
from k2_api.history_models import DifferenceQuestion, at_of
from k2_api.pinning import Pinned
from k2_api.problems import Problem
from k2_api.questions import HEAD, At
from k2_api.reads import Reads
from k2_api.responses import Data, backend, cached, data_response, not_modified, object_response
from k2_api.ticks import Key
from k2_core.contracts import TICK_TABLES, Table
from k2_core.projections import KEY
from k2_core.windows import iso
from k2_resources.lake.catalog import SnapshotEntry

TABLES = {table.short_name: table for table in TICK_TABLES}


async def snapshots_answer(request: Request, table: Table, limit: int) -> Response:
    """List the retained snapshots of one table, newest first."""
    reads = backend(request).reads
    pinned = await reads.pin(table)
    rows = [json.dumps(_snapshot(entry)) for entry in await reads.snapshots(table, limit)]
    unchanged = _held(request, pinned, rows)
    return unchanged or data_response(request, (pinned,), rows, table_name=table.short_name)


async def state_answer(request: Request, table: Table, snapshot_id: int) -> Response:
    """Describe one state. Raises Problem 404 for one that never was."""
    reads = backend(request).reads
    pinned = await reads.pin(table, At(snapshot_id=snapshot_id))
    pinned = replace(pinned, is_fixed=False)  # its rows are the same for ever; how they are kept is not
    about = _state(pinned, await reads.tags(table), snapshot_id in await reads.retained(table))
    text = json.dumps(about, separators=(",", ":"))
    return _held(request, pinned, [text]) or object_response(request, (pinned,), text)


async def tags_answer(request: Request, table: Table) -> Response:
    """List the tags of one table."""
    reads = backend(request).reads
    head = await reads.pin(table)
    rows = []
    for name, snapshot_id in (await reads.tags(table)).items():
        pinned = await reads.pin(table, At(snapshot_id=snapshot_id))
        rows.append(json.dumps({"name": name, "table": table.short_name, **_named(pinned)}, separators=(",", ":")))
    return _held(request, head, rows) or data_response(request, (head,), rows)


async def difference_answer(request: Request, question: DifferenceQuestion) -> Response:
    """List the next rows in which two states differ. Raises Problem 400 where the later does not hold the earlier."""
    state, table = backend(request), TABLES[question.table]
    asked = digest("diff", table.name, question.since, question.until or "", repr(question.ticks()))
    cursor = None if question.cursor is None else state.cursors.open(question.cursor, asked)
    since = await state.reads.pin(table, at_of(question.since))
    until = await state.reads.pin(table, _until(question, cursor))
    if not is_before(since.offsets, until.offsets):
        raise Problem(400, "INVALID_RANGE", "`to` must hold everything that `from` holds; exchange the two")
    key = cursor.key if cursor else None
    pinned = (since, until)

    async def data() -> Data:
        rows, next_key = await _changed(state.reads, Difference(since, until, question.ticks(), key), question)
        following = None if next_key is None else state.cursors.seal(Cursor(asked, until.version, next_key, 0))
        pages = {"limit": question.limit, "has_more": following is not None, "next_cursor": following}
        told = {"table": question.table, "from": since.version, "to": until.version}
        return Data(rows, {"pagination": pages, **told})

    return await cached(request, pinned, json.dumps((asked, key)), data)


def _until(question: DifferenceQuestion, cursor: Cursor | None) -> At:
    if cursor is not None:
        return At(version=cursor.version)
    return HEAD if question.until is None else at_of(question.until)


async def _changed(reads: Reads, difference: Difference, question: DifferenceQuestion) -> tuple[list[str], Key | None]:
    """Both kinds of change in one total order, and the key of the last when more follow."""
    found: list[list[tuple[Key, Change, str]]] = []
    for change, part in difference.parts():
        rows = await reads.duck.query(part.statement, {**part.values, "limit": question.limit + 1})
        keys: Sequence[Any] = list(zip(*(rows[name].to_pylist() for name in KEY), strict=True))
        found.append([(key, change, text) for key, text in zip(keys, rows["json"].to_pylist(), strict=True)])
    merged = list(heapq.merge(*found, key=lambda row: row[0], reverse=question.order == "desc"))
    shown = merged[: question.limit]
    texts = [f'{{"change":"{change}","row":{text}}}' for _, change, text in shown]
    return texts, shown[-1][0] if len(merged) > len(shown) else None


def _held(request: Request, pinned: Pinned, rows: list[str]) -> Response | None:
    """A 304 when the client holds these rows already: more than the version of the table speaks from them."""
    request.state.canonical = digest(*rows)
    return not_modified(request, (pinned,))


def _snapshot(entry: SnapshotEntry) -> dict[str, Any]:
    return {
        "snapshot_id": entry.snapshot_id,
        "snapshot_id_string": str(entry.snapshot_id),
        "sequence_number": entry.sequence_number,
        "timestamp": iso(entry.timestamp),
        "operation": entry.operation,
        "manifest_list": entry.manifest_list,
        "summary": entry.summary,
    }


def _state(pinned: Pinned, tags: dict[str, int], is_retained: bool) -> dict[str, Any]:
    assert pinned.state is not None, "a snapshot has a state"
    offsets = [
        {"topic": topic, "kafka_partition": partition, "kafka_epoch": at.epoch, "next_offset": at.next}
        for (topic, partition), at in sorted(pinned.offsets.positions.items())
    ]
    return {
        "table": pinned.table.short_name,
        **_named(pinned),
        "sequence_number": pinned.state.sequence_number,
        "is_retained": is_retained,
        "tags": sorted(name for name, snapshot_id in tags.items() if snapshot_id == pinned.snapshot_id),
        "rows_max": sum(f.rows for f in pinned.files),
        "size_bytes": sum(f.size_bytes for f in pinned.files),
        "files": len(pinned.files),
        "offsets": offsets,
    }


def _named(pinned: Pinned) -> dict[str, Any]:
    return {
        "snapshot_id": pinned.snapshot_id,
        "snapshot_id_string": str(pinned.snapshot_id),
        "version": pinned.version,
        "timestamp": iso(pinned.commit_time) if pinned.commit_time else None,
    }
