"""Many rows of one feed as columns: what a source that can be read in step gives instead of a Row for each line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from k2_core.frames import Longs
from k2_core.lockstep.columns import bitmap, fixed_width
from k2_core.lockstep.lanes import Mask
from k2_core.tables import PRICE, TIMESTAMP
from k2_feeds.coverage import Tally
from k2_feeds.outcomes import Row


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of one feed in the order of their lines. columns: the feed columns of its contract, no two named alike.

    Text may be dictionary-encoded; symbol always is.
    """

    feed: str
    columns: pa.RecordBatch

    def __len__(self) -> int:
        return int(self.columns.num_rows)

    def __getitem__(self, part: slice) -> Batch:
        """Rows [start, stop), nothing copied."""
        start, stop, _ = part.indices(len(self))
        return Batch(self.feed, self.columns.slice(start, max(0, stop - start)))

    def rows(self) -> Iterator[Row]:
        """The same rows one by one."""
        return (Row(self.feed, record["symbol"], record) for record in records_of(self.columns))

    def tallies(self) -> list[Tally]:
        """What there is of each symbol."""
        counted = pa.Table.from_batches([self.columns.select(["symbol", "source_sequence", "timestamp"])])
        times = counted.column("timestamp").cast(pa.int64())
        asked = [("timestamp", "count"), *((c, f) for c in ("source_sequence", "timestamp") for f in ("min", "max"))]
        sums = counted.set_column(2, "timestamp", times).group_by("symbol", use_threads=False).aggregate(asked)
        return [
            Tally(
                self.feed,
                found["symbol"],
                rows=found["timestamp_count"],
                first_id=found["source_sequence_min"],
                last_id=found["source_sequence_max"],
                opened=found["timestamp_min"],
                closed=found["timestamp_max"],
            )
            for found in sums.to_pylist()
        ]


def widen(tally: Tally, by: Tally) -> None:
    """Count what another tally of the same symbol counted."""
    tally.rows += by.rows
    for name, narrower in (("first_id", min), ("last_id", max), ("opened", min), ("closed", max)):
        told = [value for value in (getattr(tally, name), getattr(by, name)) if value is not None]
        setattr(tally, name, narrower(told, default=None))


def records_of(columns: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows of some columns as a feed states them one by one: times in µs since 1970, maps as dicts."""
    maps = [field.name for field in columns.schema if pa.types.is_map(field.type)]
    arrays = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in columns.columns]
    records: list[dict[str, Any]] = pa.RecordBatch.from_arrays(arrays, columns.schema.names).to_pylist()
    for record in records:
        for name in maps:
            if record[name] is not None:
                record[name] = dict(record[name])
    return records


def times(values_us: Longs) -> pa.Array:
    """A column of times from µs since 1970."""
    return fixed_width(TIMESTAMP, values_us, None, len(values_us))


def decimals(unscaled: Longs, valid: Mask | None = None) -> pa.Array:
    """A column of decimal(18,8) from whole numbers of its last digit, none negative. valid: None = no nulls."""
    words = np.empty((len(unscaled), 2), np.int64)
    words[:, 0], words[:, 1] = unscaled, 0
    return fixed_width(PRICE, words, bitmap(valid), len(unscaled))


def constant(word: str, n: int) -> pa.Array:
    """A column of one text."""
    return pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), pa.array([word], pa.string()))
