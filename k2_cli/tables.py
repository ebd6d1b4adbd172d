"""How the command line shows rows: a table to a person, plain aligned lines to a program."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under column names; without a terminal there are no colours, no frames and no cut lines."""
    if not rows:
        return
    if not sys.stdout.isatty():
        widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
        for row in rows:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(table)
