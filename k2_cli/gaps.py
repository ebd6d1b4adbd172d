"""`k2 gaps`: holes in the ids of feeds whose ids have none, and what became of each."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from k2_core.errors import NotFound

if TYPE_CHECKING:
    from k2_resources.lake.catalog import Lake

_COLUMNS = ("gap_id", "severity", "size", "exchange_date", "state")


def _home(command: Any) -> Any:
    option = click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")
    return option(command)


@click.group()
def gaps() -> None:
    """List and show gaps. A gap never stops ingestion; its repair comes through the same topic and closes it."""


@gaps.command("list")
@click.option("--feed", default=None, help="Only gaps of this feed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@_home
def list_gaps(feed: str | None, as_json: bool, home: Path | None) -> None:
    """Show the gaps that are open."""
    from k2_resources.lake.scans import open_gaps

    found = open_gaps(_lake(home), feed)
    if as_json:
        click.echo(json.dumps(found, indent=2, default=str))
        return
    _show(_COLUMNS, found)
    click.echo(f"{len(found):,} open gaps")


@gaps.command()
@click.argument("gap_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@_home
def show(gap_id: str, as_json: bool, home: Path | None) -> None:
    """Show every event in the life of one gap, oldest first."""
    from k2_resources.lake.scans import gap_events

    events = [event for event in gap_events(_lake(home)).to_pylist() if event["gap_id"] == gap_id]
    if not events:
        raise NotFound(f"no gap {gap_id}; see `k2 gaps list`")
    if as_json:
        click.echo(json.dumps(events, indent=2, default=str))
        return
    _show(("event_number", "state", "size", "severity", "exchange_date", "actor", "evidence"), events)


def _show(columns: tuple[str, ...], events: list[dict[str, Any]]) -> None:
    from k2_cli.tables import show_table

    rows = [tuple("-" if event[name] is None else str(event[name]) for name in columns) for event in events]
    # without a frame the names of the columns are a row of their own
    show_table(columns, rows if sys.stdout.isatty() or not rows else [columns, *rows])


def _lake(home: Path | None) -> Lake:
    """The lake of a home. Raises NotFound where nothing was ever ingested."""
    from k2_resources.lake.catalog import Lake
    from k2_resources.settings import Settings

    settings = Settings(home=home) if home else Settings()
    if settings.catalog_uri is None and not (settings.home / "catalog.db").exists():
        raise NotFound(f"no catalog in {settings.home}: nothing was ever ingested there")
    return Lake(settings.catalog(), settings.warehouse_path())
