"""`k2 days`: exchange dates that were closed, what was said of each symbol, and the certificates of its rows."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from k2_cli.feed_options import settings_of
from k2_core.errors import NotFound

if TYPE_CHECKING:
    from k2_resources.lake.catalog import Lake
    from k2_resources.settings import Settings

_COLUMNS = ("feed", "symbol", "exchange_date", "version", "verdict", "expected", "present", "missing", "sha256")
_DIGEST_SHOWN = 12
"""Characters of a digest in a list; `show` has all of it."""
BLOCKED = 1
"""Exit code of a date that could not be closed."""

_home = click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
_date = click.DateTime(["%Y-%m-%d"])


@click.group()
def days() -> None:
    """List, show and close exchange dates. A closed date that changes is closed again, as its next version."""


@days.command("list")
@click.option("--feed", default=None, help="Only days of this feed.")
@click.option("--symbol", default=None, help="Only days of this symbol.")
@click.option("--date", "at", type=_date, default=None, help="Only this exchange date.")
@click.option("--verdict", default=None, help="Only days of which this was said.")
@click.option("--all", "everything", is_flag=True, help="Also versions that later ones replaced.")
@_json
@_home
def list_days(
    *,
    feed: str | None,
    symbol: str | None,
    at: datetime | None,
    verdict: str | None,
    everything: bool,
    as_json: bool,
    home: Path | None,
) -> None:
    """Show what was said of each day, by its last version."""
    from k2_resources.lake.days import closings, latest

    told = closings(_lake(settings_of(home)), feed=feed, symbol=symbol, day=at and at.date())
    rows = [dict(row) for row in (told if everything else latest(told).values())]
    rows = [row for row in rows if verdict in (None, row["verdict"])]
    if as_json:
        click.echo(json.dumps(rows, indent=2, default=str))
    else:
        _show(rows)


@days.command()
@click.argument("feed")
@click.argument("symbol")
@click.argument("at", metavar="DATE", type=_date)
@click.option("--version", type=click.IntRange(1), default=None, help="A version; the last one otherwise.")
@_json
@_home
def show(*, feed: str, symbol: str, at: datetime, version: int | None, as_json: bool, home: Path | None) -> None:
    """Show everything that was said of one day, its certificate included."""
    from k2_resources.lake.days import closings

    told = closings(_lake(settings_of(home)), feed=feed, symbol=symbol, day=at.date())
    found = [row for row in told if version in (None, row["version"])]
    if not found:
        raise NotFound(f"{feed} {symbol} {at.date()} was never closed{f' as version {version}' if version else ''}")
    if as_json:
        click.echo(json.dumps(found[-1], indent=2, default=str))
        return
    for name, value in found[-1].items():
        click.echo(f"{name:<18}{json.dumps(value, default=str) if isinstance(value, list) else _text(value)}")


@days.command()
@click.argument("feed")
@click.argument("at", metavar="DATE", type=_date)
@_home
def files(feed: str, at: datetime, home: Path | None) -> None:
    """Print the data files that hold a day now, one a line, for scripts/check_certificate.py."""
    from k2_resources.lake.days import files_of
    from k2_resources.settings import load_feeds

    settings = settings_of(home)
    named = {known.name: known for known in load_feeds(settings)}
    if feed not in named:
        raise NotFound(f"feeds.yaml has no feed {feed}")
    for path in files_of(_lake(settings), named[feed], at.date()):
        click.echo(path)


@days.command()
@click.argument("exchange")
@click.argument("at", metavar="DATE", type=_date)
@_json
@_home
def close(exchange: str, at: datetime, as_json: bool, home: Path | None) -> None:
    """Close a date of an exchange now, as its schedule would. Exits 1 and says what holds it up."""
    import dagster as dg

    from k2_assets.day_close import close_date
    from k2_assets.in_process import open_instance
    from k2_cli.services import REPOSITORY
    from k2_resources import telemetry

    telemetry.configure("days")
    settings = settings_of(home)
    _expect_catalog(settings)
    with open_instance(settings.dagster_home, REPOSITORY / "dagster.yaml") as instance:
        try:
            rows = close_date(settings, instance, exchange, at.date())
        except dg.Failure as failure:
            click.echo(failure.description, err=True)
            raise SystemExit(BLOCKED) from None
    if as_json:
        click.echo(json.dumps(rows, indent=2, default=str))
    else:
        _show(rows)


def _show(rows: list[dict[str, Any]]) -> None:
    from k2_cli.tables import show_table

    shown = [{**row, "sha256": (row["sha256"] or "-")[:_DIGEST_SHOWN]} for row in rows]
    texts = [tuple(_text(row[name]) for name in _COLUMNS) for row in shown]
    # without a frame the names of the columns are a row of their own
    show_table(_COLUMNS, texts if sys.stdout.isatty() or not texts else [_COLUMNS, *texts])
    click.echo(f"{len(rows):,} days of symbols")


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _lake(settings: Settings) -> Lake:
    """The lake of a home. Raises NotFound where nothing was ever ingested."""
    from k2_core.contracts import DAYS
    from k2_resources.lake.catalog import Lake

    _expect_catalog(settings)
    lake = Lake(settings.catalog(), settings.warehouse_path())
    lake.ensure((DAYS,))
    return lake


def _expect_catalog(settings: Settings) -> None:
    if settings.catalog_uri is None and not (settings.home / "catalog.db").exists():
        raise NotFound(f"no catalog in {settings.home}: nothing was ever ingested there")
