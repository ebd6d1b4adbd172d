"""Names of gaps, and the states a gap can be in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from k2_core.sequences import MAX_ID

OPEN, FILLED = "open", "filled"
"""What the judge sees: ids are missing; none is missing any more."""
BACKFILLING = "backfilling"
"""Somebody asks the source for it."""
ABSENT_AT_SOURCE = "absent_at_source"
"""The source was asked and does not have these ids: nothing was lost on the way."""
UNRECOVERABLE = "unrecoverable"
"""The source has them, or had them, and K2 cannot get them into the lake."""
ACCEPTED = "accepted"
"""An operator goes on without."""
NOT_COLLECTED = "not_collected"
"""Between two collections: nobody tried."""

STATED = (BACKFILLING, ABSENT_AT_SOURCE, UNRECOVERABLE, ACCEPTED, NOT_COLLECTED)
"""States that a feed or an operator puts a gap in, by a statement on k2.coverage."""
SETTLED = (FILLED, ABSENT_AT_SOURCE, NOT_COLLECTED, ACCEPTED)
"""States that ask for nothing more; a gap in any other one holds up its day."""
URGENCY = (OPEN, BACKFILLING, UNRECOVERABLE, NOT_COLLECTED, ABSENT_AT_SOURCE, ACCEPTED)
"""A gap of which parts are in several states is in the first of these."""

_GAP_ID = re.compile(r"([^:]+):([^:]+):(\d{1,10}):(\d{1,19})-(\d{1,19})", re.ASCII)
_CHARACTERS_MAX = 512
"""A feed and a symbol, each at its longest, leave half of it free."""
_SESSION_MAX = 2**31 - 1


@dataclass(frozen=True, order=True)
class GapId:
    """Which ids are missing: first to last, both inclusive, of one numbering (session) of one scope of a feed."""

    feed: str
    scope: str
    session: int
    first_id: int
    last_id: int

    def __str__(self) -> str:
        return f"{self.feed}:{self.scope}:{self.session}:{self.first_id}-{self.last_id}"

    @property
    def size(self) -> int:
        return self.last_id - self.first_id + 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `feed:scope:session:first-last`. Raises ValueError."""
        match = _GAP_ID.fullmatch(text) if len(text) <= _CHARACTERS_MAX else None
        if match is None:
            raise ValueError(f"{text!r:.80} is no gap id: expected feed:scope:session:first-last")
        feed, scope, session, first, last = match.groups()
        found = cls(feed, scope, int(session), int(first), int(last))
        possible = found.session <= _SESSION_MAX and found.first_id <= found.last_id <= MAX_ID and found.size <= MAX_ID
        if str(found) != text or not possible:
            raise ValueError(f"{text!r:.80} is no gap id: its numbers are none of a gap")
        return found
