"""`k2 query`: trades, quotes and bars straight from the lake, by the engine behind the API and without a server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from k2_cli.feed_options import FOLDER, settings_of

if TYPE_CHECKING:
    from k2_cli.querying import Output

FORMATS = ("table", "csv", "json", "ndjson", "parquet", "arrow")
TABLE_ROWS = 100
"""Rows of a table where no limit is given: what a person looks at."""


@click.group()
def query() -> None:
    """Read the lake without the API. Rows go to stdout or --output; what they are goes to stderr.

    Times are ISO 8601, UTC where they name no zone, and ranges leave out their end.
    """


def _output_options(command: Any) -> Any:
    for option in reversed((
        click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True),
        click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File instead of stdout."),
        click.option("--limit", type=click.IntRange(1), default=None,
                     help=f"Rows; a table has {TABLE_ROWS} without it, the other formats have all."),
        click.option("--order", type=click.Choice(("asc", "desc")), default="desc", show_default=True,
                     help="desc = newest first."),
        click.option("--home", type=FOLDER, default=None, help="K2_HOME."),
    )):  # fmt: skip
        command = option(command)
    return command


def _state_options(command: Any) -> Any:
    for option in reversed((
        click.option("--exchange", default=None, help="Only of this exchange."),
        click.option("--start", "start_time", default=None, metavar="TIME", help="First instant included."),
        click.option("--end", "end_time", default=None, metavar="TIME", help="First instant no longer included."),
        click.option("--snapshot-id", type=int, default=None, help="As of this snapshot."),
        click.option("--version", default=None, help="As of this version: what stderr or K2-Version said before."),
        click.option("--as-of", default=None, metavar="TIME", help="As of the last commit at or before this instant."),
        click.option("--tag", default=None, help="As of this tag."),
    )):  # fmt: skip
        command = option(command)
    return command


def _tick_options(command: Any) -> Any:
    for option in reversed((
        click.argument("symbols", nargs=-1),
        click.option("--revisions", type=click.Choice(("latest", "first", "all")), default="latest", show_default=True,
                     help="Of a row that was corrected: its newest content, its first, or every one."),
        click.option("--fields", default=None, help="Columns, separated by commas."),
        click.option("--count", is_flag=True, help="Print how many rows there are, and nothing else."),
    )):  # fmt: skip
        command = option(command)
    return _output_options(_state_options(command))


@query.command()
@_tick_options
@click.option(
    "--view",
    type=click.Choice(("raw", "clean", "eligible")),
    default="raw",
    show_default=True,
    help="clean = without rows hard to trust; eligible = without prints that move no price.",
)
@click.option("--side", "sides", multiple=True, help="Aggressor; may be given again.")
@click.option("--condition", "conditions", multiple=True, help="Condition code; may be given again.")
@click.option("--min-price", default=None, help="Smallest price included.")
@click.option("--max-price", default=None, help="Largest price included.")
@click.option("--min-quantity", default=None, help="Smallest quantity included.")
@click.option("--max-quantity", default=None, help="Largest quantity included.")
def trades(**options: Any) -> None:
    """Trades of some SYMBOLS, or of all."""
    _ticks("trades", options)


@query.command()
@_tick_options
@click.option(
    "--view",
    type=click.Choice(("raw", "clean")),
    default="raw",
    show_default=True,
    help="clean = without rows hard to trust.",
)
def quotes(**options: Any) -> None:
    """Quotes of some SYMBOLS, or of all."""
    _ticks("quotes", options)


@query.command()
@click.argument("symbol")
@click.argument("interval", default="1m")
@_output_options
@_state_options
@click.option(
    "--view",
    type=click.Choice(("raw", "eligible")),
    default="eligible",
    show_default=True,
    help="raw = every print counts.",
)
@click.option(
    "--session",
    type=click.Choice(("all", "regular")),
    default="all",
    show_default=True,
    help="regular = only what printed while the exchange traded.",
)
def bars(interval: str, **options: Any) -> None:
    """Bars of one SYMBOL, each INTERVAL long: 1s to 12h, 1d, or session. A table shows the newest first."""
    from k2_api.bar_models import BarsQuestion
    from k2_cli.querying import BarQuery, parsed
    from k2_core.windows import INTERVALS

    if interval not in INTERVALS:
        raise click.BadParameter(f"{interval} is none of {', '.join(INTERVALS)}", param_hint="INTERVAL")
    output = _output(options)
    asked = BarQuery(parsed(BarsQuestion, options), interval)
    asyncio.run(asked.write(settings_of(options["home"]), output))


def _ticks(table: str, options: dict[str, Any]) -> None:
    from k2_api.tick_models import QuotesQuestion, TradesQuestion
    from k2_cli.querying import TickQuery, parsed

    output = _output(options)
    fields = options.pop("fields")
    given, settings = {**options, "fields": fields and [fields]}, settings_of(options["home"])
    asked = TickQuery(parsed(TradesQuestion, given)) if table == "trades" else TickQuery(parsed(QuotesQuestion, given))
    if options["count"]:
        click.echo(asyncio.run(asked.count_rows(settings)))
    else:
        asyncio.run(asked.write(settings, output))


def _output(options: dict[str, Any]) -> Output:
    """Where rows go, taken out of the options."""
    from k2_cli.querying import Output

    form, path, limit = (options.pop(name) for name in ("form", "output", "limit"))
    if limit is None and form == "table":
        limit = TABLE_ROWS
    if form in ("parquet", "arrow") and path is None and sys.stdout.isatty():
        raise click.UsageError(f"{form} is not for a terminal: give --output, or send stdout elsewhere")
    return Output(form, path, limit)
