"""What a stranger's statement reads: a view per table, over the files of one pinned state and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from k2_api.pinning import Pinned
from k2_api.plans import Span, within
from k2_api.problems import Problem
from k2_api.questions import Ticks
from k2_api.sources import reading, source_of, steps_of, values_of
from k2_core.contracts import INSTRUMENTS, QUOTES, TICK_TABLES, TRADES
from k2_resources.sql_cell.wire import View, handed

GRANTED = {table.short_name: table for table in (TRADES, QUOTES, INSTRUMENTS)}
"""The tables statements may name: their newest revisions, with all columns."""
_ALL = Ticks()


@dataclass(frozen=True)
class Grant:
    """Views, and the data files they read, in the order in which they are handed over."""

    views: tuple[View, ...]
    paths: tuple[str, ...]


def grant(pinned: Sequence[Pinned], span: Span, files_max: int) -> Grant:
    """Make the views of some tables. span: of ticks; others are seen whole. Raises Problem 413 for too many files."""
    paths: list[str] = []
    views = tuple(_view(one, span, paths) for one in pinned)
    if len(paths) > files_max:
        detail = f"the statement would read {len(paths):,} data files of at most {files_max:,}; give a shorter range"
        raise Problem(413, "RESOURCE_LIMIT_EXCEEDED", detail)
    return Grant(views, tuple(paths))


def _view(pinned: Pinned, span: Span, paths: list[str]) -> View:
    table, source = pinned.table, source_of(pinned)
    is_ticks = table in TICK_TABLES
    files = within(source.files, span) if is_ticks else source.files
    if not files:
        return View(table.short_name, "", {}, table.arrow_schema())
    statement = source.over("granted_ticks", **steps_of(_ALL)) if is_ticks else source.over("granted_rows")
    values = {
        **source.values(),
        **values_of(_ALL),
        **reading((), span),
        "files": _handed(paths, [f.path for f in files]),
        "corrected_files": _handed(paths, [f.path for f in source.corrected]),
    }
    return View(table.short_name, statement.text, statement.bind(values), table.arrow_schema())


def _handed(paths: list[str], more: Sequence[str]) -> list[str]:
    """Add files to what is handed over; their names on the other side."""
    first = len(paths)
    paths += [path.removeprefix("file://") for path in more]
    return [handed(first + index) for index in range(len(more))]
