"""`k2 verify`: prove from the tables alone that nothing is missing, doubled or altered; name what is."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table as Grid

from k2_core.contracts import INGESTED, Table, table_named
from k2_core.errors import NotFound
from k2_core.receipts import Imbalance
from k2_resources.duck import Duck, parquet_paths, statement
from k2_resources.lake.catalog import Lake
from k2_resources.lake.verify import Proof, all_receipts
from k2_resources.lake.verify import verify as prove
from k2_resources.settings import Settings

UNBALANCED = 1
"""Exit code when something does not add up; 2 is kept for what could not be proven at all."""
_PROOF_SECONDS_MAX = 3600.0
"""A proof may take as long as the rows need; an hour is a lake far beyond one machine."""


@click.command()
@click.option("--home", type=click.Path(path_type=Path), help="Home of the stack; K2_HOME otherwise.")
@click.option("--table", "name", help="One table, e.g. trades; all otherwise.")
@click.option("--deep", is_flag=True, help="Count the stored rows by their offsets, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the proofs as JSON.")
@click.pass_context
def verify(ctx: click.Context, home: Path | None, name: str | None, deep: bool, as_json: bool) -> None:
    """Prove that receipts balance, ranges are contiguous, rows equal receipts and keys are unique.

    Exits 1 and names what does not add up.
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
    """Everything that can be proven of one table: metadata and files by the lake, keys and offsets by a query."""
    proof = prove(lake, table)
    files = lake.files(table, proof.snapshot_id) if proof.snapshot_id is not None else ()
    paths = parquet_paths(f.path for f in files if Path(f.path).exists())
    if not paths:
        return proof
    findings = [*proof.findings, *_repeated_keys(duck, table, paths)]
    if deep:
        findings += _lineage(lake, duck, table, paths)
    return replace(proof, findings=tuple(findings))


def _repeated_keys(duck: Duck, table: Table, paths: Sequence[str]) -> list[Imbalance]:
    repeated = duck.fetch(statement("repeated_keys"), {"files": paths}).to_pylist()
    return [
        Imbalance(f"{table.name} {row['message_id']} revision {row['revision']}", f"is stored {row['copies']} times")
        for row in repeated
    ]


def _lineage(lake: Lake, duck: Duck, table: Table, paths: Sequence[str]) -> list[Imbalance]:
    """Rows per log partition are those the receipts stored there, no offset twice, none outside what was read."""
    expected: dict[tuple[str, int, int], list[int]] = defaultdict(lambda: [0, 1 << 63, 0])
    for receipt in all_receipts(lake, table)[0]:
        for r in receipt.ranges:
            sums = expected[r.topic, r.kafka_epoch, r.kafka_partition]
            sums[0] += r.stored
            sums[1], sums[2] = min(sums[1], r.start), max(sums[2], r.end)
    found = []
    for row in duck.fetch(statement("stored_lineage"), {"files": paths}).to_pylist():
        stored, start, end = expected.pop((row["topic"], row["kafka_epoch"], row["kafka_partition"]), [0, 0, 0])
        where = f"{table.name} {row['topic']}[{row['kafka_partition']}] epoch {row['kafka_epoch']}"
        if row["rows"] != stored or row["offsets"] != stored:
            problem = f"{row['rows']} rows of {row['offsets']} offsets, but receipts stored {stored}"
            found.append(Imbalance(where, problem))
        if row["first_offset"] < start or row["last_offset"] >= end:
            problem = f"offsets {row['first_offset']} to {row['last_offset']} lie outside [{start}, {end})"
            found.append(Imbalance(where, problem))
    lost = [(key, sums) for key, sums in expected.items() if sums[0]]
    return found + [
        Imbalance(f"{table.name} {key}", f"receipts stored {sums[0]} rows, none is there") for key, sums in lost
    ]


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
