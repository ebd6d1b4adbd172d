"""One collection from the command line: wire the stack of a home, show progress, say what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from k2_core.errors import Misconfigured, Unreachable
from k2_core.feeds import Feed
from k2_feeds.backlog import STALL_SECONDS_MAX, Waiting, committed_by
from k2_feeds.batches import Batch
from k2_feeds.collection import Collection, Report
from k2_feeds.coverage import COVERAGE_FEED, Tally
from k2_feeds.outcomes import Outcome
from k2_feeds.producer import EncoderOf, FeedProducer
from k2_resources import clock, telemetry
from k2_resources.settings import Settings, load_feeds

if TYPE_CHECKING:
    from rich.progress import TaskID

METRICS_PORT = "k2.metrics_port"
"""Where a command's context keeps the port its collection serves /metrics on."""
_METRICS_HOST = "127.0.0.1"
_SAY_EVERY_SECONDS = 5.0
"""Without a terminal, a line this often is enough to see that it lives."""
_SCOPES_SHOWN = 20
"""More symbols than a screen holds are only counted; the report file has them all."""


def collect(
    settings: Settings,
    feed_names: Iterable[str],
    outcomes: Iterable[Outcome | Batch] | Callable[[FeedProducer], Iterable[Outcome]],
    *,
    source: str,
    stall_seconds_max: float = STALL_SECONDS_MAX,
    describe: Callable[[int], str] = "{:,} rows sent".format,
    collection_id: str | None = None,
    encoder_of: EncoderOf | None = None,
) -> Report:
    """Send what a source gives to the stack of `settings`, waiting while the embedded broker is full.

    outcomes: of a source that goes on where it stopped, a function of the producer, which it flushes before it takes
    note of how far it is. describe: the progress in words, from the rows sent. collection_id: where
    statements among the outcomes bear it already. Raises Misconfigured, BadInput, Unreachable, SchemaUnavailable
    before anything is sent; later troubles are in the report.
    """
    telemetry.configure("feed", level=logging.WARNING)  # what else there is to say, the report says
    feeds = {feed.name: feed for feed in load_feeds(settings)}
    wanted = [named_feed(feeds, name) for name in feed_names]
    collection_id = collection_id or uuid4().hex
    report: Report | None = None
    # what was not acknowledged is in the report, so the writer need not raise it a second time
    with suppress(_AlreadyReported), _shown(describe) as shown:
        producer = FeedProducer(
            settings,
            [*wanted, named_feed(feeds, COVERAGE_FEED)],
            committed=committed_by(settings, feeds.values()),
            stall_seconds_max=stall_seconds_max,
            on_wait=shown.waiting,
            encoder_of=encoder_of,
        )
        folder = settings.home / "rejected" / collection_id
        collection = Collection(collection_id, source, wanted, folder, clock.now_us, shown.count)
        try:
            with producer, _served(collection, producer):
                report = collection.run(outcomes(producer) if callable(outcomes) else outcomes, producer)
        except Unreachable as error:
            if report is None:
                raise
            raise _AlreadyReported from error
    assert report is not None, "a collection ends with a report or an error"
    return report


def say(report: Report) -> None:
    """Print what a collection did, for people."""
    click.echo(
        f"{report.sent:,} rows sent, {report.acknowledged:,} acknowledged, {report.rejected:,} lines rejected, "
        f"{report.seconds:.1f} s"
    )
    for scope in report.scopes[:_SCOPES_SHOWN]:
        click.echo(f"  {_scope(scope)}")
    if len(report.scopes) > _SCOPES_SHOWN:
        click.echo(f"  and {len(report.scopes) - _SCOPES_SHOWN:,} more symbols")
    if report.passed_over:
        kinds = sorted(report.passed_over.items(), key=lambda kind_count: -kind_count[1])
        click.echo("passed over: " + ", ".join(f"{kind} {count:,}" for kind, count in kinds))
    for damage in report.damaged:
        click.echo(f"damaged: {damage}", err=True)
    if report.rejected:
        click.echo(f"rejected lines with their reasons: {report.folder}", err=True)
    if report.error:
        click.echo(report.error, err=True)


class _AlreadyReported(Exception):
    pass


@dataclass
class _Shown:
    """Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

    describe: Callable[[int], str]
    progress: Progress | None = None
    task: TaskID | None = None
    rows: int = 0
    _said: float = field(default_factory=time.monotonic)

    def count(self, rows: int) -> None:
        self.rows = rows
        self._say(self.describe(rows))

    def waiting(self, waiting: Waiting) -> None:
        self._say(
            f"{self.describe(self.rows)}; waiting for ingestion: {waiting.records:,} of at most "
            f"{waiting.records_max:,} records wait in one partition of {waiting.topic}, "
            f"unchanged for {waiting.seconds:.0f} s"
        )

    def _say(self, text: str) -> None:
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, description=text)
        elif time.monotonic() - self._said > _SAY_EVERY_SECONDS:
            self._said = time.monotonic()
            click.echo(text, err=True)


@contextmanager
def _shown(describe: Callable[[int], str]) -> Iterator[_Shown]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Shown(describe)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Shown(describe, progress, progress.add_task(describe(0), total=None))


@contextmanager
def _served(collection: Collection, producer: FeedProducer) -> Iterator[None]:
    """Serve /metrics while a collection runs, where the command was given a port."""
    context = click.get_current_context(silent=True)
    port = context.meta.get(METRICS_PORT) if context else None
    if port is None:
        yield
        return
    from k2_feeds.metrics import CollectionMetrics, WriterMetrics, serving

    with serving((CollectionMetrics(collection), WriterMetrics(producer.writer)), _METRICS_HOST, port) as found:
        click.echo(f"metrics http://{_METRICS_HOST}:{found}/metrics", err=True)
        yield


def named_feed(feeds: Mapping[str, Feed], name: str) -> Feed:
    """The feed of a name. Raises Misconfigured."""
    try:
        return feeds[name]
    except KeyError:
        raise Misconfigured(f"feeds.yaml has no feed {name}, only {', '.join(feeds)}") from None


def _scope(tally: Tally) -> str:
    ids = "" if tally.first_id is None else f", ids {tally.first_id} to {tally.last_id}"
    times = "" if tally.opened is None else f", {_instant(tally.opened)} to {_instant(tally.closed)}"
    rejected = f", {tally.rejected:,} rejected" if tally.rejected else ""
    return f"{tally.feed} {tally.symbol}: {tally.rows:,} rows{ids}{times}{rejected}"


def _instant(microseconds: int | None) -> str:
    """An instant for people; one outside the calendar as its number."""
    try:
        return datetime.fromtimestamp((microseconds or 0) / 1_000_000, UTC).isoformat(sep=" ", timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{microseconds} µs"
