"""Receipts as Dagster tells them: rows of audit.receipts, cut down to what reports and checks ask."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from k2_core.contracts import Table
from k2_core.receipts import RangeCount
from k2_resources.lake.catalog import Lake
from k2_resources.lake.scans import receipt_rows

_COLUMNS = ["sequence_number", "snapshot_id", "commit_time", "kind", "version", "ranges", "dates"]


@dataclass(frozen=True)
class Told:
    """One receipt: its place in the order of commits, what became of its records, and the dates it touched.

    dates: rows stored per exchange date; 0 where a date changed without gaining a row (a gap, an older revision).
    """

    sequence_number: int
    snapshot_id: int
    commit_time: datetime
    kind: str
    version: str
    ranges: tuple[RangeCount, ...]
    dates: Mapping[date, int]

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
    rows = receipt_rows(lake, table, after=after).select(_COLUMNS)
    return [_told(row) for row in rows.slice(0, limit).to_pylist()]


def _told(row: Mapping[str, object]) -> Told:
    dates: dict[date, int] = {}
    for entry in row["dates"]:  # type: ignore[attr-defined]
        dates[entry["exchange_date"]] = dates.get(entry["exchange_date"], 0) + entry["rows"]
    ranges = tuple(RangeCount(**r) for r in row["ranges"])  # type: ignore[attr-defined]
    return Told(**{**row, "ranges": ranges, "dates": dates})  # type: ignore[arg-type]


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
