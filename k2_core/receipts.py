"""What one commit did: ranges, counts, files. `read = written + duplicates + revisions + dead`, per Kafka partition."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from k2_core.offsets import Offsets, Position

Kind = Literal["batch", "register", "adopt", "accept_loss", "resume", "maintenance"]
FileKind = Literal["data", "dead_letters", "gaps", "state"]

SUMMARY_BYTES_MAX = 8_000
"""Larger summaries grow metadata.json to megabytes, since every snapshot keeps its own."""


@dataclass(frozen=True)
class RangeCount:
    """What became of the records of one half-open range."""

    topic: str
    kafka_epoch: int
    kafka_partition: int
    start: int
    end: int
    read: int = 0
    written: int = 0
    duplicates: int = 0
    revisions: int = 0
    dead: int = 0

    @property
    def is_balanced(self) -> bool:
        return (
            self.read == self.written + self.duplicates + self.revisions + self.dead
            and self.read <= self.end - self.start
        )

    @property
    def stored(self) -> int:
        """Rows this range put into the table."""
        return self.written + self.revisions


@dataclass(frozen=True)
class FileEntry:
    """One file a commit names: rows and SHA-256 prove that it is still what was written."""

    kind: FileKind
    path: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class DateRows:
    """Rows one commit stored for one exchange date of one feed."""

    exchange_date: date
    feed: str
    rows: int


@dataclass(frozen=True)
class MovedRows:
    """Rows of one log partition that a rewrite moved: read from the files taken out, found in those put in."""

    topic: str
    kafka_epoch: int
    kafka_partition: int
    rows_in: int
    rows_out: int


@dataclass(frozen=True)
class Receipt:
    """The content of a receipt file; its SHA-256 stands in the snapshot summary.

    replaced: data files a rewrite took out of the table; its own files hold their rows. moved: how many those are.
    """

    table: str
    kind: Kind
    run_id: str
    code_version: str
    contract_version: str
    ranges: tuple[RangeCount, ...]
    schema_ids: tuple[int, ...] = ()
    files: tuple[FileEntry, ...] = ()
    dates: tuple[DateRows, ...] = ()
    reverted: int = 0
    precision_upgrades: int = 0
    who: str | None = None
    why: str | None = None
    replaced: tuple[FileEntry, ...] = ()
    moved: tuple[MovedRows, ...] = ()

    @property
    def rows_stored(self) -> int:
        return sum(r.stored for r in self.ranges)

    @property
    def dead(self) -> int:
        return sum(r.dead for r in self.ranges)

    @property
    def rows_moved(self) -> int:
        """Rows that were there before and are in its files now."""
        return sum(m.rows_out for m in self.moved)

    def files_of(self, kind: FileKind) -> tuple[FileEntry, ...]:
        return tuple(f for f in self.files if f.kind == kind)

    def ends(self) -> dict[tuple[str, int], Position]:
        """Positions after this commit."""
        return {(r.topic, r.kafka_partition): Position(r.kafka_epoch, r.end) for r in self.ranges}

    def to_json(self) -> bytes:
        """Render canonically: equal receipts are equal bytes."""
        return json.dumps(vars(self), default=_plain, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Receipt:
        """Read a receipt file. Raises ValueError, TypeError or KeyError when it is none."""
        d: dict[str, Any] = json.loads(content)
        return cls(
            **{
                **d,
                "ranges": tuple(RangeCount(**r) for r in d["ranges"]),
                "schema_ids": tuple(d["schema_ids"]),
                "files": tuple(FileEntry(**f) for f in d["files"]),
                "dates": tuple(
                    DateRows(**{**r, "exchange_date": date.fromisoformat(r["exchange_date"])}) for r in d["dates"]
                ),
                # an older K2 rewrote nothing, and its receipts do not say so
                "replaced": tuple(FileEntry(**f) for f in d.get("replaced", ())),
                "moved": tuple(MovedRows(**m) for m in d.get("moved", ())),
            }
        )

    def summary(self, path: str, sha256: str) -> str:
        """Render for the snapshot summary; the ranges are left to the file when they would not fit."""
        ranges: dict[str, list[list[int]]] = {}
        for r in self.ranges:
            counts = [r.kafka_partition, r.start, r.end, r.read, r.written, r.duplicates, r.revisions, r.dead]
            ranges.setdefault(f"{r.topic}:{r.kafka_epoch}", []).append(counts)
        brief = {
            "kind": self.kind,
            "run": self.run_id,
            "code": self.code_version,
            "schemas": list(self.schema_ids),
            "file": path,
            "sha256": sha256,
        }
        full = json.dumps({**brief, "ranges": ranges}, separators=(",", ":"))
        return full if len(full) <= SUMMARY_BYTES_MAX else json.dumps(brief, separators=(",", ":"))


def _plain(value: Any) -> Any:
    """Parts of a receipt as JSON knows them. Copying them field by field, as asdict does, costs a commit its budget."""
    return value.isoformat() if isinstance(value, date) else vars(value)


@dataclass(frozen=True)
class Committed:
    """A receipt and the snapshot that carries it."""

    receipt: Receipt
    table_uuid: str
    snapshot_id: int
    sequence_number: int
    snapshot_time: datetime
    path: str
    sha256: str


@dataclass(frozen=True)
class Imbalance:
    """One thing that does not add up: where, and what was found against what was expected."""

    where: str
    problem: str


def check_ranges(receipts: Iterable[Receipt]) -> list[Imbalance]:
    """Find every range that does not balance, overlaps, or leaves a hole. receipts: of one table, in commit order.

    Per topic and Kafka partition the ranges of an epoch form one contiguous prefix. A `register` states where it
    starts; `adopt` and `accept_loss` are the only jumps.
    """
    found: list[Imbalance] = []
    at: dict[tuple[str, int], Position] = {}
    epochs: dict[str, int] = {}
    for number, receipt in enumerate(receipts):
        for r in receipt.ranges:
            where = f"{receipt.table} receipt {number} {r.topic}[{r.kafka_partition}] [{r.start}, {r.end})"
            if not r.is_balanced:
                parts = f"{r.written} written + {r.duplicates} duplicates + {r.revisions} revisions + {r.dead} dead"
                found.append(Imbalance(where, f"read {r.read} records of {r.end - r.start} offsets, but {parts}"))
            # a Kafka partition added to a known topic starts at 0; before a registration nothing may be read
            added = Position(epochs[r.topic], 0) if r.topic in epochs else None
            found += _continuity(receipt.kind, r, at.get((r.topic, r.kafka_partition), added), where)
            at[r.topic, r.kafka_partition] = Position(r.kafka_epoch, r.end)
            epochs[r.topic] = r.kafka_epoch
    return found


def _continuity(kind: Kind, r: RangeCount, before: Position | None, where: str) -> list[Imbalance]:
    if kind in ("register", "adopt", "accept_loss"):
        return []
    if before is None:
        return [Imbalance(where, "read before the topic was registered")]
    if before != Position(r.kafka_epoch, r.start):
        word = "overlaps" if Position(r.kafka_epoch, r.start) < before else "leaves a hole after"
        return [Imbalance(where, f"{word} {before}")]
    return []


def fold_offsets(before: Offsets, receipt: Receipt) -> Offsets:
    """C after a commit, from C before it."""
    return before.advanced(receipt.ends())
