"""Pages of the ledgers: a keyset cursor over the newest state, rows rendered from plain values."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from fastapi import Request, Response

from k2_api.cursors import Cursor, digest
from k2_api.ledger_models import LedgerQuestion
from k2_api.reads import Pinned
from k2_api.responses import backend, data_response, object_response
from k2_core.windows import iso

Key = tuple[int | str, ...]
"""Where an entry stands in its list: the list goes down by it."""


@dataclass(frozen=True)
class Turn:
    """Where a client is in a list. after: key of the last entry it has; None on the first page."""

    question: str
    after: Key | None
    offset: int


def turn_of(request: Request, question: LedgerQuestion) -> Turn:
    """Read the cursor of a question. Raises Problem 400 for one that is not ours or belongs to another question."""
    asked = digest(request.url.path, question.filters())
    request.state.canonical = question.model_dump_json()
    if question.cursor is None:
        return Turn(asked, None, 0)
    cursor = backend(request).cursors.open(question.cursor, asked)
    return Turn(asked, cursor.key, cursor.offset)


def entries_response(
    request: Request,
    pinned: tuple[Pinned, ...],
    question: LedgerQuestion,
    entries: Sequence[tuple[Key, Mapping[str, Any]]],
    turn: Turn,
    *,
    total: int | None = None,
) -> Response:
    """One page of a list. entries: those after the turn, one more than the limit at least where more follow."""
    shown, offset = entries[: question.limit], turn.offset
    following = None
    if len(entries) > len(shown):
        cursor = Cursor(turn.question, "", shown[-1][0], offset + len(shown))
        following = backend(request).cursors.seal(cursor)
    pagination = {
        "limit": question.limit,
        "offset": offset,
        "total": total,
        "has_more": following is not None,
        "next_cursor": following,
    }
    return data_response(request, pinned, rendered(row for _, row in shown), pagination=pagination)


def told_response(request: Request, pinned: tuple[Pinned, ...], told: Mapping[str, Any]) -> Response:
    """One object in the envelope."""
    return object_response(request, pinned, rendered([told])[0])


def later(entries: Iterable[tuple[Key, Mapping[str, Any]]], turn: Turn) -> list[tuple[Key, Mapping[str, Any]]]:
    """Of a whole list in order, the entries after a turn."""
    return [entry for entry in entries if turn.after is None or entry[0] < turn.after]


def rendered(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Rows as JSON texts: decimals as plain text, instants with six digits, bytes as base64."""
    return [json.dumps(row, default=_plain, separators=(",", ":")) for row in rows]


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no JSON form")
