"""What the judge says of one batch, and what it must be told before it can speak."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2_core.decode import Dead
from k2_core.scopes import Scopes
from k2_core.sequences import ScopeState

Mask = npt.NDArray[np.bool_]
State = Mapping[str, ScopeState]
"""Sequence state of one feed: scope (symbol) -> what was seen."""
DeadIds = Mapping[str, frozenset[tuple[int, int]]]
"""Per scope (event time in ms, id) of rejected rows."""


@dataclass(frozen=True)
class Screened:
    """Rows that passed the hard rules, with flags and exchange dates set, and those that did not.

    rows: feed, judge (revision 0) and lineage columns. dead: index refers to the rows given to `screen`.
    dead_ids: the ids of the rejected rows are no gap, and no duplicate when replayed. scopes: of the rows.
    """

    rows: pa.Table
    source: npt.NDArray[np.int64]
    dead: tuple[Dead, ...]
    dead_ids: DeadIds
    today: date
    scopes: Scopes


@dataclass(frozen=True)
class Wanted:
    """Stored rows to fetch: every revision of these keys, of these symbols, where they may lie.

    dates and times bound the search; None is no bound.
    """

    message_ids: pa.Array
    symbols: tuple[str, ...]
    dates: tuple[date, ...] | None
    times: tuple[datetime, datetime] | None


StoredRows = Callable[[Wanted], pa.Table]
"""The stored revisions of wanted keys: message_id, revision, exchange_date, flags and content columns."""


@dataclass(frozen=True)
class GapEvent:
    """One event in the life of a hole in the ids of a contiguous feed. Ids inclusive.

    The judge sees holes open and close. Any other state was stated by an actor, with evidence, at a time.
    """

    feed: str
    exchange: str
    scope: str
    first_id: int
    last_id: int
    state: str
    exchange_date: date
    parent: str | None = None
    session: int = 0
    actor: str = "judge"
    evidence: str | None = None
    stated: datetime | None = None

    @property
    def gap_id(self) -> str:
        return gap_id(self.feed, self.scope, self.session, self.first_id, self.last_id)

    @property
    def size(self) -> int:
        return self.last_id - self.first_id + 1

    @property
    def severity(self) -> str:
        return severity(self.size)


def gap_id(feed: str, scope: str, session: int, first: int, last: int) -> str:
    return f"{feed}:{scope}:{session}:{first}-{last}"


WARN_BELOW, HALT_ABOVE = 10, 100
"""Ids: below 10 a warning, to 100 an alert, above 100 the day cannot close."""


def severity(size: int) -> str:
    """How bad a gap of that many ids is: warn, alert or halt."""
    if size < WARN_BELOW:
        return "warn"
    return "alert" if size <= HALT_ABOVE else "halt"


@dataclass(frozen=True)
class Verdict:
    """What becomes of every row of one feed in one batch.

    rows: what is stored, in contract columns and sort order. outcome: per screened row one of the codes below.
    touched: exchange dates that change without gaining a row (the older row of a revision).
    """

    rows: pa.Table
    outcome: npt.NDArray[np.int8]
    state: State
    gaps: tuple[GapEvent, ...] = ()
    reverted: int = 0
    precision_upgrades: int = 0
    touched: frozenset[date] = field(default_factory=frozenset)


WRITTEN, DUPLICATE, REVISION = 0, 1, 2
