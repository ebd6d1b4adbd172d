"""What can be said of one day of one symbol: what must be there, what is missing, what holds the day up. Never a guess.

Belongs here: the rules. Reading rows, gaps and statements is the lake's; when a day is closed, Dagster's.

A feed whose ids have no holes is complete when no id between the first and the last of the day is missing, and the ids
just before and just after are stored, under other dates: only then is nothing missing at the edges either. A file
source is measured by its latest load; that its venue traded no more than the file says, nobody can verify.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.gap_ids import ABSENT_AT_SOURCE, OPEN, SETTLED, GapId
from k2_core.gap_states import Event
from k2_core.issues import Difference
from k2_core.numberings import known_ids
from k2_core.sequences import Ids, Intervals, ScopeState
from k2_core.verdict import severity

HALT = "halt"
"""Severity of a hole that holds up the day it is in; a smaller one makes it incomplete."""
_SESSION = r"~(?P<session>\d+)$"
"""What the judge adds to a key of a numbering after the first."""


@dataclass(frozen=True)
class Hole:
    """Ids of one numbering that are not there, both ends inclusive, and how that stands."""

    gap: GapId
    state: str

    @property
    def holds_up(self) -> bool:
        """Whether the day may not be closed over it."""
        return severity(self.gap.size) == HALT and self.state not in SETTLED


@dataclass(frozen=True)
class Standing:
    """How a day stands. verdict: as audit.days has it. expected: rows there must be at least. None: nothing tells."""

    verdict: str
    expected: int | None
    missing: int | None
    withdrawn: int | None = None
    holes: tuple[Hole, ...] = ()

    @property
    def obstacles(self) -> tuple[Hole, ...]:
        return tuple(hole for hole in self.holes if hole.holds_up)


@dataclass(frozen=True)
class _Span:
    """The ids of a day in one numbering, from its first to its last."""

    session: int
    first: int
    last: int


def by_ids(feed: str, rows: pa.Table, state: ScopeState, gaps: Iterable[Event]) -> Standing:
    """Judge a day of a symbol whose ids have no holes.

    rows: message_id and source_sequence of its newest revisions. state: of the symbol at the C the rows were read at.
    gaps: the unfilled ones of the symbol, which tell in which state a hole is.
    """
    told = {(gap["session"], gap["first_id"], gap["last_id"]): str(gap["state"]) for gap in gaps}
    known, holes, missing, absent, are_proven = known_ids(state), list[Hole](), 0, 0, bool(len(rows))
    for span in _spans(rows):
        seen = state.numbering(span.session).seen
        inside = seen.clipped(span.first, span.last)
        missing += span.last - span.first + 1 - _count(inside)
        edges = np.array([max(span.first - 1, 0), span.last + 1], np.int64)
        are_proven &= bool(seen.contains(edges).all())
        for first, last in _holes(known.get(span.session, Intervals()), span):
            gap = GapId(feed, str(rows["symbol"][0].as_py()), span.session, first, last)
            hole = Hole(gap, told.get((span.session, first, last), OPEN))
            holes.append(hole)
            absent += _overlap(hole, span) if hole.state == ABSENT_AT_SOURCE else 0
    missing -= absent
    verdict = "incomplete" if missing else "complete" if are_proven else "not_verifiable"
    return Standing(verdict, len(rows) + missing, missing, holes=tuple(holes))


def by_issue(difference: Difference | None) -> Standing:
    """Judge a day of a symbol of a file source. difference: from its latest load; None where none was stated."""
    if difference is None:
        return Standing("not_verifiable", None, None)
    short = difference.issued - (difference.stored - len(difference.withdrawn))
    # where too many keys differ to be named, the counts still tell how many are missing at least
    missing = max(difference.missing, short, 0)
    verdict = "incomplete" if missing or not difference.is_whole else "not_verifiable"
    return Standing(verdict, difference.issued, missing, len(difference.withdrawn))


def without_rows(*, is_collected: bool) -> Standing:
    """Judge a day without a row. is_collected: whether a feed says it looked."""
    return Standing("not_verifiable" if is_collected else "not_collected", None, None)


def changed(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    """Whether a day says anything else than its last closing: only then it becomes a new version."""
    return before is None or any(before[name] != after[name] for name in _SAID)


_SAID = (
    "verdict",
    "expected",
    "present",
    "missing",
    "duplicates",
    "superseded",
    "withdrawn",
    "dead_letters",
    "gaps",
    "sums",
    "digest_columns",
    "sha256",
    "rules",
    "ranges",
    "table_uuid",
)
"""What a closing says of the day itself. C moves with every commit, collections with every load: neither is the day."""


def _spans(rows: pa.Table) -> list[_Span]:
    ids, sessions = rows["source_sequence"].to_numpy(), _sessions(rows)
    found = []
    for session in np.unique(sessions).tolist():
        mine = ids[sessions == session]
        found.append(_Span(session, int(mine.min()), int(mine.max())))
    return found


def _sessions(rows: pa.Table) -> npt.NDArray[np.int64]:
    """The numbering of each row, told by its key."""
    told = pc.struct_field(pc.extract_regex(rows["message_id"], _SESSION), "session")
    out: npt.NDArray[np.int64] = pc.fill_null(told, "0").cast(pa.int64()).to_numpy()
    return out


def _holes(known: Intervals, span: _Span) -> list[tuple[int, int]]:
    """The holes in a day or at its edges: those that touch [first - 1, last + 1]."""
    firsts, lasts = known.hole_bounds
    touching = (lasts >= span.first - 1) & (firsts <= span.last + 1)
    return list(zip(firsts[touching].tolist(), lasts[touching].tolist(), strict=True))


def _count(ids: Intervals) -> int:
    widths: Ids = ids.lasts - ids.firsts + 1
    return int(widths.sum())


def _overlap(hole: Hole, span: _Span) -> int:
    return max(min(hole.gap.last_id, span.last) - max(hole.gap.first_id, span.first) + 1, 0)
