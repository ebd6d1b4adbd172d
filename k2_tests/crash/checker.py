"""The checker: a producer's ledger against a lake. Every acknowledged record once, as it was sent, and nothing else.

It reads rows, letters and receipts, and trusts none of them alone: an acknowledged record must be a row, a dead letter,
or a counted repetition of something said before, and receipts must count, per Kafka partition, exactly that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from k2_core.contracts import DEAD_LETTERS, GAPS, RECEIPTS, Table
from k2_core.feeds import Feed, feeds_of
from k2_core.offsets import Offsets
from k2_core.sequences import Intervals, ScopeState
from k2_resources.lake.catalog import Lake
from k2_resources.lake.evidence import Evidence, gather
from k2_resources.lake.scans import dead_letters, unfilled_gaps
from k2_resources.lake.verify import prove
from k2_tests.crash.ledger import Ledger, Place, Told, digests, sha256

NAMED_MAX = 3
"""Examples a finding names."""
LogPartition = tuple[str, int, int]
"""Topic, epoch, Kafka partition."""
Findings = Iterator[str]


@dataclass(frozen=True)
class Row:
    """One stored row, reduced to what is compared."""

    place: Place
    message_id: str
    revision: int
    symbol: str
    sequence: int | None
    content: str
    values: str


@dataclass(frozen=True)
class Checked:
    """What one check counted, and everything wrong it saw."""

    findings: tuple[str, ...]
    offsets: Offsets
    rows: int
    letters: int
    duplicates: int
    told_lost: int


def check(lake: Lake, table: Table, feeds: Iterable[Feed], ledger: Ledger, before: Offsets | None = None) -> Checked:
    """Compare everything acknowledged with one table and its audit tables, once nothing waits to be ingested.

    before: C at an earlier check; no Kafka partition may be behind it.
    """
    own = feeds_of(table, feeds)
    topics = [feed.topic for feed in own]
    evidence = gather(lake, table)
    sent = ledger.of_topics(topics)
    rows = [_row(table, r) for r in evidence.loaded.scan().to_arrow().to_pylist()]
    letters = [(_place(r), sha256(r["value"])) for r in dead_letters(lake, table).to_pylist()]
    sent |= _landed_unanswered(sent, ledger, rows, letters)
    owed, told_lost = _owed(evidence, sent, ledger.epoch)
    places = [r.place for r in rows] + [at for at, _ in letters]
    offsets = evidence.source.offsets
    findings = [
        *(f"verify: {i.where}: {i.problem}" for i in prove(evidence).findings),
        *_unread(evidence, owed, ledger.epoch),
        *_misplaced(places, owed),
        *_unlike(owed, rows, letters),
        *_said_once(owed, rows),
        *_uncounted(evidence, owed, rows, letters),
        *_uncollected(evidence),
        *_gaps(lake, own, owed, rows),
        *_regressed(before, offsets),
    ]
    duplicates = len(owed) - len(rows) - len(letters)
    return Checked(tuple(findings), offsets, len(rows), len(letters), duplicates, told_lost)


def prove_exactly_once(
    lake: Lake, table: Table, feeds: Iterable[Feed], ledger: Ledger, before: Offsets | None = None
) -> Checked:
    """Assert that a check finds nothing."""
    checked = check(lake, table, feeds, ledger, before)
    assert not checked.findings, "\n".join(checked.findings)
    return checked


def _row(table: Table, row: dict[str, Any]) -> Row:
    if row.get("vendor_data") is not None:
        row["vendor_data"] = dict(row["vendor_data"])
    content, values = digests(table, row)
    return Row(
        _place(row), row["message_id"], row["revision"], row["symbol"], row.get("source_sequence"), content, values
    )


def _place(row: Mapping[str, Any]) -> Place:
    return row["kafka_topic"], row["kafka_epoch"], row["kafka_partition"], row["kafka_offset"]


def _landed_unanswered(
    sent: Mapping[Place, Told], ledger: Ledger, rows: Sequence[Row], letters: Sequence[tuple[Place, str]]
) -> dict[Place, Told]:
    """Records nobody acknowledged that are in the log all the same: the answer was lost, the record was not."""
    if not ledger.refused:
        return {}
    by_values = {told.values: told for told in ledger.refused if told.values}
    by_payload = {told.payload: told for told in ledger.refused if not told.values}
    found = {r.place: by_values[r.values] for r in rows if r.values in by_values}
    found |= {at: by_payload[payload] for at, payload in letters if payload in by_payload}
    return {at: told for at, told in found.items() if at not in sent}


def _owed(e: Evidence, sent: Mapping[Place, Told], epoch: int) -> tuple[dict[Place, Told], int]:
    """What must be in the lake: all of this epoch but accepted losses; of a former one what was read before its end."""
    read, accepted = defaultdict(list), defaultdict(list)
    for c in e.history:
        for r in c.receipt.ranges:
            if r.start < r.end:
                kind = accepted if c.receipt.kind == "accept_loss" else read
                kind[r.topic, r.kafka_epoch, r.kafka_partition].append((r.start, r.end))
    is_read, is_accepted = _Inside(read), _Inside(accepted)
    owed = {at: told for at, told in sent.items() if (at[1] == epoch or is_read.of(at)) and not is_accepted.of(at)}
    return owed, len(sent) - len(owed)


class _Inside:
    """Whether a place lies in one of some ranges."""

    def __init__(self, ranges: Mapping[LogPartition, Sequence[tuple[int, int]]]) -> None:
        self._ids = {
            partition: _merged([(first, end - 1) for first, end in found]) for partition, found in ranges.items()
        }

    def of(self, at: Place) -> bool:
        known = self._ids.get(at[:3])
        return known is not None and bool(known.contains(np.array([at[3]]))[0])


def _merged(ranges: Sequence[tuple[int, int]]) -> Intervals:
    found = Intervals()
    for first, last in ranges:
        found = found.union(Intervals(np.array([first]), np.array([last])))
    return found


def _unread(e: Evidence, owed: Mapping[Place, Told], epoch: int) -> Findings:
    at = e.source.offsets.positions
    beyond = []
    for place in owed:
        position = at.get((place[0], place[2]))
        if place[1] == epoch and (position is None or (position.epoch, position.next) <= (epoch, place[3])):
            beyond.append(place)
    yield from _named("lost: acknowledged and never read", beyond)


def _misplaced(places: Sequence[Place], owed: Mapping[Place, Told]) -> Findings:
    yield from _named("doubled: stored more than once", (at for at, n in Counter(places).items() if n > 1))
    yield from _named("foreign: stored, but nobody is owed it", set(places) - owed.keys())


def _unlike(owed: Mapping[Place, Told], rows: Sequence[Row], letters: Sequence[tuple[Place, str]]) -> Findings:
    """What is stored of a record is what was sent; a record that is none is a letter."""
    sent = [(owed[r.place], r) for r in rows if r.place in owed]
    yield from _named("altered: row differs from its record", (r.place for told, r in sent if told.values != r.values))
    of_letters = [(owed[at], at, payload) for at, payload in letters if at in owed]
    yield from _named("altered: letter differs", (at for told, at, payload in of_letters if told.payload != payload))
    yield from _named("dead though it is a record", (at for told, at, _ in of_letters if told.message_id is not None))
    lettered = {at for at, _ in letters}
    missing = (at for at, told in owed.items() if told.message_id is None and at not in lettered)
    yield from _named("lost: no dead letter", missing)


def _said_once(owed: Mapping[Place, Told], rows: Sequence[Row]) -> Findings:
    """Of each key: every content sent is stored once, and revisions count from 0 without a hole."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for told in owed.values():
        if told.message_id is not None:
            wanted[told.message_id].add(told.content)
    found: dict[str, list[Row]] = defaultdict(list)
    for r in rows:
        found[r.message_id].append(r)
    said = {key: Counter(r.content for r in of_key) for key, of_key in found.items()}
    empty: Counter[str] = Counter()
    yield from _named(
        "lost: content not stored", (k for k, contents in wanted.items() if contents - said.get(k, empty).keys())
    )
    yield from _named("doubled: content stored again", (k for k, counts in said.items() if max(counts.values()) > 1))
    yield from _named(
        "foreign: content nobody sent", (k for k, counts in said.items() if counts.keys() - wanted.get(k, set()))
    )
    holey = (k for k, of_key in found.items() if sorted(r.revision for r in of_key) != list(range(len(of_key))))
    yield from _named("revisions do not count from 0", holey)


def _uncounted(
    e: Evidence, owed: Mapping[Place, Told], rows: Sequence[Row], letters: Sequence[tuple[Place, str]]
) -> Findings:
    """Receipts count, per Kafka partition, the records read, the rows stored, the letters; the rest are duplicates."""
    read, stored, dead, duplicates = Counter(), Counter(), Counter(), Counter()
    for c in e.history:
        for r in c.receipt.ranges:
            at = (r.topic, r.kafka_epoch, r.kafka_partition)
            read[at] += r.read
            stored[at] += r.stored
            dead[at] += r.dead
            duplicates[at] += r.duplicates
    seen = Counter(at[:3] for at in owed)
    has_rows, has_letters = Counter(r.place[:3] for r in rows), Counter(at[:3] for at, _ in letters)
    for at in sorted({*read, *seen}):
        counted = (read[at], stored[at], dead[at], duplicates[at])
        there = (seen[at], has_rows[at], has_letters[at], seen[at] - has_rows[at] - has_letters[at])
        if counted != there:
            yield f"{at}: receipts count (read, stored, dead, duplicates) = {counted}; there are {there}"


def _uncollected(e: Evidence) -> Findings:
    """Every receipt is in audit.receipts; every sidecar in its audit table."""
    last = e.history[-1].sequence_number if e.history else 0
    if e.until(RECEIPTS) != last:
        yield f"{RECEIPTS.name} is at {e.until(RECEIPTS)}, {e.table.name} at {last}"
    for audit, kind in ((DEAD_LETTERS, "dead_letters"), (GAPS, "gaps")):
        until = e.until(audit)
        late = [c.sequence_number for c in e.history if c.sequence_number > until and c.receipt.files_of(kind)]  # type: ignore[arg-type]
        yield from _named(f"{audit.name} lacks the sidecars of receipts", late)


def _gaps(lake: Lake, feeds: Iterable[Feed], owed: Mapping[Place, Told], rows: Sequence[Row]) -> Findings:
    """The gaps unfilled are the holes in the ids stored, ids of dead letters counted as known."""
    for feed in feeds:
        if feed.rule == "contiguous":
            told = {(str(g["scope"]), g["first_id"], g["last_id"]) for g in unfilled_gaps(lake, feed.name)}
            holes = set(_holes(feed, owed, rows))
            if told != holes:
                yield f"{feed.name}: gaps {sorted(told - holes)} are none; {sorted(holes - told)} are not told"


def _holes(feed: Feed, owed: Mapping[Place, Told], rows: Sequence[Row]) -> Iterator[tuple[str, int, int]]:
    seen, dead = defaultdict(list), defaultdict(list)
    for r in rows:
        if r.place[0] == feed.topic and r.sequence is not None:
            seen[r.symbol].append(r.sequence)
    for at, told in owed.items():
        if at[0] == feed.topic and told.dead_id is not None:
            dead[told.dead_id[0]].append(told.dead_id[1])
    for symbol, ids in seen.items():
        known = ScopeState(Intervals.of(np.array(ids)), Intervals.of(np.array(dead[symbol], np.int64))).known()
        yield from ((symbol, first, last) for first, last in known.holes())


def _regressed(before: Offsets | None, now: Offsets) -> Findings:
    if before is not None:
        behind = [at for at, position in before.positions.items() if now.positions.get(at, position) < position]
        gone = before.positions.keys() - now.positions.keys()
        yield from _named("offsets went back", [*behind, *gone])


def _named(problem: str, where: Iterable[Any]) -> Findings:
    found = sorted(where)
    if found:
        yield f"{problem}: {len(found)}, such as {found[:NAMED_MAX]}"
