"""Which data files are worth one rewrite, and how their rows are divided among the files that follow.

A date of the past is rewritten once, into files sorted through; before that, and for what comes late, small files are
folded with others of their size, so that no row is written more often than log32 of their number. Pure: facts in,
plans out.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2_core.provenance import LogPartition
from k2_core.receipts import MovedRows
from k2_core.tables import LINEAGE_NAMES

LINEAGE_KEY = LINEAGE_NAMES[:3]
"""What a row is counted by when it moves: the log partition it came from."""
_TIER_BITS = 5
"""Files within 32 times each other's rows are of a size: with 32 of them to a fold, each row climbs one tier a fold."""


@dataclass(frozen=True)
class StoredFile:
    """One data file of the head.

    is_sorted: it states the sort order of the table, as the files of a closed date do. is_mixed: it holds revisions
    beside first versions.
    """

    path: str
    sequence_number: int
    exchange_date: date
    rows: int
    is_sorted: bool
    is_mixed: bool


@dataclass(frozen=True)
class Limits:
    """How large files may get, in rows, and how many of a size one date may have before they are folded."""

    rows_max: int
    fragments_max: int


@dataclass(frozen=True)
class Group:
    """Files of one exchange date to be rewritten together. closes: all there are, for good."""

    exchange_date: date
    files: tuple[StoredFile, ...]
    closes: bool

    @property
    def rows(self) -> int:
        return sum(f.rows for f in self.files)

    def __str__(self) -> str:
        return f"{self.exchange_date}{' closed' if self.closes else ''}: {len(self.files)} files"


def open_from(now: datetime, settle: timedelta) -> date:
    """The first exchange date that is not closed: one closes `settle` after its end in UTC."""
    return (now - settle).astimezone(UTC).date()


def groups(files: Iterable[StoredFile], open_date: date, limits: Limits) -> list[Group]:
    """What is worth rewriting, by date. open_date: the first that is not closed."""
    days: dict[date, list[StoredFile]] = defaultdict(list)
    for file in files:
        days[file.exchange_date].append(file)
    return [group for day, stored in sorted(days.items()) for group in _of_day(day, stored, day < open_date, limits)]


def _of_day(day: date, stored: Sequence[StoredFile], is_closed: bool, limits: Limits) -> list[Group]:
    if is_closed and not any(f.is_sorted for f in stored):
        return [Group(day, _in_order(stored), True)] if len(stored) > 1 or any(f.is_mixed for f in stored) else []
    tiers: dict[int, list[StoredFile]] = defaultdict(list)
    for file in stored:
        if not file.is_sorted and file.rows < limits.rows_max:
            tiers[file.rows.bit_length() // _TIER_BITS].append(file)
    return [Group(day, _in_order(tier), False) for _, tier in sorted(tiers.items()) if len(tier) > limits.fragments_max]


def _in_order(files: Iterable[StoredFile]) -> tuple[StoredFile, ...]:
    """As they were committed: rows equal in the sort stay as they arrived."""
    return tuple(sorted(files, key=lambda f: (f.sequence_number, f.path)))


def bundles(found: Sequence[Group], rows_max: int) -> Iterator[tuple[Group, ...]]:
    """Groups that one commit rewrites: a small date is not worth a commit of its own, a large one is never shared."""
    bundle: list[Group] = []
    for group in found:
        if bundle and sum(g.rows for g in bundle) + group.rows > rows_max:
            yield tuple(bundle)
            bundle = []
        bundle.append(group)
    if bundle:
        yield tuple(bundle)


@dataclass(frozen=True)
class Slice:
    """A stretch of the sort order: the first sort column in [first, last], both inclusive.

    Where one value alone has too many rows, the second sort column in [start, end), as integers; None is unbounded.
    """

    first: Any
    last: Any
    start: int | None = None
    end: int | None = None


def slices(counts: dict[Any, int], rows_max: int, seconds: Callable[[Any], npt.NDArray[np.int64]]) -> list[Slice]:
    """Cut a sort order into stretches of at most rows_max rows, so that no more are in memory at once.

    counts: rows by value of the first sort column. seconds: the values of the second one where the first has a value,
    as integers; asked only of a value with too many rows, and empty where there is no second one. Rows equal in both
    columns stay together, however many.
    """
    found: list[Slice] = []
    run: list[Any] = []
    for value in sorted(counts):
        if run and sum(counts[v] for v in run) + counts[value] > rows_max:
            found.append(Slice(run[0], run[-1]))
            run = []
        if counts[value] > rows_max:
            found += _cut(value, seconds(value), rows_max)
        else:
            run.append(value)
    return [*found, Slice(run[0], run[-1])] if run else found


def _cut(value: Any, seconds: npt.NDArray[np.int64], rows_max: int) -> list[Slice]:
    """One value of the first sort column, cut by the second."""
    ordered = np.sort(seconds)
    edges = [None, *dict.fromkeys(ordered[rows_max::rows_max].tolist()), None]
    return [Slice(value, value, start, end) for start, end in itertools.pairwise(edges)]


def counted(rows: pa.Table) -> Counter[LogPartition]:
    """How many rows came from each log partition."""
    of_partition = rows.select(LINEAGE_KEY).group_by(list(LINEAGE_KEY)).aggregate([([], "count_all")])
    columns = [of_partition[name].to_pylist() for name in (*LINEAGE_KEY, "count_all")]
    return Counter({(topic, epoch, partition): n for topic, epoch, partition, n in zip(*columns, strict=True)})


def moved(before: Counter[LogPartition], after: Counter[LogPartition]) -> tuple[MovedRows, ...]:
    """Rows in and out by log partition, as a receipt states them."""
    return tuple(MovedRows(*at, rows_in=before[at], rows_out=after[at]) for at in sorted({*before, *after}))
