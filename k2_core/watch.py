"""What the watch over K2 knows between two looks: what is wrong, what is undelivered, how far it has read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from k2_core.alerts import Changes, Watched, grouped, turned
from k2_core.outbox import Outbox


@dataclass(frozen=True)
class Seen:
    """How far the watch has read.

    runs_us: last change of a run it looked at; None before its first look. receipts: table -> sequence number.
    heard_us: feed -> when records of a date that was open then were committed last.
    """

    runs_us: int | None = None
    receipts: Mapping[str, int] = field(default_factory=dict)
    heard_us: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Watch:
    """The whole state of a watch: kept as one text, replaced at the end of a look."""

    watched: Watched = field(default_factory=Watched)
    outbox: Outbox = field(default_factory=Outbox)
    seen: Seen = field(default_factory=Seen)

    def noted(self, changes: Changes, seen: Seen, channels: Collection[str], now_us: int) -> Watch:
        """Take in what a look found: its edges wait in the outbox from here on."""
        watched, alerts = turned(self.watched, changes, now_us)
        outbox = self.outbox.put(grouped(alerts), channels, now_us)
        return replace(self, watched=watched, outbox=outbox, seen=seen)


UNDELIVERED_SECONDS_MAX = 60.0
"""A notice goes out within three looks; one that waits longer has been refused."""


@dataclass(frozen=True)
class Telling:
    """What people are being told. refusals: channel -> what it said when it failed last."""

    firing: int
    undelivered: int
    oldest_undelivered_age_seconds: float | None
    refusals: Mapping[str, str]

    @property
    def is_late(self) -> bool:
        """Whether somebody has not been told for too long."""
        return (self.oldest_undelivered_age_seconds or 0.0) > UNDELIVERED_SECONDS_MAX


def telling(watches: Iterable[Watch], now_us: int) -> Telling:
    """Sum up what several watches tell."""
    known = list(watches)
    oldest_us = min((w.outbox.oldest_us for w in known if w.outbox.oldest_us is not None), default=None)
    return Telling(
        firing=sum(len(watch.watched.firing) for watch in known),
        undelivered=sum(len(watch.outbox.entries) for watch in known),
        oldest_undelivered_age_seconds=None if oldest_us is None else round(max(now_us - oldest_us, 0) / 1_000_000, 3),
        refusals={channel: pause.reason for watch in known for channel, pause in watch.outbox.pauses.items()},
    )
