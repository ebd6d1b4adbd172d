"""Which exchange dates of a derived table are due, told from receipts and from what was built; never from a clock.

A date is built whole from the rows below one C. It is due when a later receipt names it, when what it was built by
(rules, definition, source table) is another one now, or when it was built while it was open and is over by now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from k2_core.keys import PREFIX

_BUILT = f"{PREFIX}built."
_DIGEST_CHARACTERS = 12
"""A change is noticed, not fought: 48 bits are enough, and thousands of dates have such a property."""


@dataclass(frozen=True)
class Built:
    """One build of one date: its number, the commit of the source it read, and a digest of what it was built by.

    is_open: rows of it were not final.
    """

    number: int
    sequence_number: int
    is_open: bool
    by: str

    def __str__(self) -> str:
        return f"{self.number}:{self.sequence_number}:{'open' if self.is_open else 'final'}:{self.by}"

    @classmethod
    def parse(cls, text: str) -> Built:
        """Read what a property says. Raises ValueError."""
        number, sequence_number, state, by = text.split(":")
        return cls(int(number), int(sequence_number), state == "open", by)

    def is_same(self, other: Built | None) -> bool:
        """Whether both hold the same rows, however often they were built."""
        return other is not None and (self.sequence_number, self.is_open, self.by) == (
            other.sequence_number,
            other.is_open,
            other.by,
        )


@dataclass(frozen=True)
class Touch:
    """A receipt by what matters here: its place in the order of commits, and the dates it names."""

    sequence_number: int
    days: frozenset[date]


@dataclass(frozen=True)
class Due:
    """Dates to build, the newest first. until: every receipt up to this commit is in once they are built."""

    days: tuple[date, ...]
    until: int


def built_key(day: date) -> str:
    """The property that says how a date was built, and that its next build is fenced on."""
    return f"{_BUILT}{day}"


def built_in(properties: Mapping[str, str]) -> dict[date, Built]:
    """What was built of a table, as the properties of its head say."""
    return {date.fromisoformat(k[len(_BUILT) :]): Built.parse(v) for k, v in properties.items() if k.startswith(_BUILT)}


def digest_of(*parts: str) -> str:
    """What a build goes by, in a few characters."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_DIGEST_CHARACTERS]


def due(
    built: Mapping[date, Built],
    touches: Sequence[Touch],
    by: str,
    is_over: Callable[[date], bool],
    fits: Callable[[Sequence[date]], int],
) -> Due:
    """Choose what to build now.

    touches: of every receipt past the last one that is in, the head's among them. is_over: whether a date has ended
    by the commit time of the head. fits: how many of some dates one run takes.
    """
    waiting = _waiting(built, touches)
    stale = {day for day, b in built.items() if b.by != by or (b.is_open and is_over(day))}
    days = sorted({*waiting, *stale}, reverse=True)
    chosen = days[: fits(days)]
    left = [first for day, first in waiting.items() if day not in chosen]
    head = max((t.sequence_number for t in touches), default=0)
    return Due(tuple(chosen), min(left) - 1 if left else head)


def _waiting(built: Mapping[date, Built], touches: Iterable[Touch]) -> dict[date, int]:
    """Dates with a receipt past their build, and the first such receipt."""
    found: dict[date, int] = {}
    for touch in sorted(touches, key=lambda t: t.sequence_number):
        for day in touch.days:
            if day not in built or built[day].sequence_number < touch.sequence_number:
                found.setdefault(day, touch.sequence_number)
    return found
