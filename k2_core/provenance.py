"""Which commit read a row: told by its lineage and the ranges of the receipts, wherever the row is stored by now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.receipts import Committed
from k2_core.tables import LINEAGE_NAMES

LogPartition = tuple[str, int, int]
"""Topic, epoch, Kafka partition."""
UNREAD = -1
"""In the place of a sequence number: no receipt read that offset."""


class Readers:
    """The ranges of all receipts of a table, by log partition."""

    def __init__(self, history: Iterable[Committed]) -> None:
        ranges: dict[LogPartition, list[tuple[int, int, int]]] = defaultdict(list)
        for c in history:
            for r in c.receipt.ranges:
                if r.start < r.end:
                    ranges[r.topic, r.kafka_epoch, r.kafka_partition].append((r.start, r.end, c.sequence_number))
        self._ranges = {at: np.array(sorted(found), np.int64).T for at, found in ranges.items()}

    def of(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """Sequence number of the commit that read each row, UNREAD where none did. rows: with the lineage columns."""
        found = np.full(len(rows), UNREAD, np.int64)
        offsets = rows["kafka_offset"].to_numpy()
        for topic, epoch, partition in _partitions(rows):
            is_epoch = pc.and_(pc.equal(rows["kafka_topic"], topic), pc.equal(rows["kafka_epoch"], epoch))
            here = pc.and_(is_epoch, pc.equal(rows["kafka_partition"], partition)).to_numpy()
            found[here] = self._of((topic, epoch, partition), offsets[here])
        return found

    def _of(self, at: LogPartition, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if at not in self._ranges:
            return np.full(len(offsets), UNREAD, np.int64)
        starts, ends, numbers = self._ranges[at]
        last = np.searchsorted(starts, offsets, side="right") - 1
        is_read = (last >= 0) & (offsets < ends[last])
        return np.where(is_read, numbers[last], UNREAD)


def _partitions(rows: pa.Table) -> list[LogPartition]:
    present = rows.select(LINEAGE_NAMES[:3]).group_by(list(LINEAGE_NAMES[:3])).aggregate([])
    topics, epochs, partitions = (present[name].to_pylist() for name in LINEAGE_NAMES[:3])
    return list(zip(topics, epochs, partitions, strict=True))
