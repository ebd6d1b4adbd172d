"""`k2 backfill`: past trades from an exchange's REST into Kafka, going on where an earlier run was stopped."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import click

from k2_cli.feed_options import settings_of
from k2_core.errors import BadInput

if TYPE_CHECKING:
    from k2_core.feeds import Feed
    from k2_core.sequences import Intervals
    from k2_feeds.binance_backfill import Progress, ProgressFile
    from k2_feeds.coverage import Stamp
    from k2_feeds.outcomes import Outcomes
    from k2_feeds.producer import FeedProducer
    from k2_resources.binance.rest import BinanceRest
    from k2_resources.settings import Settings

_INSTANT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@click.group()
def backfill() -> None:
    """Fetch past trades from an exchange. Stopped or killed, the same command goes on where it was."""


@backfill.command()
@click.argument("symbol")
@click.option("--from", "start", type=_INSTANT, required=True, help="First instant, UTC.")
@click.option("--to", "end", type=_INSTANT, required=True, help="First instant after it, UTC.")
@click.option("--again", is_flag=True, help="From the beginning, whatever an earlier run has done.")
@click.option("--url", default=None, help="REST of the exchange; else K2_BINANCE_REST_URL.")
@click.option("--stall-minutes", type=click.FloatRange(min=0), default=10.0, show_default=True,
              help="Give up when the lake takes nothing for so long (embedded broker).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), default=None, help="K2_HOME.")
def binance(
    *,
    symbol: str,
    start: datetime,
    end: datetime,
    again: bool,
    url: str | None,
    stall_minutes: float,
    as_json: bool,
    home: Path | None,
) -> None:
    """Trades of SYMBOL over [--from, --to), every id. Exits 0 only when all of them were sent and acknowledged."""
    from k2_cli.feeding import collect, say
    from k2_feeds.binance_backfill import ProgressFile, Wanted, located
    from k2_feeds.binance_frames import TRADES_FEED
    from k2_resources.binance.rest import BinanceRest

    settings = settings_of(home)
    if end <= start:
        raise BadInput(f"--to is {end.isoformat()}, expected an instant after --from, {start.isoformat()}")
    with BinanceRest(url or settings.binance_rest_url) as rest:
        wanted = Wanted(rest.base_url, symbol, _milliseconds(start), _milliseconds(end))
        notes = ProgressFile(settings.home / "backfill", wanted)
        progress = located(rest, wanted, None if again else notes.read())
        if progress is None or progress.is_done:
            click.echo(f"nothing to do: {'all of it was sent' if progress else f'no trade of {symbol} in that time'}")
            return
        notes.write(progress)
        run = _Run(settings, rest, notes, progress)
        report = collect(
            settings,
            [TRADES_FEED],
            run.outcomes,
            source=f"{rest.base_url}, {symbol} {start.isoformat()} to {end.isoformat()}",
            stall_seconds_max=stall_minutes * 60,
            describe=run.describe,
            collection_id=run.collection_id,
        )
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    else:
        say(report)
    if not report.is_complete:
        click.echo(f"{run.at.ids_left:,} ids left; the same command goes on there", err=True)
        raise SystemExit(1)


class _Run:
    """One run of a backfill: what it yields, how far it is, and when it will be done."""

    def __init__(self, settings: Settings, rest: BinanceRest, notes: ProgressFile, start: Progress) -> None:
        self.collection_id = uuid4().hex
        self.start = self.at = start
        self._settings = settings
        self._rest = rest
        self._notes = notes
        self._since = time.monotonic()

    def outcomes(self, producer: FeedProducer) -> Outcomes:
        """The rows and statements of this run; a chunk is noted once the broker has it."""
        from k2_feeds.binance_backfill import backfilled, beside
        from k2_feeds.coverage import Stamp
        from k2_feeds.repair import Repair
        from k2_resources.clock import now_us

        def reached(progress: Progress) -> None:
            producer.flush()
            self._notes.write(progress)
            self.at = progress

        def stamp() -> Stamp:
            return Stamp(self.collection_id, "backfill", now_us())

        feed = _trades_feed(self._settings)
        stored = _stored_ids(self._settings, feed, self.start.wanted.symbol)
        if stored is not None:
            yield from beside(feed, self.start, stored, stamp())
        yield from backfilled(Repair(self._rest, now_us), feed, self.start, stamp, reached)

    def describe(self, rows: int) -> str:
        """How far it is, and when it ends at this pace."""
        done, seconds = self.start.ids_left - self.at.ids_left, time.monotonic() - self._since
        whole = self.start.end_id - self.start.first_id
        share = (self.at.next_id - self.start.first_id) / whole if whole else 1.0
        left = f", about {_duration(seconds / done * self.at.ids_left)} left" if done else ""
        return f"{rows:,} rows sent, {share:.1%} of {whole:,} ids{left}"


def _trades_feed(settings: Settings) -> Feed:
    from k2_feeds.binance_frames import TRADES_FEED
    from k2_resources.settings import load_feeds

    return next(feed for feed in load_feeds(settings) if feed.name == TRADES_FEED)


def _stored_ids(settings: Settings, feed: Feed, symbol: str) -> Intervals | None:
    """The ids of a symbol the lake holds; None while it cannot say which of them are only on their way.

    What nobody asked for can be told from what was lost only where the lake has caught up with the log, and while the
    symbol has one numbering.
    """
    from k2_core.errors import NotFound
    from k2_core.sequences import ScopeState
    from k2_resources.kafka import KafkaLog
    from k2_resources.lake.catalog import Lake
    from k2_resources.lake.staging import read_state

    lake = Lake(settings.catalog(), settings.warehouse_path())
    marks = KafkaLog(settings.bootstrap(), timeout_seconds=settings.kafka_timeout_seconds).watermarks([feed.topic])
    committed = lake.committed(feed.table, feed.topic)
    if any(held.high > committed.get(kafka_partition, 0) for (_, kafka_partition), held in marks.items()):
        return None
    try:
        state = read_state(lake.head(feed.table), feed.topic).get(symbol, ScopeState())
    except NotFound:
        return None
    return None if state.others else state.seen


def _milliseconds(instant: datetime) -> int:
    return int(instant.replace(tzinfo=UTC).timestamp() * 1_000)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
