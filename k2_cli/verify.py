"""`k2 verify`: prove from the tables alone that nothing is missing, doubled or altered; name what is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table as Grid

from k2_core.contracts import INGESTED, Table, table_named
from k2_core.errors import NotFound
from k2_core.provenance import UNREAD, Readers
from k2_core.receipts import Committed, Imbalance, RangeCount
from k2_core.tables import LINEAGE_NAMES
from k2_resources.duck import Duck, parquet_paths, statement
from k2_resources.lake.catalog import Lake
from k2_resources.lake.evidence import Evidence
from k2_resources.lake.verify import Proof, prove, weighed
from k2_resources.settings import Settings

UNBALANCED = 1
"""Exit code when something does not add up; 2 is kept for what could not be proven at all."""
_PROOF_SECONDS_MAX = 3600.0
"""A proof may take as long as the rows need; an hour is a lake far beyond one machine."""
_KEYS_AT_ONCE = 4_000_000
"""Keys compared in one query: some 400 MB of memory; a larger table is read once for each of so many."""
_ROWS_AT_ONCE = 262_144
"""Rows of a rewritten file in memory, of some 50 bytes each: it may hold millions."""
Place = tuple[Any, ...]
"""Where rows are counted: sequence number of the commit, what is counted, and its log partition or exchange date."""


@click.command()
@click.option("--home", type=click.Path(path_type=Path), help="Home of the stack; K2_HOME otherwise.")
@click.option("--table", "name", help="One table, e.g. trades; all otherwise.")
@click.option("--deep", is_flag=True, help="Read the stored rows, too: keys, revisions, offsets and dates.")
@click.option("--json", "as_json", is_flag=True, help="Print the proofs as JSON.")
@click.pass_context
def verify(ctx: click.Context, home: Path | None, name: str | None, deep: bool, as_json: bool) -> None:
    """Prove that receipts balance, ranges are contiguous, and files are what the receipts say, byte for byte.

    Exits 1 and names what does not add up. Files that nothing names are listed; they make no difference.
    """
    settings = Settings(home=home) if home else Settings()
    if settings.catalog_uri is None and not (settings.home / "catalog.db").exists():
        raise NotFound(f"no catalog in {settings.home}: nothing was ever ingested there")
    lake = Lake(settings.catalog(), settings.warehouse_path())
    duck = Duck(threads=1, memory=settings.query_memory, seconds_max=_PROOF_SECONDS_MAX)
    try:
        proofs = [proof_of(lake, duck, table, deep=deep) for table in _tables(lake, name)]
    finally:
        duck.close()
    if as_json:
        click.echo(json.dumps([asdict(proof) for proof in proofs], indent=2))
    else:
        _print(proofs)
    if any(proof.findings for proof in proofs):
        ctx.exit(UNBALANCED)


def proof_of(lake: Lake, duck: Duck, table: Table, *, deep: bool = False) -> Proof:
    """Everything that can be proven of one table: metadata and files by the lake; deep, keys and offsets by queries."""
    return weighed(lake, table, partial(_deep, duck) if deep else prove)


def _deep(duck: Duck, evidence: Evidence) -> Proof:
    proof, table = prove(evidence), evidence.table
    damaged = {finding.where for finding in proof.findings}
    sound = {path: rows for path, rows in evidence.stored if path not in damaged}
    if not sound:
        return proof
    paths = parquet_paths(sound)
    findings = [
        *proof.findings,
        *_repeated_keys(duck, table, paths, sum(sound.values())),
        *_sparse_revisions(duck, table, paths),
        *_repeated_offsets(duck, table, paths),
        *_misplaced(evidence, duck.fetch(statement("stored_ranges"), {"files": paths}).to_pylist()),
    ]
    return replace(proof, findings=tuple(findings))


def _repeated_keys(duck: Duck, table: Table, paths: Sequence[str], rows: int) -> list[Imbalance]:
    parts = rows // _KEYS_AT_ONCE + 1
    repeated = [
        row
        for part in range(parts)
        for row in duck.fetch(statement("repeated_keys"), {"files": paths, "part": part, "parts": parts}).to_pylist()
    ]
    return [
        Imbalance(f"{table.name} {row['message_id']} revision {row['revision']}", f"is stored {row['copies']} times")
        for row in repeated
    ]


def _sparse_revisions(duck: Duck, table: Table, paths: Sequence[str]) -> list[Imbalance]:
    return [
        Imbalance(f"{table.name} {row['message_id']}", f"{row['revisions']} revisions, {row['first']} to {row['last']}")
        for row in duck.fetch(statement("sparse_revisions"), {"files": paths}).to_pylist()
    ]


def _repeated_offsets(duck: Duck, table: Table, paths: Sequence[str]) -> list[Imbalance]:
    return [
        Imbalance(
            f"{table.name} {row['topic']}[{row['kafka_partition']}] epoch {row['kafka_epoch']}",
            f"{row['rows']} rows came from {row['offsets']} offsets",
        )
        for row in duck.fetch(statement("stored_lineage"), {"files": paths}).to_pylist()
        if row["rows"] != row["offsets"]
    ]


def _misplaced(evidence: Evidence, parts: Sequence[Mapping[str, Any]]) -> list[Imbalance]:
    """Rows of each commit, wherever they are by now: as many and as many revisions as it says, on its dates.

    In a commit's own files there are none but its rows; in those of a rewrite each row is told by its lineage.
    """
    commits = {f.path.removeprefix("file://"): c for c in evidence.history for f in c.receipt.files_of("data")}
    rows: Counter[Place] = Counter()
    found = []
    for part in parts:
        c = commits.get(part["file"])
        if c is None or c.receipt.replaced:  # no receipt names it, a finding already; or a rewrite, followed below
            continue
        at = (part["topic"], part["kafka_epoch"], part["kafka_partition"])
        rows += _there(c.sequence_number, at, part["exchange_date"], part["rows"], part["revisions"])
        first, last = part["first_offset"], part["last_offset"]
        if not any(r.start <= first <= last < r.end for r in c.receipt.ranges if _at(r) == at):
            problem = f"offsets {first} to {last} of {at[0]}[{at[2]}] epoch {at[1]} lie outside what its receipt read"
            found.append(Imbalance(part["file"], problem))
    moved, unread = _followed(evidence, {part["file"] for part in parts if _is_rewritten(commits.get(part["file"]))})
    rows += moved
    return [*found, *unread, *_miscounted(evidence, rows)]


def _miscounted(evidence: Evidence, rows: Counter[Place]) -> list[Imbalance]:
    told = Counter[Place]()
    for c in evidence.history:
        told.update(_told(c))
    return [
        Imbalance(
            f"{evidence.table.name} commit {place[0]}",
            f"{rows[place]} {place[1]} of {' '.join(map(str, place[2:]))} are stored, its receipt says {told[place]}",
        )
        for place in sorted({*rows, *told}, key=str)
        if rows[place] != told[place]
    ]


def _is_rewritten(c: Committed | None) -> bool:
    return c is not None and bool(c.receipt.replaced)


def _there(number: int, at: tuple[str, int, int], day: date, rows: int, revisions: int) -> Counter[Place]:
    """Rows of one commit, counted in each way its receipt counts them."""
    places = {(number, "rows", *at): rows, (number, "revisions", *at): revisions, (number, "rows", day): rows}
    return Counter[Place](places)


def _followed(evidence: Evidence, paths: Iterable[str]) -> tuple[Counter[Place], list[Imbalance]]:
    """Rows of rewritten files by the commit that read them; and those that none did."""
    readers, rows, found = Readers(evidence.history), Counter[Place](), []
    for path in sorted(paths):
        for number, day, revisions, *at, count in _by_commit(readers, path):
            if number == UNREAD:
                problem = f"{count} rows of {at[0]}[{at[2]}] epoch {at[1]} lie outside what any receipt read"
                found.append(Imbalance(path, problem))
            else:
                rows += _there(number, (at[0], at[1], at[2]), day, count, revisions)
    return rows, found


def _by_commit(readers: Readers, path: str) -> list[tuple[Any, ...]]:
    """Rows of a file: commit, exchange date, how many of them revisions, log partition, how many."""
    keys = ["commit", "exchange_date", *LINEAGE_NAMES[:3]]
    counts: Counter[tuple[Any, ...]] = Counter()
    revisions: Counter[tuple[Any, ...]] = Counter()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[*LINEAGE_NAMES, "exchange_date", "revision"]):
            rows = pa.Table.from_batches([batch])
            is_revision = pc.greater(rows["revision"], 0).cast(pa.int64())
            told = rows.append_column("commit", [readers.of(rows)]).append_column("is_revision", is_revision)
            for row in told.group_by(keys).aggregate([([], "count_all"), ("is_revision", "sum")]).to_pylist():
                key = tuple(row[name] for name in keys)
                counts[key] += row["count_all"]
                revisions[key] += row["is_revision_sum"]
    return [(key[0], key[1], revisions[key], *key[2:], count) for key, count in counts.items()]


def _told(c: Committed) -> Counter[Place]:
    """What one receipt says it stored, by range and by exchange date."""
    told = Counter[Place]()
    for r in c.receipt.ranges:
        told[c.sequence_number, "rows", *_at(r)] += r.stored
        told[c.sequence_number, "revisions", *_at(r)] += r.revisions
    for day in c.receipt.dates:
        told[c.sequence_number, "rows", day.exchange_date] += day.rows
    return told


def _at(r: RangeCount) -> tuple[str, int, int]:
    return r.topic, r.kafka_epoch, r.kafka_partition


def _tables(lake: Lake, name: str | None) -> list[Table]:
    if name is not None:
        try:
            return [table_named(name)]
        except KeyError:
            known = ", ".join(table.short_name for table in INGESTED)
            raise NotFound(f"no table {name!r}; there are {known}") from None
    return [table for table in INGESTED if lake.state(table) is not None]


def _print(proofs: Sequence[Proof]) -> None:
    grid = Grid("table", "receipts", "read", "written", "duplicates", "revisions", "dead", "rows", "verdict")
    for proof in proofs:
        numbers = (proof.receipts, proof.read, proof.written, proof.duplicates, proof.revisions, proof.dead, proof.rows)
        verdict = f"{len(proof.findings)} findings" if proof.findings else "balanced"
        grid.add_row(proof.table, *(f"{n:,}" for n in numbers), verdict)
    Console().print(grid)
    for proof in proofs:
        for finding in proof.findings:
            click.echo(f"{finding.where}: {finding.problem}")
        for path in proof.unreferenced:
            click.echo(f"{path}: nothing names it; harmless, and swept in time")
