"""Receipts as Dagster tells them: rows of audit.receipts, cut down to what reports and checks ask."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.contracts import Table
from k2_core.exchange_dates import DAYS_AHEAD_MAX
from k2_core.receipts import RangeCount
from k2_resources.lake.catalog import Lake
from k2_resources.lake.scans import receipt_rows

_PLAIN = ("sequence_number", "snapshot_id", "commit_time", "kind", "version")
_NESTED = ("ranges", "dates", "schema_ids", "files")


@dataclass(frozen=True)
class Told:
    """One receipt: its place in the order of commits, what became of its records, and the dates it touched.

    dates: rows stored per exchange date; 0 where a date changed without gaining a row (a gap, an older revision).
    by_feed: the same per exchange date and feed. data_files: paths of the data files it put into the table.
    """

    sequence_number: int
    snapshot_id: int
    commit_time: datetime
    kind: str
    version: str
    ranges: tuple[RangeCount, ...]
    dates: Mapping[date, int]
    by_feed: Mapping[tuple[date, str], int] = field(default_factory=dict)
    schema_ids: tuple[int, ...] = ()
    data_files: tuple[str, ...] = ()

    @property
    def days(self) -> tuple[date, ...]:
        return tuple(sorted(self.dates))

    @property
    def dead_days(self) -> tuple[date, ...]:
        """Where its dead letters are told: they have no date of their own; alone, they use that of the commit."""
        return self.days or (self.commit_time.astimezone(UTC).date(),)

    @property
    def dead_share(self) -> float:
        """Dead letters of the records read, 0 to 1."""
        read = self.total("read")
        return self.total("dead") / read if read else 0.0

    def total(self, count: str) -> int:
        """Sum one count of its ranges: read, written, duplicates, revisions or dead."""
        return sum(getattr(r, count) for r in self.ranges)


def receipts_after(lake: Lake, table: Table, after: int = 0, limit: int | None = None) -> list[Told]:
    """Collected receipts of one table past a sequence number, in commit order, at most `limit`."""
    rows = receipt_rows(lake, table, after=after, columns=(*_PLAIN, *_NESTED))
    return [_told(row) for row in rows.slice(0, limit).to_pylist()]


def receipts_since(lake: Lake, table: Table, day: date) -> list[Told]:
    """Every collected receipt of one table that can name an exchange date, in commit order: the last one among them.

    A row lies at most DAYS_AHEAD_MAX ahead of its commit: older receipts, months of them, are not read.
    """
    since = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=DAYS_AHEAD_MAX)
    rows = receipt_rows(lake, table, since=since, columns=(*_PLAIN, *_NESTED))
    names = _names(rows, day)
    if len(rows):
        names[-1] = True
    return [_told(row) for row in rows.filter(pa.array(names)).to_pylist()]


def _names(rows: pa.Table, day: date) -> npt.NDArray[np.bool_]:
    """Which receipts touched a date, or were committed on it, where dead letters without a date are told."""
    dates = rows["dates"].combine_chunks()
    days = pc.struct_field(dates.flatten(), "exchange_date")
    found: npt.NDArray[np.bool_] = pc.equal(rows["commit_time"].cast(pa.date32()), day).to_numpy().copy()
    found[pc.list_parent_indices(dates).filter(pc.equal(days, day)).to_numpy()] = True
    return found


def _told(row: Mapping[str, object]) -> Told:
    by_feed: Counter[tuple[date, str]] = Counter()
    dates: Counter[date] = Counter()
    for entry in row["dates"]:  # type: ignore[attr-defined]
        by_feed[entry["exchange_date"], entry["feed"]] += entry["rows"]
        dates[entry["exchange_date"]] += entry["rows"]
    return Told(
        **{name: row[name] for name in _PLAIN},  # type: ignore[arg-type]
        ranges=tuple(RangeCount(**r) for r in row["ranges"]),  # type: ignore[attr-defined]
        dates=dates,
        by_feed=by_feed,
        schema_ids=tuple(row["schema_ids"]),  # type: ignore[arg-type]
        data_files=tuple(f["path"] for f in row["files"] if f["kind"] == "data"),  # type: ignore[attr-defined]
    )


def total(told: Iterable[Told], count: str) -> int:
    """Sum one count over receipts."""
    return sum(receipt.total(count) for receipt in told)


def spans(told: Sequence[Told]) -> dict[str, list[int]]:
    """`topic[kafka_partition]@epoch` -> [first start, last end) over receipts."""
    found: dict[str, list[int]] = {}
    for r in (r for receipt in told for r in receipt.ranges):
        span = found.setdefault(f"{r.topic}[{r.kafka_partition}]@{r.kafka_epoch}", [r.start, r.end])
        span[:] = min(span[0], r.start), max(span[1], r.end)
    return dict(sorted(found.items()))
