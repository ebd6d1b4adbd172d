"""Ticks as statements: the page of a question, all of its rows in parts, how many there are, what the plan says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from k2_api.parts import parts_of
from k2_api.pinning import Pinned
from k2_api.plans import Span, first_instants, last_instants, within
from k2_api.questions import Ticks
from k2_api.sources import reading, source_of, steps_of, values_of
from k2_api.texts import lean
from k2_core.contracts import Table
from k2_core.projections import KEY_PREFIX, Shape, key_list, select_list
from k2_core.windows import FIRST_US, strides
from k2_resources.duck import Statement
from k2_resources.lake.files import DataFileEntry

Key = tuple[int | str, ...]
"""Sort key of a row: event time in µs, source and platform sequence, message_id, revision."""


@dataclass(frozen=True)
class Part:
    """One statement of a read, the values it binds, and the files it reads."""

    statement: Statement
    values: dict[str, Any]
    files: tuple[DataFileEntry, ...]


class TickRead:
    """One question about one state, ready to be read in any way. Pure: it makes statements and runs none."""

    def __init__(self, pinned: Pinned, ticks: Ticks, after: Key | None = None) -> None:
        self._ticks = ticks
        self._table = pinned.table
        self._source = source_of(pinned, ticks.symbols, ticks.revisions)
        self._span = Span(ticks.start_us, ticks.end_us)
        self._beyond = _beyond(self._span, after, ticks.descending)
        self._values = {**values_of(ticks), **self._source.values(), **after_values(after)}

    def pages(self, shape: Shape) -> Iterator[Part]:
        """Statements whose results, one after the other, begin with the next rows; each wants a value for `limit`.

        They carry their keys: in JSON by their names, else behind KEY_PREFIX.
        """
        sql = in_shape(self._selected(self._order()), self._table, shape, self._ticks)
        return (self._part(sql, span) for span in self._walk())

    def parts(self, shape: Shape) -> Iterator[Part]:
        """Statements whose results, one after the other, are all rows in reading order.

        JSON carries its keys. A part is as large as PART_ROWS says.
        """
        ticks = self._ticks
        sql = in_shape(self._selected(self._order()), self._table, shape, ticks, is_keyed=shape == "json")
        spans = parts_of(self._source.files, self._beyond, descending=ticks.descending)
        return (p for p in (self._part(sql, span, limit=None) for span in spans) if p.files)

    def count(self) -> Part:
        """A statement that counts all rows, whatever page was asked for."""
        return self._part(self._selected("row_count"), self._span)

    def estimate(self) -> tuple[int, int, int]:
        """Rows, bytes and files that a read goes through at most, from the plan alone."""
        files = within(self._source.files, self._beyond)
        return sum(f.rows for f in files), sum(f.size_bytes for f in files), len(files)

    def _selected(self, body: str) -> Statement:
        return self._source.over(body, **steps_of(self._ticks))

    def _order(self) -> str:
        return "newest_first" if self._ticks.descending else "oldest_first"

    def _part(self, sql: Statement, span: Span, **more: Any) -> Part:
        files = within(self._source.files, span)
        values = {**self._values, **reading(files, span), **more}
        return Part(lean(sql, values), values, files)

    def _walk(self) -> Iterable[Span]:
        """Disjoint stretches in reading order, cut between exchange dates, each over twice as many as the last."""
        span, near = self._beyond, within(self._source.files, self._beyond)
        edges = first_instants(near) if self._ticks.descending else last_instants(near)
        cuts = strides(edges, span.start_us, span.end_us, descending=self._ticks.descending)
        return (span.between(a, b) for a, b in cuts)


def in_shape(page: Statement, table: Table, shape: Shape, ticks: Ticks, *, is_keyed: bool = True) -> Statement:
    """The rows of a page in a shape: only those on it are rendered, and in its order, which DuckDB keeps.

    Sorting what is rendered takes twice the memory, and a third more of time. is_keyed: the keys go along.
    """
    keys = key_list("" if shape == "json" else KEY_PREFIX)
    shown = select_list(table, shape, ticks.fields, ticks.decimals)
    return Statement(f"SELECT {shown}{f', {keys}' if is_keyed else ''}\nFROM (\n{page.text}) AS page", page.parameters)


def after_values(key: Key | None) -> Mapping[str, Any]:
    """What the steps of a page bind to begin past a sort key; None is the first page."""
    at_us, source, platform, message_id, revision = key or (None, None, None, None, None)
    return {
        "after_us": at_us,
        "after_source": source,
        "after_platform": platform,
        "after_id": message_id,
        "after_revision": revision,
    }


def _beyond(span: Span, after: Key | None, descending: bool) -> Span:
    if after is None:
        return span
    at_us = int(after[0])
    if descending:
        return replace(span, end_us=max(min(span.end_us, at_us + 1), FIRST_US))
    return replace(span, start_us=max(span.start_us, at_us))
