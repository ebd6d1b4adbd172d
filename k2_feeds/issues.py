"""What each load of a day held, stated on k2.coverage when the load has ended: see k2_core.issues."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import islice

import numpy as np

from k2_core.feeds import Feed
from k2_core.identity import SEPARATOR
from k2_core.issues import ISSUED, Issue, Sketch, id_of
from k2_feeds.coverage import Stamp, Tally, statement
from k2_feeds.outcomes import Outcome, Outcomes, Rejected, Row

_KEPT_MAX = 4_096
"""Keys of one day that wait to be added to its sketch together: 32 kB."""


@dataclass
class _Held:
    """The rows of one feed, symbol and exchange date so far. opened, closed: smallest and largest event time in µs."""

    opened: int
    closed: int
    keys: int = 0
    sketch: Sketch = field(default_factory=lambda: Sketch.of(np.empty(0, np.uint64)))
    _waiting: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, key: str, timestamp: int) -> None:
        self.opened, self.closed = min(self.opened, timestamp), max(self.closed, timestamp)
        self.keys += 1
        self._waiting.append(id_of(key))
        if len(self._waiting) >= _KEPT_MAX:
            self.settle()

    def issue(self, day: date) -> Issue:
        self.settle()
        return Issue(day, self.keys, self.sketch)

    def settle(self) -> None:
        self.sketch += Sketch.of(np.array(self._waiting, np.uint64))
        self._waiting = array("Q")


def with_issues(outcomes: Iterable[Outcome], feeds: Mapping[str, Feed], stamp: Callable[[], Stamp]) -> Outcomes:
    """The same outcomes, and behind the last of them a statement for each feed, symbol and exchange date it held.

    feeds: by name, those whose days are loaded whole; their keys name their date. stamp: of the moment it is asked. A
    load whose files could not be read to their ends is no issue and states none.
    """
    held: dict[tuple[str, str, str], _Held] = {}
    whole = True
    for outcome in outcomes:
        if isinstance(outcome, Row) and outcome.feed in feeds:
            key, timestamp = outcome.record["message_id"], outcome.record["timestamp"]
            at = outcome.feed, outcome.symbol, _date_of(key)
            if at not in held:
                for before in islice(reversed(held.values()), 1):
                    before.settle()  # files come day by day: what waits of the last one need not wait on
                held[at] = _Held(timestamp, timestamp)
            held[at].add(key, timestamp)
        elif isinstance(outcome, Rejected):
            whole &= not outcome.damaged
        yield outcome
    if whole:
        for (feed, symbol, day), rows in held.items():
            yield _statement(feeds[feed], symbol, rows, rows.issue(date.fromisoformat(day)), stamp())


def _date_of(key: str) -> str:
    """The exchange date a counted key names: its fourth part."""
    return key.split(SEPARATOR, 4)[3]


def _statement(feed: Feed, symbol: str, rows: _Held, issue: Issue, stamp: Stamp) -> Row:
    tally = Tally(feed.name, symbol, rows=issue.keys, opened=rows.opened, closed=rows.closed)
    name = f"{feed.name}/{symbol}/{issue.exchange_date}:{ISSUED}"
    return statement(feed, tally, ISSUED, stamp, name=name, evidence=issue.evidence())
