"""The Kafka log: watermarks, incarnations, exact reads of planned ranges, and acknowledged writes.

Belongs here: everything said to a broker. Does not: what a record means, or which range to read.
The log is read by assignment and never by subscription: where to start is stated by the lake, not by a group.
"""

from __future__ import annotations

from k2_resources.kafka.log import INCARNATION_TOPIC, KafkaLog
from k2_resources.kafka.writer import BY_KEY, LogWriter

__all__ = ["BY_KEY", "INCARNATION_TOPIC", "KafkaLog", "LogWriter"]
