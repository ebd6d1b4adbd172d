"""One batch from raw records to what a commit brings: decode, screen, judge, count. No writes."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.contracts import CONTRACT_VERSION, DEAD_LETTERS, GAPS, Table
from k2_core.decode import Dead, Decoded, schema_id_of, with_lineage
from k2_core.exchange_dates import PLAUSIBLE_US
from k2_core.feeds import Feed
from k2_core.judge import judge_rows
from k2_core.offsets import OffsetRange
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_core.records import Records
from k2_core.verdict import DUPLICATE, REVISION, WRITTEN, GapEvent, Screened, State, StoredRows, Verdict

_DEAD = 3
_OUTCOMES = 4
"""WRITTEN, DUPLICATE and REVISION of `verdict`, and dead."""


@dataclass(frozen=True)
class Judged:
    """The verdict over the records of one topic in one batch."""

    feed: Feed
    records: Records
    decoded: Decoded
    screened: Screened
    verdict: Verdict
    epoch: int

    @cached_property
    def dead(self) -> list[Dead]:
        """Every dead letter, its index into the records."""
        places = self.decoded.source[[d.index for d in self.screened.dead]].tolist() if self.screened.dead else []
        hard = [
            Dead(at, d.reason, d.detail, schema_id_of(self.records.values[at]))
            for at, d in zip(places, self.screened.dead, strict=True)
        ]
        return sorted([*self.decoded.dead, *hard], key=lambda d: d.index)

    @cached_property
    def read(self) -> npt.NDArray[np.int64]:
        """Records of each Kafka partition, whatever became of them."""
        return np.bincount(self.records.kafka_partitions)

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """What became of the records: one row a Kafka partition, one column an outcome of `verdict`, then the dead."""
        partitions = self.records.kafka_partitions
        stored = partitions[self.decoded.source[self.screened.source]].astype(np.int64)
        dead = partitions[[d.index for d in self.dead]].astype(np.int64)
        cells = np.concatenate([stored * _OUTCOMES + self.verdict.outcome, dead * _OUTCOMES + _DEAD])
        length = (int(partitions.max(initial=0)) + 1) * _OUTCOMES
        return np.bincount(cells, minlength=length).reshape(-1, _OUTCOMES)


def judge_records(
    feed: Feed,
    records: Records,
    *,
    decoded: Decoded,
    epoch: int,
    state: State,
    stored: StoredRows,
    today: date,
) -> Judged:
    """Decide every record of one topic; decoded is what was made of these records."""
    rows = with_lineage(decoded, records, epoch)
    screened, verdict = judge_rows(feed, rows, state=state, stored=stored, today=today)
    return Judged(feed, records, decoded, screened, verdict, epoch)


def receipt_for(
    table: Table,
    ranges: Sequence[OffsetRange],
    *,
    epochs: Mapping[str, int],
    judged: Sequence[Judged],
    run_id: str,
    code_version: str,
) -> Receipt:
    """Count what became of every record, per Kafka partition and per exchange date."""
    by_topic = {j.feed.topic: j for j in judged}
    return Receipt(
        table=table.name,
        kind="batch",
        run_id=run_id,
        code_version=code_version,
        contract_version=CONTRACT_VERSION,
        ranges=tuple(_count(r, epochs[r.topic], by_topic.get(r.topic)) for r in ranges),
        schema_ids=tuple(sorted({i for j in judged for i in j.decoded.schema_ids})),
        dates=tuple(d for j in judged for d in _dates(j)),
        reverted=sum(j.verdict.reverted for j in judged),
        precision_upgrades=sum(j.verdict.precision_upgrades for j in judged),
    )


def _count(r: OffsetRange, epoch: int, judged: Judged | None) -> RangeCount:
    if judged is None or r.kafka_partition >= len(judged.counts):
        return RangeCount(r.topic, epoch, r.kafka_partition, r.start, r.end)
    counts = judged.counts[r.kafka_partition]
    return RangeCount(
        r.topic,
        epoch,
        r.kafka_partition,
        r.start,
        r.end,
        read=int(judged.read[r.kafka_partition]),
        written=int(counts[WRITTEN]),
        duplicates=int(counts[DUPLICATE]),
        revisions=int(counts[REVISION]),
        dead=int(counts[_DEAD]),
    )


def _dates(judged: Judged) -> list[DateRows]:
    counted = pc.value_counts(judged.verdict.rows["exchange_date"].combine_chunks()).to_pylist()
    rows = {entry["values"]: entry["counts"] for entry in counted}
    for day in (*judged.verdict.touched, *(event.exchange_date for event in judged.verdict.gaps)):
        rows.setdefault(day, 0)
    return [DateRows(day, judged.feed.name, count) for day, count in sorted(rows.items())]


def dead_letter_rows(table: Table, judged: Sequence[Judged]) -> pa.Table:
    """The dead letters of a batch with their bytes, in the columns of audit.dead_letters."""
    rows = [_dead_letter(table, j, d) for j in judged for d in j.dead]
    return pa.Table.from_pylist(rows, schema=DEAD_LETTERS.arrow_schema())


def _dead_letter(table: Table, judged: Judged, dead: Dead) -> dict[str, object]:
    records, i = judged.records, dead.index
    envelope = records.envelopes[i]
    sent_ms = envelope.timestamp_ms
    headers = [[name, None if v is None else base64.b64encode(v).decode()] for name, v in envelope.headers]
    return {
        "table_name": table.name,
        "kafka_topic": records.topic,
        "kafka_epoch": judged.epoch,
        "kafka_partition": int(records.kafka_partitions[i]),
        "kafka_offset": int(records.offsets[i]),
        "kafka_timestamp": sent_ms * 1_000 if 0 <= sent_ms * 1_000 < PLAUSIBLE_US[1] else None,
        "key": envelope.key,
        "value": records.values[i],
        "headers": json.dumps(headers),
        "schema_id": dead.schema_id,
        "reason": dead.reason.value,
        "detail": dead.detail,
    }


def gap_rows(judged: Sequence[Judged]) -> pa.Table:
    """The gap events of a batch in the columns of audit.gaps; the collector numbers them."""
    rows = [_gap_row(event) for j in judged for event in j.verdict.gaps]
    return pa.Table.from_pylist(rows, schema=GAPS.arrow_schema())


def _gap_row(event: GapEvent) -> dict[str, object]:
    return {
        **asdict(event),
        "gap_id": event.gap_id,
        "size": event.size,
        "severity": event.severity,
        "event_number": 0,
    }
