"""`k2 feed binance-live`: a live feed wired to the stack of a home, run until it is told to end."""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from k2_cli.feed_options import finish
from k2_core.errors import BadInput, NotFound

if TYPE_CHECKING:
    from k2_core.feeds import Feed
    from k2_feeds.backlog import Waiting
    from k2_feeds.binance_live import LakeKnows, LiveFeed, Plan
    from k2_feeds.producer import FeedProducer
    from k2_feeds.repair import Repair
    from k2_resources.lake.catalog import Lake
    from k2_resources.settings import Settings


@click.command("binance-live")
@click.argument("symbols", nargs=-1, required=True)
@click.option("--url", default=None, help="Streams of the exchange; else K2_LIVE_URL.")
@click.option("--rest-url", default=None, help="REST of the exchange, for repair; else K2_BINANCE_REST_URL.")
@click.option("--quotes", is_flag=True, help="Best bid and ask, too (bookTicker).")
@click.option("--repair/--no-repair", default=True, show_default=True, help="Fetch missing trades from REST.")
@click.option("--rotate-minutes", type=click.FloatRange(min=0, min_open=True, max=1_380), default=None,
              help="Age at which a connection is replaced; else K2_LIVE_ROTATE_SECONDS.")  # fmt: skip
@click.option("--metrics-port", type=click.IntRange(0, 65_535), default=None, help="Port of /metrics; 0 = any free.")
@click.option("--name", default="binance-live", show_default=True, help="Of this feed, where several run on one home.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), default=None, help="K2_HOME.")
def binance_live(
    *,
    symbols: tuple[str, ...],
    url: str | None,
    rest_url: str | None,
    quotes: bool,
    repair: bool,
    rotate_minutes: float | None,
    metrics_port: int | None,
    name: str,
    as_json: bool,
    home: Path | None,
) -> None:
    """Trades of SYMBOLS as they happen, until Ctrl-C or SIGTERM. Exits 0 when everything that came was acknowledged."""
    from k2_feeds.live.metrics import LiveMetrics
    from k2_feeds.metrics import CollectionMetrics, serving
    from k2_resources import telemetry
    from k2_resources.settings import Settings

    changed: dict[str, Any] = {
        "home": home,
        "live_url": url,
        "binance_rest_url": rest_url,
        "live_metrics_port": metrics_port,
        "live_rotate_seconds": rotate_minutes and rotate_minutes * 60,
    }
    settings = Settings(**{key: value for key, value in changed.items() if value is not None})
    with ExitStack() as stack:
        live = stack.enter_context(wired(settings, _plan(settings, symbols, quotes=quotes), name, repairs=repair))
        host, collectors = settings.live_metrics_host, (CollectionMetrics(live.collection), LiveMetrics(live))
        port = stack.enter_context(serving(collectors, host, settings.live_metrics_port))
        click.echo(f"metrics http://{host}:{port}/metrics", err=True)
        telemetry.configure("feed")
        logging.getLogger("websockets").setLevel(logging.WARNING)
        with _ended_by_signals(live):
            report = live.run()
    finish(report, as_json)


@contextmanager
def wired(settings: Settings, plan: Plan, name: str, *, repairs: bool) -> Iterator[LiveFeed]:
    """A live feed on the stack of a home, not yet running. name: of the folder for what has to wait on disk.

    Raises Misconfigured, BadInput, AlreadyRunning.
    """
    from k2_cli.feeding import named_feed
    from k2_feeds.binance_live import LiveFeed
    from k2_feeds.collection import Collection
    from k2_feeds.coverage import COVERAGE_FEED
    from k2_feeds.live.buffer import Buffer
    from k2_resources.clock import now_us
    from k2_resources.settings import load_feeds
    from k2_resources.spill import Spill

    if not name.replace("-", "").replace("_", "").isalnum():
        raise BadInput(f"--name {name!r} names a folder: expected letters, digits, - and _")
    feeds = {feed.name: feed for feed in load_feeds(settings)}
    wanted = [named_feed(feeds, feed) for feed in plan.feeds]
    settings.bootstrap()  # says how to start a stack before anything is looked for in its home
    collection_id = uuid4().hex
    collection = Collection(
        collection_id,
        plan.endpoint.url,
        wanted,
        settings.home / "rejected" / collection_id,
        now_us,
    )
    ending = threading.Event()
    spill = Spill(settings.home / "live" / name, settings.live_spill_bytes_max)
    try:
        with ExitStack() as stack:
            yield LiveFeed(
                plan,
                collection,
                Buffer(spill, settings.live_memory_bytes_max),
                _connecting(settings, [*wanted, named_feed(feeds, COVERAGE_FEED)]),
                repair=_repair(settings, ending, stack) if repairs else None,
                lake_knows=_lake_knows(settings, wanted[0]),
                ending=ending,
            )
    finally:
        spill.close()


def _plan(settings: Settings, symbols: tuple[str, ...], *, quotes: bool) -> Plan:
    from k2_feeds.binance_live import Plan
    from k2_feeds.live.links import Timing
    from k2_resources.binance.stream import Endpoint

    return Plan(
        symbols,
        quotes,
        Endpoint(settings.live_url, settings.live_ca_file, settings.live_proxy, settings.live_ping_seconds),
        Timing(settings.live_rotate_seconds, settings.live_overlap_seconds, settings.live_silence_seconds),
        symbol_silence_seconds=settings.live_symbol_silence_seconds,
        drain_seconds=settings.live_drain_seconds,
        breaker_seconds=settings.live_breaker_seconds,
    )


def _connecting(settings: Settings, feeds: Sequence[Feed]) -> Callable[[Callable[[Waiting], None]], FeedProducer]:
    from k2_feeds.backlog import committed_by
    from k2_feeds.producer import FeedProducer

    committed = committed_by(settings, feeds)

    def connect(on_wait: Callable[[Waiting], None]) -> FeedProducer:
        return FeedProducer(
            settings,
            feeds,
            committed=committed,
            # however far the lake is behind: what waits is on disk, and its limit is the one that counts
            stall_seconds_max=math.inf,
            on_wait=on_wait,
        )

    return connect


def _repair(settings: Settings, ending: threading.Event, stack: ExitStack) -> Repair:
    from k2_feeds.live.mending import waiting_until
    from k2_feeds.repair import Repair
    from k2_resources.binance.rest import BinanceRest
    from k2_resources.clock import now_us

    wait, proxy = waiting_until(ending), settings.live_proxy
    rest = BinanceRest(settings.binance_rest_url, ca_file=settings.live_ca_file, proxy=proxy, wait=wait)
    return Repair(stack.enter_context(rest), now_us, wait=wait)


def _lake_knows(settings: Settings, feed: Feed) -> LakeKnows:
    """Of the newest numbering of each symbol: its highest id, and the gaps somebody still has to see to, as of now."""
    from k2_core.gap_ids import BACKFILLING, OPEN
    from k2_feeds.live.mending import Known
    from k2_resources.lake.scans import unfilled_gaps
    from k2_resources.lake.staging import read_state

    lake = _lake(settings)
    try:
        state = read_state(lake.head(feed.table), feed.topic)
        gaps = [gap for gap in unfilled_gaps(lake, feed.name) if gap["state"] in (OPEN, BACKFILLING)]
    except NotFound:
        return lambda _: None
    holes: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for gap in gaps:
        holes[gap["scope"], gap["session"]].append((gap["first_id"], gap["last_id"]))

    def knows(symbol: str) -> Known | None:
        scope = state.get(symbol)
        if scope is None or scope.seen.highest is None:
            return None
        newest_us = scope.stretches[-1].end_ms * 1_000 if scope.stretches else -1
        return Known(scope.seen.highest, scope.session, newest_us, tuple(holes[symbol, scope.session]))

    return knows


def _lake(settings: Settings) -> Lake:
    from k2_resources.lake.catalog import Lake

    return Lake(settings.catalog(), settings.warehouse_path())


@contextmanager
def _ended_by_signals(live: LiveFeed) -> Iterator[None]:
    """The first signal ends the feed in order, the next one without waiting for the broker."""
    asked = 0

    def end(_number: int, _frame: object) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            live.stop()
        else:
            live.abandon()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
