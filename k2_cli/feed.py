"""`k2 feed`: files, captures and simulations into Kafka."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path

import click

from k2_cli.feed_asx import schema_option, send_parts
from k2_cli.feed_dump import binance_dump
from k2_cli.feed_instruments import asx_instruments, binance_instruments
from k2_cli.feed_live import binance_live
from k2_cli.feed_options import FILE, FOLDER, collected, common_options, finish, named
from k2_cli.feed_reload import reload_day


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


@click.group()
def feed() -> None:
    """Send market data into Kafka. Exits 0 only when every file was read whole and every record acknowledged."""


@feed.command("binance-capture")
@click.argument("files", nargs=-1, required=True, type=FILE)
@common_options
def binance_capture(files: tuple[Path, ...], home: Path | None, as_json: bool, stall_minutes: float) -> None:
    """Raw combined-stream captures, gz or plain: receive time in ns, a space, the JSON frame."""
    from itertools import chain

    from k2_feeds.binance_frames import QUOTES_FEED, TRADES_FEED
    from k2_feeds.capture_batches import open_captures

    outcomes = chain.from_iterable(open_captures(files))
    finish(collected(home, (TRADES_FEED, QUOTES_FEED), outcomes, named(files), stall_minutes), as_json)


@feed.command(cls=SeveralFiles)
@click.option("--trades", multiple=True, type=FILE, help="Trade files, seven columns; several may follow.")
@click.option("--quotes", multiple=True, type=FILE, help="Quote files, six columns; several may follow.")
@click.option(
    "--company-info", type=FILE, help="Company file: id to symbol. Without it, a file is named by its symbol."
)
@schema_option
@common_options
def asx(
    *,
    trades: tuple[Path, ...],
    quotes: tuple[Path, ...],
    company_info: Path | None,
    schema: str,
    home: Path | None,
    as_json: bool,
    stall_minutes: float,
) -> None:
    """ASX files in the vendor's layout, gz or plain. Give all parts of a day in one command."""
    from k2_feeds.asx_files import plan_load
    from k2_feeds.companies import read_companies

    companies = read_companies(company_info) if company_info else None
    parts, source = plan_load(trades, quotes, companies), named([*trades, *quotes])
    finish(send_parts(home, parts, companies, source=source, schema=schema, minutes=stall_minutes), as_json)


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
@click.option("--auctions", is_flag=True, help="Give the ASX days the prints of their auctions.")
@click.option("--to-files", type=FOLDER, default=None, help="Write files for the other feeds instead of sending.")
@schema_option
@common_options
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
    auctions: bool,
    to_files: Path | None,
    schema: str,
    home: Path | None,
    as_json: bool,
    stall_minutes: float,
) -> None:
    """A seeded market: Binance-like trades and quotes, ASX-like days. Says what must come out. In v1 only the ASX."""
    from k2_feeds.simulated_binance import Faults
    from k2_feeds.simulator import EQUITIES, FEEDS, PAIRS, Simulation
    from k2_resources.clock import now_us

    faults, shares = Faults(duplicates, hole, out_of_order), equities or EQUITIES
    simulation = Simulation(seed, start.date(), days, symbols or PAIRS, shares, rows, faults, auctions)
    _refuse_the_future(simulation.last_day)
    truth = [asdict(expected) for expected in simulation.truth()]
    if to_files:
        paths = [str(path) for path in simulation.write(to_files)]
        click.echo(json.dumps({"files": paths, "truth": truth}) if as_json else "\n".join(paths))
        return
    source = f"simulator seed {seed}"
    if schema == "v1":
        report = send_parts(home, simulation.parts(), None, source=source, schema=schema, minutes=stall_minutes)
        truth = [expected for expected in truth if expected["symbol"] in shares]
    else:
        report = collected(home, FEEDS, simulation.outcomes(now_us), source, stall_minutes)
    finish(report, as_json, truth)


def _refuse_the_future(last_day: date) -> None:
    from k2_core.errors import BadInput
    from k2_resources import clock

    today: date = clock.now().date()
    if last_day > today:
        raise BadInput(f"the last day would be {last_day}, expected at most today, {today}")


for command in (binance_live, binance_dump, binance_instruments, asx_instruments, reload_day):
    feed.add_command(command)
