"""`k2 keys`: who may ask the API, what for, and until when. A running server follows within seconds."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from k2_cli.feed_options import settings_of

if TYPE_CHECKING:
    from k2_api.keys import Key

_COLUMNS = ("id", "holder", "scopes", "state", "rate_per_minute", "created_at", "expires_at", "revoked_at")
_home = click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.group()
def keys() -> None:
    """Make, list, replace and end keys of the API. The plain key in K2_HOME/api.key is held by `home`."""


@keys.command()
@click.argument("holder")
@click.option("--scope", "scopes", type=click.Choice(["read", "sql", "admin"]), multiple=True, default=("read",),
              show_default=True, help="What the key may do; give it once for each.")  # fmt: skip
@click.option("--rate", type=click.IntRange(1), default=None, help="Units a minute; else K2_API_RATE_PER_MINUTE.")
@click.option("--days", type=click.FloatRange(0, 36_500, min_open=True), default=None, help="How long it works.")
@_json
@_home
def create(
    *, holder: str, scopes: tuple[Any, ...], rate: int | None, days: float | None, as_json: bool, home: Path | None
) -> None:
    """Make a key for HOLDER and print its secret, which nobody can show again."""
    from k2_api.keys import create_key

    lifetime = None if days is None else timedelta(days=days)
    file = settings_of(home).api_keys_file
    key, secret = create_key(file, holder, scopes, rate_per_minute=rate, lifetime=lifetime)
    _show_secret(key, secret, as_json)


@keys.command("list")
@_json
@_home
def list_keys(*, as_json: bool, home: Path | None) -> None:
    """Show all keys, those that ended included, and the secret of none."""
    from k2_api.keys import read_keys
    from k2_cli.tables import show_table

    rows = [_told(key) for key in read_keys(settings_of(home).api_keys_file)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    cells = [tuple(_cell(row[name]) for name in _COLUMNS) for row in rows]
    # without a frame the names of the columns are a row of their own
    show_table(_COLUMNS, cells if sys.stdout.isatty() or not cells else [_COLUMNS, *cells])
    click.echo(f"{len(rows):,} keys, and the one in {settings_of(home).api_key_file}")


@keys.command()
@click.argument("holder")
@click.option("--keep-hours", type=click.FloatRange(0, 8_760), default=24.0, show_default=True,
              help="How long the old key works beside the new one.")  # fmt: skip
@_json
@_home
def rotate(*, holder: str, keep_hours: float, as_json: bool, home: Path | None) -> None:
    """Make the successor of HOLDER's key. The successor of `home` goes into K2_HOME/api.key."""
    from k2_api.keys import HOME, rotate_home_key, rotate_key

    settings, keep = settings_of(home), timedelta(hours=keep_hours)
    if holder == HOME:
        rotate_home_key(settings.api_keys_file, settings.api_key_file, keep)
        click.echo(f"{settings.api_key_file} has a new key; the old one works for {keep_hours:g} h more")
        return
    key, secret = rotate_key(settings.api_keys_file, holder, keep)
    _show_secret(key, secret, as_json)


@keys.command()
@click.argument("name", metavar="ID|HOLDER")
@_home
def revoke(*, name: str, home: Path | None) -> None:
    """End the key of an id, or all keys of a holder, at once. A running server refuses them within seconds."""
    from k2_api.keys import revoke_keys

    for key in revoke_keys(settings_of(home).api_keys_file, name):
        click.echo(f"{key.id} of {key.holder} no longer works")


def _show_secret(key: Key, secret: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**_told(key), "secret": secret}, indent=2))
        return
    click.echo(secret)
    until = f" until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else ""
    click.echo(f"key {key.id} of {key.holder} may {', '.join(key.scopes)}{until}; it is not shown again", err=True)


def _told(key: Key) -> dict[str, Any]:
    from k2_resources.clock import now

    told = key.model_dump(mode="json", exclude={"sha256"})
    return {**told, "state": key.state(now())}


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return "-" if value is None else str(value)
