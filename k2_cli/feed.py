"""`k2 feed`: files, captures and simulations into Kafka."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from k2_feeds.collection import Report
    from k2_resources.settings import Settings

FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


class SeveralFiles(click.Command):
    """Lets `--trades a b --quotes c` mean `--trades a --trades b --quotes c`, as a shell expands `--trades *.csv`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeat_options(args, self._several()))

    def _several(self) -> frozenset[str]:
        options = (p for p in self.params if isinstance(p, click.Option) and p.multiple)
        return frozenset(name for option in options for name in option.opts)


def repeat_options(args: list[str], several: frozenset[str]) -> list[str]:
    """Put the option before every value that follows its first; another option, or `--`, ends the row."""
    out: list[str] = []
    option, values = "", 0
    for at, arg in enumerate(args):
        if arg == "--":
            return [*out, *args[at:]]
        if arg.startswith("-") and len(arg) > 1:
            name, _, value = arg.partition("=")
            option, values = (name if name in several else ""), int(bool(value))
            out.append(arg)
        elif option:
            out += [arg] if values == 0 else [option, arg]
            values += 1
        else:
            out.append(arg)
    return out


def _common(command: Any) -> Any:
    """Options every feed has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
        click.option("--stall-minutes", type=click.FloatRange(min=0), default=10.0, show_default=True,
                     help="Give up when the lake takes nothing for so long (embedded broker)."),
        click.option("--home", type=FOLDER, default=None, help="K2_HOME of the running stack."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group()
def feed() -> None:
    """Send market data into Kafka. Exits 0 only when every file was read whole and every record acknowledged."""


@feed.command("binance-capture")
@click.argument("files", nargs=-1, required=True, type=FILE)
@_common
def binance_capture(files: tuple[Path, ...], home: Path | None, as_json: bool, stall_minutes: float) -> None:
    """Raw combined-stream captures, gz or plain: receive time in ns, a space, the JSON frame."""
    from itertools import chain

    from k2_feeds.binance_capture import open_captures
    from k2_feeds.binance_frames import QUOTES_FEED, TRADES_FEED

    outcomes = chain.from_iterable(open_captures(files))
    _finish(_collect(home, (TRADES_FEED, QUOTES_FEED), outcomes, _named(files), stall_minutes), as_json)


@feed.command(cls=SeveralFiles)
@click.option("--trades", multiple=True, type=FILE, help="Trade files, seven columns; several may follow.")
@click.option("--quotes", multiple=True, type=FILE, help="Quote files, six columns; several may follow.")
@click.option(
    "--company-info", type=FILE, help="Company file: id to symbol. Without it, a file is named by its symbol."
)
@_common
def asx(
    *,
    trades: tuple[Path, ...],
    quotes: tuple[Path, ...],
    company_info: Path | None,
    home: Path | None,
    as_json: bool,
    stall_minutes: float,
) -> None:
    """ASX files in the vendor's layout, gz or plain. Give all parts of a day in one command."""
    from k2_cli.feeding import now_us
    from k2_feeds.asx import QUOTES_FEED, TRADES_FEED, read_parts
    from k2_feeds.asx_files import plan_load
    from k2_feeds.companies import read_companies

    companies = read_companies(company_info) if company_info else None
    parts = plan_load(trades, quotes, companies)
    names = [name for name, files in ((TRADES_FEED, trades), (QUOTES_FEED, quotes)) if files]
    outcomes = read_parts(parts, companies, now_us)
    _finish(_collect(home, names, outcomes, _named([*trades, *quotes]), stall_minutes), as_json)


@feed.command(cls=SeveralFiles)
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same bytes.")
@click.option("--days", type=click.IntRange(1, 366), default=2, show_default=True, help="Trading days.")
@click.option("--start", type=click.DateTime(["%Y-%m-%d"]), default="2025-03-11", show_default=True, help="First day.")
@click.option("--symbols", multiple=True, help="Binance-like pairs instead of the default ones.")
@click.option("--equities", multiple=True, help="ASX-like symbols instead of the default ones.")
@click.option("--rows", type=click.IntRange(1), default=1_000, show_default=True, help="Trades a symbol and day.")
@click.option("--duplicates", type=click.IntRange(0), default=0, help="Trades of the first pair that come twice.")
@click.option("--hole", type=click.IntRange(0), default=0, help="Trade ids of the first pair that never come.")
@click.option("--out-of-order", type=click.IntRange(0), default=0, help="Trades of the first pair that come late.")
@click.option("--to-files", type=FOLDER, default=None, help="Write files for the other feeds instead of sending.")
@_common
def simulate(
    *,
    seed: int,
    days: int,
    start: datetime,
    symbols: tuple[str, ...],
    equities: tuple[str, ...],
    rows: int,
    duplicates: int,
    hole: int,
    out_of_order: int,
    to_files: Path | None,
    home: Path | None,
    as_json: bool,
    stall_minutes: float,
) -> None:
    """A seeded market: Binance-like trades and quotes, ASX-like days. Says what must come out."""
    from k2_cli.feeding import now_us
    from k2_core.errors import BadInput
    from k2_feeds.simulated_binance import Faults
    from k2_feeds.simulator import EQUITIES, FEEDS, PAIRS, Simulation
    from k2_resources import clock

    simulation = Simulation(
        seed,
        start.date(),
        days,
        symbols or PAIRS,
        equities or EQUITIES,
        rows,
        Faults(duplicates, hole, out_of_order),
    )
    today: date = clock.now().date()
    if simulation.last_day > today:
        raise BadInput(f"the last day would be {simulation.last_day}, expected at most today, {today}")
    truth = [asdict(expected) for expected in simulation.truth()]
    if to_files:
        paths = simulation.write(to_files)
        click.echo(
            json.dumps({"files": list(map(str, paths)), "truth": truth}) if as_json else "\n".join(map(str, paths))
        )
        return
    report = _collect(home, FEEDS, simulation.outcomes(now_us), f"simulator seed {seed}", stall_minutes)
    _finish(report, as_json, truth)


def _settings(home: Path | None) -> Settings:
    from k2_resources.settings import Settings

    return Settings(home=home) if home else Settings()


def _collect(home: Path | None, names: Any, outcomes: Any, source: str, stall_minutes: float) -> Report:
    from k2_cli.feeding import collect

    return collect(_settings(home), names, outcomes, source=source, stall_seconds_max=stall_minutes * 60)


def _finish(report: Report, as_json: bool, truth: list[dict[str, Any]] | None = None) -> None:
    """Print the report; the exit code says whether everything arrived."""
    from k2_cli.feeding import say

    if as_json:
        click.echo(json.dumps(report.as_dict() | ({"truth": truth} if truth else {})))
    else:
        say(report)
    if not report.is_complete:
        raise SystemExit(1)


def _named(files: Any) -> str:
    """Names of the files for the coverage statement; of many, the first and how many."""
    names = [path.name for path in files]
    return ", ".join(names) if len(names) <= 5 else f"{names[0]} and {len(names) - 1} more"
