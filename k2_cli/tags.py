"""`k2 tags`: names for states of the tick tables, to cite and to read again."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from k2_cli.feed_options import settings_of
from k2_core.errors import BadInput, NotFound

if TYPE_CHECKING:
    from k2_core.contracts import Table
    from k2_resources.lake.catalog import Lake
    from k2_resources.lake.pins import Pin, Pins

_TABLES = ("trades", "quotes")


def _common(command: Any) -> Any:
    for option in (
        click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME."),
        click.option("--table", "names", multiple=True, type=click.Choice(_TABLES), help="May be given again."),
    ):
        command = option(command)
    return command


@click.group()
def tags() -> None:
    """Name states of the tick tables. A tagged snapshot is kept until its tag is deleted."""


@tags.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@_common
def list_tags(as_json: bool, home: Path | None, names: tuple[str, ...]) -> None:
    """Show the tags with the snapshots and versions they stand for."""
    from k2_cli.tables import show_table
    from k2_core.windows import iso
    from k2_resources.lake import tags as tagging
    from k2_resources.lake.pins import Pins

    lake = _lake(home)
    pins, found = Pins(lake), []
    for table in _tables(names):
        for tag in tagging.tags(lake, table):
            state = pins.of_snapshot(table, tag.snapshot_id).state
            committed = iso(state.commit_time) if state.commit_time else None
            found.append((table.short_name, tag.name, tag.snapshot_id, state.offsets.version, committed))
    columns = ("table", "tag", "snapshot_id", "version", "commit_time")
    if as_json:
        click.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in found], indent=2))
    else:
        show_table(columns, [[str(cell or "-") for cell in row] for row in found])


@tags.command()
@click.argument("name")
@click.option("--snapshot", "snapshot_id", type=int, default=None, help="This snapshot, of one --table.")
@click.option("--as-of", default=None, help="The last state at or before this instant, ISO 8601 with offset.")
@_common
def create(name: str, snapshot_id: int | None, as_of: str | None, home: Path | None, names: tuple[str, ...]) -> None:
    """Give a name to the newest state, or to the one asked for, of each table that has one."""
    from k2_resources.lake import tags as tagging
    from k2_resources.lake.pins import Pins

    if snapshot_id is not None and (as_of is not None or len(names) != 1):
        raise BadInput("--snapshot is of one --table, and comes without --as-of")
    instant = None if as_of is None else _instant(as_of)
    lake = _lake(home)
    pins, named = Pins(lake), 0
    for table in _tables(names):
        pin = _pin(pins, table, snapshot_id, instant)
        if pin is not None and pin.state.snapshot_id is not None:
            tagging.create_tag(lake, table, name, pin.state.snapshot_id)
            click.echo(f"{table.name}: {name} is snapshot {pin.state.snapshot_id}, version {pin.state.offsets.version}")
            named += 1
    if not named:
        raise NotFound("no table has such a state")


@tags.command()
@click.argument("name")
@_common
def delete(name: str, home: Path | None, names: tuple[str, ...]) -> None:
    """Forget a name, of each table that has it."""
    from k2_resources.lake import tags as tagging

    lake = _lake(home)
    having = [table for table in _tables(names) if name in {tag.name for tag in tagging.tags(lake, table)}]
    if not having:
        raise NotFound(f"no tag {name!r}; see `k2 tags list`")
    for table in having:
        tagging.delete_tag(lake, table, name)
        click.echo(f"{table.name}: {name} is forgotten")


def _pin(pins: Pins, table: Table, snapshot_id: int | None, instant: datetime | None) -> Pin | None:
    if snapshot_id is not None:
        return pins.of_snapshot(table, snapshot_id)
    return pins.head(table) if instant is None else pins.as_of(table, instant)


def _instant(text: str) -> datetime:
    try:
        instant: datetime | None = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise BadInput(f"{text!r} is no instant: expected ISO 8601 with an offset, e.g. 2014-03-11T10:00:00+11:00")
    return instant


def _tables(names: tuple[str, ...]) -> tuple[Table, ...]:
    from k2_core.contracts import TICK_TABLES

    return tuple(table for table in TICK_TABLES if not names or table.short_name in names)


def _lake(home: Path | None) -> Lake:
    from k2_resources.lake.catalog import Lake

    settings = settings_of(home)
    if settings.catalog_uri is None and not (settings.home / "catalog.db").exists():
        raise NotFound(f"no catalog in {settings.home}: nothing was ever ingested there")
    return Lake(settings.catalog(), settings.warehouse_path())
