"""What a producer was told: every record the broker acknowledged, where it is, and what it says."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from confluent_kafka import KafkaError

from k2_core.contracts import Table

Place = tuple[str, int, int, int]
"""Topic, epoch, Kafka partition, offset."""


@dataclass(frozen=True)
class Told:
    """What one record says.

    payload: SHA-256 of its bytes. A record that can become a row has its key, a digest of all a feed states in it, and
    one of its content columns alone; one that cannot has none of the three, and its id where one can be read.
    """

    payload: str
    message_id: str | None = None
    values: str = ""
    content: str = ""
    dead_id: tuple[str, int] | None = None


@dataclass
class Ledger:
    """Every record of one producer by its place. A record may be sent twice, revised, or be no record at all.

    epoch: how often the topics were made anew; set it before the first record to a new broker.
    """

    epoch: int = 0
    acknowledged: dict[Place, Told] = field(default_factory=dict)
    refused: Counter[Told] = field(default_factory=Counter)
    """Records the producer gave up on: they may be in the log or not."""

    def on_delivery(self, told: Told) -> Callable[[KafkaError | None, Any], None]:
        """Give what takes down the broker's answer to one record."""
        epoch = self.epoch

        def answered(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                self.refused[told] += 1
                return
            at = (message.topic(), epoch, message.partition(), message.offset())
            assert at not in self.acknowledged, f"the broker acknowledged two records at {at}"
            self.acknowledged[at] = told

        return answered

    def of_topics(self, topics: Sequence[str]) -> dict[Place, Told]:
        """The records of some topics."""
        return {at: told for at, told in self.acknowledged.items() if at[0] in topics}


def row(table: Table, record: Mapping[str, Any], payload: bytes) -> Told:
    """A record that can become a row of a table."""
    content, values = digests(table, record)
    return Told(sha256(payload), record["message_id"], values, content)


def digests(table: Table, record: Mapping[str, Any]) -> tuple[str, str]:
    """Digests of the content columns and of all columns a feed states, of a record sent or of a row read back.

    Without the flags: the judge adds bits of its own to them.
    """
    said = {c.name: _plain(record[c.name]) for c in table.feed_columns if c.name != "quality_flags"}
    content = [said[name] for name in table.content]
    return sha256(repr(content).encode()), sha256(repr(list(said.values())).encode())


def sha256(value: bytes | None) -> str:
    """The hash of a payload; a record without one has that of no bytes."""
    return hashlib.sha256(value or b"").hexdigest()


def _plain(value: Any) -> Any:
    """One spelling for what Avro is given and Arrow gives back."""
    if isinstance(value, Decimal):
        return f"{value:.8f}"
    if isinstance(value, datetime):
        return round(value.timestamp() * 1_000_000)
    if isinstance(value, Mapping):
        return sorted(value.items())
    return value
