"""What changed between two states of one table: rows the later one shows anew, and rows it shows no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from k2_api.pinning import Pinned
from k2_api.plans import Span, within
from k2_api.questions import Ticks
from k2_api.sources import Source, reading, source_of, values_of
from k2_api.ticks import Key, Part, after_values, in_shape
from k2_core.offsets import Offsets
from k2_resources.duck import parquet_paths
from k2_resources.lake.files import DataFileEntry

Change = Literal["added", "superseded"]


def is_before(first: Offsets, second: Offsets) -> bool:
    """Whether everything below one C is below another."""
    return all(key in second.positions and at <= second.positions[key] for key, at in first.positions.items())


class Difference:
    """One question put to two states: the rows in which their answers differ. `until` holds all that `since` does.

    A correction is two rows: the new content, added, and the one that it took the place of, superseded. Of the
    question the symbols, exchanges, range, order and looks count. Pure: it makes statements and runs none.
    """

    def __init__(self, since: Pinned, until: Pinned, ticks: Ticks, after: Key | None = None) -> None:
        self._ticks = ticks
        self._after = after_values(after)
        self._since, self._until = source_of(since, ticks.symbols), source_of(until, ticks.symbols)
        self._past = _vector("past", since.offsets)
        self._later = _vector("until", until.offsets)
        self._fresh = _fresh(self._since, self._until)

    def parts(self) -> Iterator[tuple[Change, Part]]:
        """A statement for each kind of change; each gives its next rows as JSON with their keys, `limit` at most."""
        files = within(self._fresh, self._span)
        if files:
            yield "added", self._part(self._until, files, past="past", selected="added", values=self._past)
        later = [f for f in self._fresh if f.revised]
        if later and (shown_before := within(self._since.files, self._span)):
            steps = {"later": f"later{'_by_id' if self._since.field_ids else ''}", "until": "until"}
            values = {**self._later, "later_files": parquet_paths(f.path for f in later)}
            yield "superseded", self._part(self._since, shown_before, **steps, selected="superseded", values=values)

    @property
    def _span(self) -> Span:
        return Span(self._ticks.start_us, self._ticks.end_us)

    def _part(self, source: Source, files: tuple[DataFileEntry, ...], *, values: dict[str, Any], **steps: str) -> Part:
        order = "newest_first" if self._ticks.descending else "oldest_first"
        page = source.over(order, chosen="selected", **steps)
        bound = {**values_of(self._ticks), **source.values(), **self._after, **reading(files, self._span), **values}
        return Part(in_shape(page, source.table, "json", self._ticks), bound, files)


def _fresh(since: Source, until: Source) -> tuple[DataFileEntry, ...]:
    """Files of the later state that the earlier did not have: all that came in between is in them."""
    if since.below is not None:  # its files were rewritten, and hold later rows
        return until.files
    known = {file.path for file in since.files}
    return tuple(file for file in until.files if file.path not in known)


def _vector(name: str, offsets: Offsets) -> dict[str, list[Any]]:
    positions = sorted(offsets.positions.items())
    return {
        f"{name}_topics": [topic for (topic, _), _ in positions],
        f"{name}_partitions": [partition for (_, partition), _ in positions],
        f"{name}_epochs": [at.epoch for _, at in positions],
        f"{name}_nexts": [at.next for _, at in positions],
    }
