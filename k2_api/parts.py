"""The parts a long answer is read in: disjoint stretches of event time, each of a size that fits into memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from k2_api.plans import Span, within
from k2_core.windows import to_us
from k2_resources.lake.files import DataFileEntry

PART_ROWS = 100_000
"""Rows of a part as far as the plan can tell: sorting them takes some 100 MB; smaller parts read files more often."""

_Instants = npt.NDArray[np.int64]


def parts_of(files: Sequence[DataFileEntry], span: Span, *, descending: bool, rows: int = PART_ROWS) -> Iterator[Span]:
    """Disjoint stretches of a span in reading order, of about so many rows each. They cover all of the span.

    The rows of a file are taken to be spread evenly between its bounds; one without bounds counts nowhere.
    """
    bounds = [span.start_us, *_cuts(within(files, span), span, rows), span.end_us]
    stretches = [span.between(a, b) for a, b in itertools.pairwise(bounds) if a < b]
    return reversed(stretches) if descending else iter(stretches)


def _cuts(files: Sequence[DataFileEntry], span: Span, rows: int) -> list[int]:
    """Instants between which about so many rows lie."""
    known = [
        (to_us(f.timestamp_min), to_us(f.timestamp_max) + 1, f.rows)
        for f in files
        if f.timestamp_min is not None and f.timestamp_max is not None
    ]
    if sum(count for _, _, count in known) <= rows:
        return []
    starts, ends, counts = (np.array(column, np.int64) for column in zip(*known, strict=True))
    edges = np.unique(np.concatenate([starts, ends, [span.start_us, span.end_us]]))
    before = _rows_before(edges, starts, ends, counts)
    first, last = before[np.searchsorted(edges, [span.start_us, span.end_us])]
    targets = np.arange(first + rows, last, rows)
    found = np.interp(targets, before, edges).astype(np.int64)
    return [int(cut) for cut in np.unique(found) if span.start_us < cut < span.end_us]


def _rows_before(edges: _Instants, starts: _Instants, ends: _Instants, counts: _Instants) -> npt.NDArray[np.float64]:
    """Rows before each edge, when those of a file are spread evenly over [start, end)."""
    density = counts / (ends - starts)
    change = np.zeros(len(edges))
    np.add.at(change, np.searchsorted(edges, starts), density)
    np.add.at(change, np.searchsorted(edges, ends), -density)
    within_each = np.cumsum(change)[:-1] * np.diff(edges)
    return np.concatenate([[0.0], np.cumsum(within_each)])
