"""Prove a table from the tables alone: receipts balance, ranges are contiguous, files are what receipts say.

Reads metadata, receipts, file bytes and the audit tables (`audited`), never a row of the table itself; what needs
rows (unique keys) is asked of a query engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from k2_core.contracts import Table
from k2_core.errors import K2Error
from k2_core.keys import offsets_in, state_key
from k2_core.offsets import Offsets, Position
from k2_core.receipts import Committed, FileEntry, Imbalance, Receipt, check_ranges, fold_offsets
from k2_resources.lake.audited import audited
from k2_resources.lake.catalog import Lake
from k2_resources.lake.durable import sha256_of
from k2_resources.lake.evidence import Evidence, gather, receipt_of_row

__all__ = ["Proof", "all_receipts", "prove", "receipt_of_row", "verify"]

_HASHING_THREADS = 2
"""Files are hashed side by side: hashlib lets go of the interpreter, and a gigabyte takes a core 0.7 s."""
_STATE = state_key("").rpartition(".")[0]
"""What the names of the properties that name state files begin with."""
_ATTEMPTS_MAX = 3
"""Times a proof starts again because snapshots were forgotten under it; that is once in fifty commits."""


@dataclass(frozen=True)
class Proof:
    """What was proven of one table: the sums, and everything that does not add up.

    unreferenced: files that nothing names. Harmless, so no finding: a killed writer left them, and a sweep takes them;
    or a writer is at work right now.
    """

    table: str
    snapshot_id: int | None
    version: str
    receipts: int
    read: int
    written: int
    duplicates: int
    revisions: int
    dead: int
    rows: int
    unreferenced: tuple[str, ...]
    findings: tuple[Imbalance, ...]


def verify(lake: Lake, table: Table) -> Proof:
    """Prove one table at its head, while others may commit. Raises NotFound when it does not exist."""
    return weighed(lake, table, prove)


def weighed(lake: Lake, table: Table, weigh: Callable[[Evidence], Proof]) -> Proof:
    """Gather and weigh, and do both again when what does not add up may have been forgotten meanwhile."""
    for attempt in range(_ATTEMPTS_MAX):
        is_last = attempt == _ATTEMPTS_MAX - 1
        evidence = gather(lake, table)
        try:
            proof = weigh(evidence)
        except (OSError, K2Error):
            if is_last or not evidence.is_outdated(lake):
                raise
        else:
            if is_last or not proof.findings or not evidence.is_outdated(lake):
                return proof
    raise AssertionError("the last attempt returns or raises")


def all_receipts(lake: Lake, table: Table) -> tuple[list[Receipt], list[Imbalance]]:
    """All receipts in commit order; with them, every snapshot without one and every copy that does not equal its."""
    evidence = gather(lake, table)
    return evidence.receipts, [*evidence.findings, *audited(evidence, ())]


def prove(evidence: Evidence) -> Proof:
    """Weigh what was gathered: everything that does not add up is a finding, none an error."""
    table, receipts = evidence.table, evidence.receipts
    ranges = [r for receipt in receipts for r in receipt.ranges]
    head, current = offsets_in(evidence.loaded.properties), evidence.loaded.current_snapshot()
    rows = sum(n for _, n in evidence.stored)
    findings = [*evidence.findings, *check_ranges(receipts), *_registrations(evidence), *_sums(evidence)]
    findings += _offsets(table, receipts, head)
    files = [*_files(evidence), *_bytes(evidence)]
    findings += [*files, *_states(evidence), *audited(evidence, {f.where for f in files})]
    if rows != (told := sum(r.stored for r in ranges)):
        findings.append(Imbalance(table.name, f"holds {rows} rows, but its receipts stored {told}"))
    return Proof(
        table=table.name,
        snapshot_id=current.snapshot_id if current else None,
        version=head.version,
        receipts=len(receipts),
        read=sum(r.read for r in ranges),
        written=sum(r.written for r in ranges),
        duplicates=sum(r.duplicates for r in ranges),
        revisions=sum(r.revisions for r in ranges),
        dead=sum(r.dead for r in ranges),
        rows=rows,
        unreferenced=_unreferenced(evidence),
        findings=tuple(findings),
    )


def _registrations(e: Evidence) -> list[Imbalance]:
    """A registration reads nothing, and never moves a Kafka partition that has a place already."""
    found: list[Imbalance] = []
    at: dict[tuple[str, int], Position] = {}
    for c in e.history:
        for r in c.receipt.ranges:
            place, before = Position(r.kafka_epoch, r.start), at.get((r.topic, r.kafka_partition))
            where = f"{_where(c)} {r.topic}[{r.kafka_partition}]"
            if c.receipt.kind == "register" and r.start != r.end:
                found.append(Imbalance(where, f"registers the offsets [{r.start}, {r.end}) as read"))
            if c.receipt.kind == "register" and before not in (None, place):
                found.append(Imbalance(where, f"is registered a second time, at {place}; it was at {before}"))
            at[r.topic, r.kafka_partition] = Position(r.kafka_epoch, r.end)
    return found


def _sums(e: Evidence) -> list[Imbalance]:
    """What a receipt counted is what its own files and dates hold."""
    found = []
    for c in e.history:
        receipt = c.receipt
        kept = receipt.rows_stored + receipt.rows_moved
        told = {
            "data files": (sum(f.rows for f in receipt.files_of("data")), kept, "stored"),
            "replaced files": (sum(f.rows for f in receipt.replaced), sum(m.rows_in for m in receipt.moved), "moved"),
            "dates": (sum(d.rows for d in receipt.dates), receipt.rows_stored, "stored"),
            "sidecars": (sum(f.rows for f in receipt.files_of("dead_letters")), receipt.dead, "counted dead"),
        }
        found += [
            Imbalance(_where(c), f"its {name} hold {rows} rows, its ranges {verb} {counted}")
            for name, (rows, counted, verb) in told.items()
            if rows != counted
        ]
        found += [
            Imbalance(f"{_where(c)} {m.topic}[{m.kafka_partition}]", f"{m.rows_in} rows moved became {m.rows_out}")
            for m in receipt.moved
            if m.rows_in != m.rows_out
        ]
    return found


def _where(c: Committed) -> str:
    return f"{c.receipt.table} commit {c.sequence_number}"


def _offsets(table: Table, receipts: Iterable[Receipt], head: Offsets) -> list[Imbalance]:
    folded = Offsets()
    try:
        for receipt in receipts:
            folded = fold_offsets(folded, receipt)
    except ValueError as error:
        return [Imbalance(table.name, f"a receipt goes back: {error}")]
    at, end = head.positions, folded.positions
    return [
        Imbalance(f"{t}[{p}]", f"{table.name} is at {at.get((t, p))}, its receipts end at {end.get((t, p))}")
        for t, p in sorted({*at, *end})
        if at.get((t, p)) != end.get((t, p))
    ]


def _files(e: Evidence) -> list[Imbalance]:
    """Every named data file that was not replaced is in the table once with its rows, and every file there is named."""
    named = {path: life.entry.rows for path, life in e.lives.items() if life.went is None}
    stored, times = dict(e.stored), Counter(path for path, _ in e.stored)
    strangers, lost = sorted(stored.keys() - named.keys()), sorted(named.keys() - stored.keys())
    return [
        *(Imbalance(path, _strange(e, path)) for path in strangers),
        *(Imbalance(path, f"a receipt names it, but {e.table.name} lost it") for path in lost),
        *(Imbalance(path, f"is in {e.table.name} {n} times") for path, n in sorted(times.items()) if n > 1),
        *(
            Imbalance(path, f"holds {stored[path]} rows, its receipt says {rows}")
            for path, rows in sorted(named.items())
            if stored.get(path, rows) != rows
        ),
        *_replacements(e),
    ]


def _strange(e: Evidence, path: str) -> str:
    told = "a receipt says it was replaced" if path in e.lives else "no receipt names it"
    return f"is in {e.table.name} but {told}"


def _replacements(e: Evidence) -> list[Imbalance]:
    """A rewrite takes out what an earlier commit put in, as that commit named it, and nobody takes it out again."""
    found: list[Imbalance] = []
    there: dict[str, FileEntry] = {}
    for c in e.history:
        for f in c.receipt.replaced:
            if (entry := there.pop(f.path, None)) != f:
                problem = f"{_where(c)} replaced it, but no commit before had put it in"
                found.append(Imbalance(f.path, f"{problem} as it says" if entry else problem))
        there |= {f.path: f for f in c.receipt.files_of("data")}
    return found


def _bytes(e: Evidence) -> list[Imbalance]:
    """Data files and sidecars are there, and as they were written; of state files only the head's need be.

    A replaced file is there as long as a retained snapshot refers to it.
    """
    due: list[FileEntry] = []
    for c in e.history:
        for entry in c.receipt.files:
            is_held = e.is_held(e.lives[entry.path]) if entry.kind == "data" else not e.may_be_gone(c)
            if entry.kind != "state" and (is_held or Path(entry.path).exists()):
                due.append(entry)
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        return list(chain.from_iterable(pool.map(_altered, due)))


def _altered(entry: FileEntry) -> list[Imbalance]:
    try:
        digest = sha256_of(entry.path)
    except OSError as error:
        return [Imbalance(entry.path, f"{error.strerror}; its receipt names it as {entry.kind}")]
    if digest == entry.sha256:
        return []
    return [Imbalance(entry.path, f"SHA-256 is {digest}, its receipt says {entry.sha256}")]


def _states(e: Evidence) -> list[Imbalance]:
    """The state file the head names for a topic is of the newest commit that wrote one for it, and as written.

    A receipt does not say which topic a state file is of: it holds one for each topic with records whose feed keeps
    a state, so that it holds as many as such topics of it have a state at the head.
    """
    topics = {r.topic for receipt in e.receipts for r in receipt.ranges}
    head = {t: path for t in sorted(topics) if (path := e.loaded.properties.get(state_key(t))) is not None}
    newest: dict[str, Committed] = {}
    lost: list[Imbalance] = []
    for c in e.history:
        read, written = {r.topic for r in c.receipt.ranges if r.read}, c.receipt.files_of("state")
        if len(written) > len(read & head.keys()):
            told = ", ".join(sorted(read - head.keys()))
            lost = [Imbalance(f"{_where(c)} {told}", f"wrote {len(written)} state files; the head names fewer of them")]
        if len(written) >= len(read & head.keys()):
            newest.update(dict.fromkeys(read & head.keys(), c))
    return [*lost, *chain.from_iterable(_state(t, path, newest.get(t)) for t, path in head.items())]


def _state(topic: str, path: str, c: Committed | None) -> list[Imbalance]:
    entry = next((f for f in c.receipt.files_of("state") if f.path == path), None) if c else None
    if entry is None:
        told = f"{_where(c)} wrote another" if c else "no receipt names one"
        return [Imbalance(path, f"the head names it as the state of {topic}, but {told}")]
    return _altered(entry)


def _unreferenced(e: Evidence) -> tuple[str, ...]:
    """Files that lay in the folders of the table and that nothing names; those of a forgotten commit among them."""
    named = {path for path, _ in e.stored} | {v for k, v in e.loaded.properties.items() if k.startswith(_STATE)}
    named |= {path for path, life in e.lives.items() if e.is_held(life)}
    named |= {f.path for c in e.former for f in c.receipt.files if f.kind == "data"}
    for c in (*e.history, *e.former):
        if not e.may_be_gone(c):
            named |= {c.path, *(f.path for f in c.receipt.files if f.kind != "data")}
    return tuple(sorted(e.files - named))
