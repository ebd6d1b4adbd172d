"""docs/DATA.md: the contracts in words. Generated, so that it cannot disagree with them."""

from __future__ import annotations

from collections.abc import Sequence

from k2_core.contracts import TABLES, Column, Table
from k2_core.quality import Flag, Reason

_HEAD = """# The tables of K2

Generated from `k2_core/contracts.py` by `k2 docs`; edit the contract, not this page.

Every table is an Iceberg table in the catalog `k2`, readable by any engine. Times are UTC in microseconds, prices and
quantities exact decimals. C marks content: two rows with one key that differ there are revisions of each other.
Columns of origin `feed` travel in Avro, `judge` columns are decided at ingestion, `lineage` names the Kafka record.
"""


def data_dictionary(tables: Sequence[Table] = TABLES) -> str:
    """Render every contract as Markdown, in the order given."""
    return "\n".join([_HEAD, *(_table(table) for table in tables), _flags(), _reasons()])


def _table(table: Table) -> str:
    lines = [
        f"## `{table.name}`",
        "",
        f"One row is {table.grain}. Key: {_names(table.key)}."
        + (f" Table partition: `{table.partition}`." if table.partition else "")
        + f" Sort: {_names(table.sort)}.",
        "",
        "| column | type | C | origin | meaning |",
        "|---|---|---|---|---|",
        *(_column(column) for column in table.columns),
        "",
    ]
    return "\n".join(lines)


def _column(column: Column) -> str:
    type_ = f"{_type(column)}{', null' if column.nullable else ''}"
    meaning = column.doc + (f" In {column.unit}." if column.unit else "")
    if column.choices:
        meaning += f" One of {', '.join(column.choices)}."
    return f"| `{column.name}` | {type_} | {'C' if column.content else ''} | {column.origin} | {meaning} |"


def _type(column: Column) -> str:
    return (
        str(column.type)
        .replace(" not null", "")
        .replace("element: ", "")
        .replace("timestamp[us, tz=UTC]", "timestamptz")
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _flags() -> str:
    rows = [f"| {flag.value} | `{flag.name}` |" for flag in Flag]
    return "\n".join(["## Quality flags", "", "Bits of `quality_flags`.", "", "| bit | name |", "|---|---|", *rows, ""])


def _reasons() -> str:
    return "\n".join(["## Reasons of dead letters", "", ", ".join(f"`{reason.value}`" for reason in Reason) + ".", ""])
