"""`k2 exchange`: a simulated Binance to point feeds and clients at."""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from k2_cli.feed import SeveralFiles

if TYPE_CHECKING:
    from k2_feeds.exchange import ExchangeSettings

_POLL_SECONDS = 0.1
_UNLIMITED = "max"


def _speed(_context: click.Context, _option: click.Parameter, said: str) -> float:
    try:
        return math.inf if said == _UNLIMITED else float(said)
    except ValueError as error:
        raise click.BadParameter(f"{said!r} is neither a number nor {_UNLIMITED}") from error


@click.command(cls=SeveralFiles)
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed and start, same market.")
@click.option("--symbols", multiple=True, help="Most active first; several may follow.")
@click.option("--speed", callback=_speed, default="1", show_default=True, help="Event time per wall time, or max.")
@click.option("--start", type=click.DateTime(), default=None, help="Event time of the first trade, UTC.")
@click.option(
    "--rate",
    "trades_per_second",
    type=float,
    default=20.0,
    show_default=True,
    help="Trades a second of event time, in calm.",
)
@click.option(
    "--crash-after",
    "crash_after_seconds",
    type=float,
    default=None,
    help="Seconds of event time to a flash crash at 100x volume.",
)
@click.option("--capture", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Play this instead.")
@click.option("--trades", "trades_max", type=click.IntRange(1), default=None, help="Close the market after so many.")
@click.option("--await-client", "awaits_client", is_flag=True, help="Publish nothing before the first subscription.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Of the WebSocket; 0 = any free one.")
@click.option("--rest-port", type=click.IntRange(0, 65_535), default=0, help="Of REST and control; 0 = any free one.")
@click.option("--faults", multiple=True, help="kind[,symbol=S][,count=N][,one_in=N][,seconds=S]; several may follow.")
@click.option(
    "--time-factor", type=float, default=1.0, show_default=True, help="Makes the 24 h of a connection shorter."
)
@click.option("--ping-seconds", type=float, default=20.0, show_default=True, help="Between two pings.")
@click.option("--pong-seconds", type=float, default=60.0, show_default=True, help="In which a pong must come.")
@click.option("--json", "as_json", is_flag=True, help="Print the URLs as JSON.")
def exchange(*, as_json: bool, **options: Any) -> None:
    """A simulated Binance spot exchange on loopback, until Ctrl-C: WebSocket streams, REST, and faults on demand.

    Faults, the ledger and counters are under /k2/ of the REST port: POST /k2/faults {"kind": "drop", "count": 5}.
    """
    from k2_feeds.exchange import exchange as running_exchange
    from k2_resources import telemetry

    settings = _settings(**options)
    telemetry.configure("exchange", level=logging.WARNING)  # each connection would be a line of its own
    asked_to_end = _signals()
    with running_exchange(settings) as running:
        urls = {"websocket": running.ws_url, "rest": running.rest_url, "control": f"{running.rest_url}/k2/stats"}
        click.echo(json.dumps(urls) if as_json else "  ".join(f"{name} {url}" for name, url in urls.items()))
        while not asked_to_end and running.is_alive:
            time.sleep(_POLL_SECONDS)
        stats = running.stats()
    click.echo(f"{stats['trades']:,} trades published, {stats['frames_sent']:,} frames sent", err=True)


def _settings(
    *,
    symbols: tuple[str, ...],
    start: datetime | None,
    faults: tuple[str, ...],
    time_factor: float,
    ping_seconds: float,
    pong_seconds: float,
    **market: Any,
) -> ExchangeSettings:
    """What the options ask for. market: those that are settings as they stand."""
    from k2_feeds.exchange import SYMBOLS, ExchangeSettings, Limits
    from k2_feeds.exchange.faults import parse_fault

    return ExchangeSettings(
        symbols=symbols or SYMBOLS,
        start=start.replace(tzinfo=UTC) if start else None,
        limits=Limits(ping_seconds=ping_seconds, pong_seconds_max=pong_seconds).hurried(time_factor),
        faults=tuple(map(parse_fault, faults)),
        **market,
    )


def _signals() -> list[int]:
    """Collects the signals that ask to end; empty until one came."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return came
