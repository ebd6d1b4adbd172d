"""Between the log and the ledger: what can be decoded now is decoded, and what is decoded is judged."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import pyarrow as pa

from k2_assets.ahead import ahead
from k2_assets.batches import Judged, dead_letter_rows, gap_rows, judge_records, receipt_for
from k2_core.contracts import Table
from k2_core.decode import Decoded
from k2_core.feeds import Feed
from k2_core.protocol.ports import Change, Head, Reach
from k2_core.records import LogBatch, Records
from k2_core.waiting import Waiting
from k2_resources import clock
from k2_resources.decoders import Decoders, Decoding
from k2_resources.lake.scans import stored_revisions
from k2_resources.lake.staging import read_state
from k2_resources.registry import Registry


@dataclass(frozen=True)
class Desk:
    """Decodes with the schemas of a registry, judges with the rules of the feeds."""

    feeds: Mapping[str, Feed]
    registry: Registry
    reach: Reach
    code_version: str

    @cached_property
    def _decoders(self) -> Decoders:
        return Decoders(self.feeds, self.registry)

    def arrivals(self, table: Table, batches: Iterator[LogBatch]) -> Iterator[Decoding]:
        """Decode in a thread of its own, one batch ahead.

        A Kafka partition whose records need a schema nobody knows waits; once all else is done, SchemaUnavailable is
        raised.
        """
        return ahead(self._decoded(table, batches))

    def _decoded(self, table: Table, batches: Iterator[LogBatch]) -> Generator[Decoding, None, None]:
        waiting = Waiting()
        for whole in batches:
            decoding = self._decoders.decoding(table, whole, waiting)
            if decoding.ranges:
                yield decoding
        waiting.complain()

    def judge(self, at: Head, arrived: Decoding, epochs: Mapping[str, int], run_id: str) -> Change:
        """Decide every record against what the head holds, and count. Writes nothing."""
        self.reach("decoded")
        pairs = zip(arrived.batch.records, arrived.decoded, strict=True)
        judged = [self._judged(at, records, decoded, epochs[records.topic]) for records, decoded in pairs]
        receipt = receipt_for(
            at.table, arrived.ranges, epochs=epochs, judged=judged, run_id=run_id, code_version=self.code_version
        )
        return Change(
            receipt=receipt,
            rows=_together(at.table, [j.verdict.rows for j in judged if len(j.verdict.rows)]),
            dead_letters=dead_letter_rows(at.table, judged),
            gaps=gap_rows(judged),
            # also where nothing is remembered: a verdict relied on what was stored, so every commit moves this key
            states={j.feed.topic: j.verdict.state for j in judged},
        )

    def _judged(self, at: Head, records: Records, decoded: Decoded, epoch: int) -> Judged:
        return judge_records(
            self.feeds[records.topic],
            records,
            decoded=decoded,
            epoch=epoch,
            state=read_state(at, records.topic),
            stored=partial(stored_revisions, at),
            today=clock.now().date(),
        )


def _together(table: Table, rows: list[pa.Table]) -> pa.Table | None:
    """The rows of several feeds in the order of their table; those of one are in it already."""
    if len(rows) < 2:
        return rows[0] if rows else None
    order = [(name, "ascending") for name in ("exchange_date", *table.sort)]
    return pa.concat_tables(rows).sort_by(order)
