"""Kafka partitions that wait for a schema while the others go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from k2_core.decode import schema_ids_by_partition
from k2_core.errors import SchemaUnavailable
from k2_core.offsets import OffsetRange
from k2_core.records import LogBatch, Records

Trouble = Callable[[str, int], SchemaUnavailable | None]
"""Topic and schema id -> why it cannot be decided now, or None."""


@dataclass
class Waiting:
    """The partitions one reader has had to leave behind, and why."""

    partitions: dict[tuple[str, int], SchemaUnavailable] = field(default_factory=dict)

    def split(self, batch: LogBatch, trouble: Trouble) -> LogBatch:
        """What of a batch can be decided now. A partition once left behind stays behind for this reader."""
        for of_topic in batch.records:
            for kafka_partition, schema_ids in schema_ids_by_partition(of_topic).items():
                reasons = (trouble(of_topic.topic, schema_id) for schema_id in sorted(schema_ids))
                if (reason := next(filter(None, reasons), None)) is not None:
                    self.partitions.setdefault((of_topic.topic, kafka_partition), reason)
        if not self.partitions:
            return batch
        ranges = tuple(r for r in batch.ranges if not self._waits(r))
        left = (self._left(of_topic) for of_topic in batch.records)
        return LogBatch(ranges, tuple(records for records in left if len(records)))

    def complain(self) -> None:
        """Raise the first reason, naming every partition that waits."""
        for reason in self.partitions.values():
            where = ", ".join(f"{topic}[{p}]" for topic, p in sorted(self.partitions))
            raise SchemaUnavailable(f"{reason} Waiting: {where}; everything else was ingested.")

    def _left(self, records: Records) -> Records:
        return records.without([p for topic, p in self.partitions if topic == records.topic])

    def _waits(self, planned: OffsetRange) -> bool:
        return (planned.topic, planned.kafka_partition) in self.partitions
