"""A day again: one exchange date of a feed from its source of record, the place feeds.yaml names for it.

What the lake holds of the day becomes duplicates, what differs revisions, what was lost arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from uuid import uuid4

from k2_core.errors import Unreachable
from k2_core.feeds import Feed
from k2_feeds.backlog import STALL_SECONDS_MAX, Waiting, committed_by
from k2_feeds.collection import Collection, Report
from k2_feeds.coverage import COVERAGE_FEED, Stamp
from k2_feeds.producer import FeedProducer
from k2_feeds.records import day_of_record
from k2_resources import clock
from k2_resources.settings import Settings, load_feeds


def reload(
    feed: Feed,
    day: date,
    *,
    settings: Settings | None = None,
    stall_seconds_max: float = STALL_SECONDS_MAX,
    on_wait: Callable[[Waiting], None] | None = None,
    on_count: Callable[[int], None] | None = None,
) -> Report:
    """Send one exchange date of a feed again, whole.

    settings: of the home, of the environment by default. on_wait: told while the embedded broker is full; who ingests
    in this same process must do it there. Raises Misconfigured, NotFound, BadInput, Unreachable before anything is
    sent; what happens later is in the report.
    """
    settings = settings or Settings()
    collection_id, source = uuid4().hex, f"{feed.name} of {day} again, from {_place(feed)}"
    outcomes = day_of_record(feed, day, settings.home, lambda: Stamp(collection_id, source, clock.now_us()))
    feeds = {known.name: known for known in load_feeds(settings)}
    folder = settings.home / "rejected" / collection_id
    collection = Collection(collection_id, source, [feed], folder, clock.now_us, on_count)
    producer = FeedProducer(
        settings,
        [feed, feeds[COVERAGE_FEED]],
        committed=committed_by(settings, feeds.values()),
        stall_seconds_max=stall_seconds_max,
        on_wait=on_wait,
    )
    report: Report | None = None
    try:
        with producer:
            report = collection.run(outcomes, producer)
    except Unreachable:
        if report is None:  # else the report says what was not acknowledged
            raise
    assert report is not None, "a collection ends with a report or an error"
    return report


def _place(feed: Feed) -> str:
    record = feed.source_of_record
    return "nowhere" if record is None else f"{record.reader} {record.place}"
