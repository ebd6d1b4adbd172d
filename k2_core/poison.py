"""When a Kafka partition holds so many dead letters that reading on would only make more."""

from __future__ import annotations

from k2_core.keys import paused_key
from k2_core.receipts import RangeCount, Receipt

DEAD_RATIO_MAX = 0.2
"""Of the records of one Kafka partition in one batch: above it a producer is broken, not a record."""
DEAD_MIN = 1_000
"""Records: fewer are looked at one by one."""


def is_poisoned(r: RangeCount) -> bool:
    """Whether a range must be the last one until somebody has looked."""
    return r.dead >= DEAD_MIN and r.dead > DEAD_RATIO_MAX * r.read


def pauses(receipt: Receipt) -> dict[str, str | None]:
    """The properties by which a batch pauses its poisoned Kafka partitions."""
    return {
        paused_key(r.topic, r.kafka_partition): (
            f"{r.dead} of {r.read} records in offsets [{r.start}, {r.end}) are dead letters"
        )
        for r in receipt.ranges
        if is_poisoned(r)
    }
