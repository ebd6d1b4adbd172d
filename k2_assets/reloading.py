"""A source day asked for from the UI: produced again to its topics, like everything else that enters the lake.

What is stored of it becomes counted duplicates, what differs revisions, what was lost arrives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from k2_core.contracts import Table
from k2_core.errors import NotFound, Unreachable
from k2_core.feeds import Feed, feeds_of
from k2_feeds.reload import reload
from k2_resources.settings import Settings


@dataclass(frozen=True)
class Reloaded:
    """One feed of a day. sent: rows, all acknowledged. absent: why there was nothing to send, empty where there was."""

    feed: str
    sent: int = 0
    rejected: int = 0
    absent: str = ""


def reload_day(
    settings: Settings, feeds: tuple[Feed, ...], table: Table, day: date, make_room: Callable[[], None]
) -> list[Reloaded]:
    """Send a date of every feed of a table that names a source of record; one that holds nothing of it is told.

    make_room: ingests, called while the embedded broker is full. Raises Misconfigured, BadInput, Unreachable; what was
    sent before stays in the topic.
    """
    return [
        _reloaded(settings, feed, day, make_room)
        for feed in feeds_of(table, feeds)
        if feed.source_of_record is not None
    ]


def _reloaded(settings: Settings, feed: Feed, day: date, make_room: Callable[[], None]) -> Reloaded:
    try:
        report = reload(feed, day, settings=settings, on_wait=lambda _waiting: make_room())
    except NotFound as missing:
        return Reloaded(feed.name, absent=str(missing))
    if not report.is_complete:
        damaged = f"; damaged: {', '.join(report.damaged)}" if report.damaged else ""
        raise Unreachable(
            f"{feed.name} of {day}: {report.acknowledged:,} of {report.sent:,} rows were taken: "
            f"{report.error or 'not all was acknowledged'}{damaged}"
        )
    return Reloaded(feed.name, report.sent, report.rejected)
