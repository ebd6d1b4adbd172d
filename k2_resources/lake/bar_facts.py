"""What commits of trades changed, date by date, for whoever serves bars: kept in memory, brought up commit by commit.

A stored bar serves another C when no receipt between the two names its date. The holes in the ids of a date are those
the judge had seen by a commit. Both are read from the audit tables once, then from the receipts of new commits, whether
the collector has copied them or not.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable
from datetime import date

from pyiceberg.expressions import And, EqualTo, NotIn
from pyiceberg.table import Table as IcebergTable

from k2_core.bars import Hole
from k2_core.contracts import GAPS, TRADES
from k2_core.errors import Damaged
from k2_core.gap_ids import STATED
from k2_core.protocol.collected import collected_until
from k2_core.receipts import Committed
from k2_resources.lake.catalog import Lake
from k2_resources.lake.copies import EVENTS_PER_COMMIT, read_sidecar
from k2_resources.lake.derived_reads import GAP_COLUMNS, GapEvent, holes_among
from k2_resources.lake.receipts import ordered_snapshots, receipts_of
from k2_resources.lake.scans import receipt_rows


class BarFacts:
    """Touched dates and seen holes of the trades of one lake. Safe to share between threads; its calls may block."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._lock = threading.Lock()
        self._table_uuid = ""
        self._until = 0
        self._touches: dict[date, list[int]] = {}
        self._seen: dict[str, list[GapEvent]] = {}
        self._gap_ids: dict[date, list[str]] = {}

    def reach(self, table_uuid: str, sequence_number: int) -> None:
        """Know every commit up to one. Raises NotFound, Damaged, Unreachable."""
        with self._lock:
            if table_uuid == self._table_uuid and sequence_number <= self._until:
                return
            loaded = self._lake.load(TRADES)
            if table_uuid != self._table_uuid or not _goes_on(loaded, self._until):
                self._start(table_uuid)
            try:
                self._go_on(loaded)
            except Damaged:  # a sidecar the collector has copied and swept since: the audit tables have it by now
                self._start(table_uuid)
                self._go_on(self._lake.load(TRADES))

    def is_unchanged(self, day: date, one: int, other: int) -> bool:
        """Whether a date holds the same trades at two commits. Both are known."""
        low, high = sorted((one, other))
        with self._lock:
            touches = self._touches.get(day, [])
            return bisect_right(touches, low) == bisect_right(touches, high)

    def forget(self, day: date, before: int) -> None:
        """Drop what nobody needs who asks about a date only from one commit on, or whether it changed up to that."""
        with self._lock:
            touches = self._touches.get(day, [])
            del touches[: max(bisect_right(touches, before) - 1, 0)]

    def holes(self, day: date, symbol: str, sequence_number: int) -> list[Hole]:
        """Holes in the ids of one symbol on a date, as the judge had seen them by a commit."""
        limit = (sequence_number + 1) * EVENTS_PER_COMMIT
        with self._lock:
            told = [event for gap_id in self._gap_ids.get(day, ()) for event in self._seen[gap_id]]
        return holes_among((e for e in told if e["scope"] == symbol and e["event_number"] < limit), day)

    def _start(self, table_uuid: str) -> None:
        """Begin with what the audit tables hold."""
        trades, gaps = self._lake.head(TRADES), self._lake.head(GAPS)
        self._table_uuid, self._until = table_uuid, collected_until(gaps, trades)
        self._touches, self._seen, self._gap_ids = defaultdict(list), {}, defaultdict(list)
        told = receipt_rows(self._lake, TRADES, columns=("sequence_number", "dates"))
        for number, dates in zip(told["sequence_number"].to_pylist(), told["dates"].to_pylist(), strict=True):
            self._touch(number, (d["exchange_date"] for d in dates))
        of_judge = And(EqualTo("table_name", TRADES.name), NotIn("state", STATED))
        events = gaps.loaded.scan(of_judge, selected_fields=GAP_COLUMNS).to_arrow()
        self._see(events.sort_by("event_number").to_pylist())

    def _go_on(self, loaded: IcebergTable) -> None:
        for committed in receipts_of(loaded, self._until):
            self._touch(committed.sequence_number, (d.exchange_date for d in committed.receipt.dates))
            self._see(_events_of(committed))
        self._until = max((s.sequence_number or 0 for s in loaded.metadata.snapshots), default=self._until)

    def _touch(self, number: int, days: Iterable[date]) -> None:
        for day in set(days):
            if number not in self._touches[day][-1:]:
                insort(self._touches[day], number)

    def _see(self, events: Iterable[GapEvent]) -> None:
        """Take events in their order; a gap is of the date it was first seen on."""
        for event in events:
            if event["gap_id"] not in self._seen:
                self._gap_ids[event["exchange_date"]].append(event["gap_id"])
            self._seen.setdefault(event["gap_id"], []).append({name: event[name] for name in GAP_COLUMNS})


def _goes_on(loaded: IcebergTable, until: int) -> bool:
    """Whether the retained history begins no later than right after a commit."""
    later = [s.sequence_number or 0 for s in ordered_snapshots(loaded) if (s.sequence_number or 0) > until]
    return not later or later[0] == until + 1


def _events_of(committed: Committed) -> list[GapEvent]:
    """The gap events of one commit, numbered as the collector numbers them."""
    files = committed.receipt.files_of("gaps")
    events = [event for file in files for event in read_sidecar(file.path).to_pylist()]
    first = committed.sequence_number * EVENTS_PER_COMMIT
    numbered = ({**event, "event_number": first + i} for i, event in enumerate(events))
    return [event for event in numbered if event["state"] not in STATED]
