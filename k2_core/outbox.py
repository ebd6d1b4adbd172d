"""The outbox: notices that are written down before they are sent, and stay until every channel has taken them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from k2_core.alerts import Notice

BACK_OFF_SECONDS, BACK_OFF_SECONDS_MAX = 5.0, 300.0
"""After n failures in a row a channel is left alone for 5 s x 2^(n-1), five minutes at most."""
_DOUBLINGS_MAX = 10
"""Beyond it the limit holds anyway; failures are not bounded, powers are."""
ENTRIES_MAX = 200
"""Notices that wait at most: a full outbox takes no new edges, so what is wrong is told once there is room again."""
REASON_CHARACTERS_MAX = 300


@dataclass(frozen=True)
class Entry:
    """One notice. waiting: the channels that have not taken it."""

    notice: Notice
    queued_us: int
    waiting: tuple[str, ...]


@dataclass(frozen=True)
class Pause:
    """A channel that failed: how often in a row, until when it is left alone, and what it said."""

    failures: int
    until_us: int
    reason: str


@dataclass(frozen=True)
class Outbox:
    """Everything undelivered, oldest first. A channel gets its notices in that order: no recovery before its alert."""

    entries: tuple[Entry, ...] = ()
    pauses: Mapping[str, Pause] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        return len(self.entries) >= ENTRIES_MAX

    @property
    def oldest_us(self) -> int | None:
        """Since when the oldest undelivered notice waits; None when none does."""
        return min((entry.queued_us for entry in self.entries), default=None)

    def put(self, notices: Iterable[Notice], channels: Iterable[str], now_us: int) -> Outbox:
        """Write notices down for all channels."""
        waiting = tuple(channels)
        return replace(self, entries=(*self.entries, *(Entry(notice, now_us, waiting) for notice in notices)))

    def only(self, channels: Collection[str]) -> Outbox:
        """Forget what waits for channels that were taken out of the settings."""
        left = (replace(e, waiting=tuple(c for c in e.waiting if c in channels)) for e in self.entries)
        pauses = {channel: pause for channel, pause in self.pauses.items() if channel in channels}
        return Outbox(tuple(entry for entry in left if entry.waiting), pauses)

    def due(self, channel: str, now_us: int) -> list[Entry]:
        """What a channel may be given now, in order; nothing while it is left alone."""
        pause = self.pauses.get(channel)
        if pause is not None and now_us < pause.until_us:
            return []
        return [entry for entry in self.entries if channel in entry.waiting]

    def sent(self, channel: str, key: str) -> Outbox:
        """Note that a channel took the notice of an idempotency key."""
        left = (
            replace(e, waiting=tuple(c for c in e.waiting if c != channel)) if e.notice.idempotency_key == key else e
            for e in self.entries
        )
        pauses = {name: pause for name, pause in self.pauses.items() if name != channel}
        return Outbox(tuple(entry for entry in left if entry.waiting), pauses)

    def failed(self, channel: str, reason: str, now_us: int) -> Outbox:
        """Note that a channel failed, and leave it alone for longer each time."""
        failures = self.pauses[channel].failures + 1 if channel in self.pauses else 1
        until_us = now_us + round(back_off_seconds(failures) * 1_000_000)
        pause = Pause(failures, until_us, reason[:REASON_CHARACTERS_MAX])
        return replace(self, pauses={**self.pauses, channel: pause})


def back_off_seconds(failures: int) -> float:
    """How long a channel is left alone after so many failures in a row."""
    return min(BACK_OFF_SECONDS * 2.0 ** min(failures - 1, _DOUBLINGS_MAX), BACK_OFF_SECONDS_MAX)
