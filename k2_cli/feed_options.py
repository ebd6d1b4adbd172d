"""What every command of `k2 feed` shares: its options, its collection, its last words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from k2_feeds.batches import Batch
    from k2_feeds.collection import Report
    from k2_feeds.outcomes import Outcome
    from k2_resources.settings import Settings

FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


def common_options(command: Any) -> Any:
    """Options every feed has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
        click.option("--stall-minutes", type=click.FloatRange(min=0), default=10.0, show_default=True,
                     help="Give up when the lake takes nothing for so long (embedded broker)."),
        click.option("--metrics-port", type=click.IntRange(0, 65_535), expose_value=False, callback=_keep_port,
                     help="Serve /metrics on this loopback port while it runs; 0 = any free."),
        click.option("--home", type=FOLDER, default=None, help="K2_HOME of the running stack."),
    ):  # fmt: skip
        command = option(command)
    return command


def _keep_port(context: click.Context, _option: click.Parameter, port: int | None) -> None:
    from k2_cli.feeding import METRICS_PORT

    context.meta[METRICS_PORT] = port


def settings_of(home: Path | None) -> Settings:
    """Settings of a home, or those of the environment."""
    from k2_resources.settings import Settings

    return Settings(home=home) if home else Settings()


def collected(
    home: Path | None, names: Iterable[str], outcomes: Iterable[Outcome | Batch], source: str, stall_minutes: float
) -> Report:
    """Send what a source gives to the stack of a home."""
    from k2_cli.feeding import collect

    return collect(settings_of(home), names, outcomes, source=source, stall_seconds_max=stall_minutes * 60)


def finish(report: Report, as_json: bool, truth: list[dict[str, Any]] | None = None) -> None:
    """Print the report; the exit code says whether everything arrived."""
    from k2_cli.feeding import say

    if as_json:
        click.echo(json.dumps(report.as_dict() | ({"truth": truth} if truth else {})))
    else:
        say(report)
    if not report.is_complete:
        raise SystemExit(1)


def named(files: Iterable[Path]) -> str:
    """Names of the files for the coverage statement; of many, the first and how many."""
    names = [path.name for path in files]
    return ", ".join(names) if len(names) <= 5 else f"{names[0]} and {len(names) - 1} more"
