"""What became of dead letters: replays send them again, and where a delivery ended tells how a letter stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Self

REPLAY_HEADER = "k2.replay"
"""Record header of a letter sent again: its place, one header for each replay."""
REPLAYED = "replayed"
"""Event of the statement on k2.coverage that a letter was sent again."""
_PLACE = re.compile(r"(.+)\[(\d+)\]@(\d+):(\d+)", re.ASCII)


@dataclass(frozen=True, order=True)
class Place:
    """Where a record is in the log, across incarnations of its topic."""

    topic: str
    epoch: int
    kafka_partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.kafka_partition}]@{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `topic[kafka_partition]@epoch:offset`. Raises ValueError."""
        match = _PLACE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no place: expected topic[kafka_partition]@epoch:offset")
        topic, kafka_partition, epoch, offset = match.groups()
        return cls(topic, int(epoch), int(kafka_partition), int(offset))


@dataclass(frozen=True)
class Delivery:
    """One letter sent again, as the replay stated it."""

    letter: Place
    delivered: Place


def deliveries_in(statements: Iterable[Mapping[str, Any]]) -> list[Delivery]:
    """The deliveries among statements; what cannot be read is nobody's statement. statements: of audit.coverage."""
    found = []
    for row in statements:
        if row["event"] == REPLAYED:
            try:
                found.append(Delivery(Place.parse(row.get("letter") or ""), Place.parse(row.get("delivered") or "")))
            except ValueError:
                continue
    return found


class Standing(StrEnum):
    """How a dead letter stands. Derived from the log's order, never stored."""

    OPEN = "open"
    """Never sent again, or what was sent was lost with its log before it was read."""
    PENDING = "pending"
    """Sent again, and not read yet."""
    RESOLVED = "resolved"
    """Sent again, and read without becoming a letter."""
    DEAD_AGAIN = "dead again"
    """Sent again, and a letter again; that later letter is the one to look at."""


Fate = Literal["ahead", "read", "lost"]
"""Of an offset: at or past C; below C and in a batch; below C and jumped over by an adopt or an accepted loss."""
_RANK = (Standing.RESOLVED, Standing.PENDING, Standing.DEAD_AGAIN, Standing.OPEN)


def standings(
    letters: Collection[Place], deliveries: Iterable[Delivery], fate: Callable[[Place], Fate]
) -> dict[Place, Standing]:
    """How every letter stands: as the best of its deliveries, followed through the letters they became."""
    sent: dict[Place, list[Place]] = {}
    for delivery in deliveries:
        sent.setdefault(delivery.letter, []).append(delivery.delivered)
    known: dict[Place, Standing] = {}
    of_ours = frozenset(letters)
    for letter in letters:
        _settle(letter, of_ours, sent, fate, known)
    return {letter: known[letter] for letter in letters}


def _settle(
    letter: Place,
    letters: Collection[Place],
    sent: Mapping[Place, list[Place]],
    fate: Callable[[Place], Fate],
    known: dict[Place, Standing],
) -> None:
    """Settle a letter after those it became. No recursion: a letter may be sent again without end."""
    path = [letter]
    while path:
        at = path[-1]
        # anybody can write a statement: one that leads back to where it came from says nothing
        told = [d for d in sent.get(at, ()) if d not in path]
        if unsettled := next((d for d in told if d in letters and d not in known), None):
            path.append(unsettled)
            continue
        found = [_of_delivery(d, letters, fate, known) for d in told]
        known[at] = min(found, key=_RANK.index, default=Standing.OPEN)
        path.pop()


def _of_delivery(
    delivered: Place, letters: Collection[Place], fate: Callable[[Place], Fate], known: Mapping[Place, Standing]
) -> Standing:
    if delivered in letters:
        return Standing.DEAD_AGAIN if known[delivered] is Standing.OPEN else known[delivered]
    return {"ahead": Standing.PENDING, "read": Standing.RESOLVED, "lost": Standing.OPEN}[fate(delivered)]
