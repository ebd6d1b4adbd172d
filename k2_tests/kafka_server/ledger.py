"""What the producer was told, against what the lake holds: every acknowledged record once, nothing else."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError

from k2_assets.engine import Engine
from k2_core.contracts import TRADES
from k2_resources.lake.scans import dead_letters
from k2_resources.lake.verify import Proof, verify
from k2_tests.ticks import encoded

Place = tuple[str, int, int, int]
"""Topic, epoch, Kafka partition, offset."""


@dataclass
class Ledger:
    """Every record of one producer: where the broker says it is and the hash of its bytes.

    Send no record twice: a second delivery of a key is no row, and would be taken for a loss.
    """

    schema_id: int
    epoch: int = 0
    acknowledged: dict[Place, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    """Hashes of records the producer gave up on; they may be in the log or not."""

    def on_delivery(self, error: KafkaError | None, message: Any) -> None:
        """Take down one answer of the broker; give this to `produce`."""
        told = sha256(message.value())
        if error is not None:
            self.refused[told] += 1
            return
        at = (message.topic(), self.epoch, message.partition(), message.offset())
        assert at not in self.acknowledged, f"the broker acknowledged two records at {at}"
        self.acknowledged[at] = told

    def drop(self, gone: set[Place]) -> None:
        """Forget records that the log is meant to have lost: aborted, compacted, trimmed."""
        for at in gone:
            del self.acknowledged[at]

    def prove(self, engine: Engine) -> Proof:
        """Prove that the table and its dead letters hold the ledger, record by record; returns what verify says."""
        stored = [*_rows(engine, self.schema_id), *_letters(engine)]
        times, told = Counter(at for at, _ in stored), dict(stored)
        doubled = sorted(at for at, n in times.items() if n > 1)
        lost = sorted(self.acknowledged.keys() - told.keys())
        altered = sorted(at for at, h in self.acknowledged.items() if told.get(at, h) != h)
        foreign = sorted(at for at in told.keys() - self.acknowledged.keys() if not self.refused[told[at]])
        wrong = {"lost": lost, "doubled": doubled, "altered": altered, "foreign": foreign}
        assert not any(wrong.values()), {what: (len(places), places[:5]) for what, places in wrong.items()}
        proof = verify(engine.lake, TRADES)
        assert proof.findings == ()
        assert (proof.rows + proof.dead, proof.read) == (len(stored), len(stored) + proof.duplicates)
        return proof


def sha256(value: bytes | None) -> str:
    """The hash of a payload; a record without one has that of no bytes."""
    return hashlib.sha256(value or b"").hexdigest()


def _rows(engine: Engine, schema_id: int) -> list[tuple[Place, str]]:
    """Each row, turned back into the record it came from."""
    names = [column.name for column in TRADES.feed_columns]
    found = engine.lake.load(TRADES).scan().to_arrow().to_pylist()
    return [(_place(row), sha256(encoded(_record(row, names), TRADES, schema_id))) for row in found]


def _record(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    sent = {name: row[name] for name in names}
    return {**sent, "vendor_data": None if sent["vendor_data"] is None else dict(sent["vendor_data"])}


def _letters(engine: Engine) -> list[tuple[Place, str]]:
    return [(_place(letter), sha256(letter["value"])) for letter in dead_letters(engine.lake, TRADES).to_pylist()]


def _place(row: dict[str, Any]) -> Place:
    return row["kafka_topic"], row["kafka_epoch"], row["kafka_partition"], row["kafka_offset"]
