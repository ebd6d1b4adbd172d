"""Holes in the ids of a live feed on their way to being filled: a moment of patience, then the exchange is asked.

Asking happens in a thread of its own, through a short queue, so that neither the sockets nor the producer wait for it,
and a slow broker holds it back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from queue import Empty, Full, Queue

import structlog

from k2_core.errors import K2Error, Unreachable
from k2_core.feeds import Feed
from k2_core.gap_ids import NOT_COLLECTED, GapId
from k2_feeds.coverage import Stamp, gap_statement
from k2_feeds.outcomes import Outcome, Row
from k2_feeds.repair import Repair, mended

PATIENCE_SECONDS = 2.0
"""Frames that changed places arrive in the meantime, and REST has what the stream had a moment ago."""
IDS_MAX = 5_000_000
"""A longer hole is some 20 minutes of asking at full weight; above it a dump is the better source."""
HOLES_MAX = 10_000
"""Holes remembered at once; what is beyond stays open in the ledger, where `k2 gaps repair` finds it."""
_ROWS_WAITING_MAX = 2_000
_RETRY_SECONDS = 30.0
"""Pause after the exchange could not be reached; the client below has tried for a while by then."""
_POLL_SECONDS = 0.2

Hole = tuple[int, int]
"""First and last missing id, both inclusive."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Known:
    """What the lake holds of one symbol: its last id, the number of its numbering, and the holes nobody settled.

    newest_us: event time of its newest trade, -1 if unknown.
    """

    last_id: int
    session: int = 0
    newest_us: int = -1
    holes: tuple[Hole, ...] = ()


@dataclass(frozen=True)
class Noticed:
    """A hole and when it is asked for, on the steady clock. was_closed: nobody collected while it came to be.

    session: the numbering its ids are of.
    """

    symbol: str
    session: int
    hole: Hole
    due: float
    was_closed: bool = False

    def gap(self, feed: Feed, hole: Hole | None = None) -> GapId:
        """Name it, or what is still missing of it."""
        return GapId(feed.name, self.symbol, self.session, *(hole or self.hole))


@dataclass
class Tallied:
    """Of one feed so far: holes noticed, the ids in them, trades that REST gave, questions without an answer."""

    holes: int = 0
    missing: int = 0
    filled: int = 0
    failures: int = 0


@dataclass
class Mending:
    """Holes of one feed. The producing thread notices and drains; the asking thread belongs to this object.

    repair: None where nobody is to be asked; then a hole from before this collection is stated as not collected.
    stamp: who states something, and when. missing: what of a hole is still missing, asked in the producing thread.
    session: the numbering of a symbol's ids now. ending: set when nothing more is asked; who waits inside a question
    may look at it, too.
    """

    feed: Feed
    repair: Repair | None
    stamp: Callable[[], Stamp]
    missing: Callable[[str, Hole], list[Hole]]
    session: Callable[[str], int]
    patience_seconds: float = PATIENCE_SECONDS
    retry_seconds: float = _RETRY_SECONDS
    ending: threading.Event = field(default_factory=threading.Event)
    counts: Tallied = field(default_factory=Tallied)
    _waiting: deque[Noticed] = field(default_factory=deque)
    _asked: Queue[GapId] = field(default_factory=Queue)
    _found: Queue[Outcome] = field(default_factory=lambda: Queue(_ROWS_WAITING_MAX))
    _again: Queue[Noticed] = field(default_factory=Queue)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to ask."""
        if self.repair is not None:
            self._thread = threading.Thread(target=self._ask, name="k2-repair", daemon=True)
            self._thread.start()

    def stop(self, seconds_max: float) -> int:
        """Ask for nothing more, and wait for the question under way. Returns the holes nobody filled."""
        self.ending.set()
        if self._thread is not None:
            self._thread.join(seconds_max)
        return self.holes

    @property
    def holes(self) -> int:
        """Holes that are not filled yet."""
        return len(self._waiting) + self._asked.qsize() + self._again.qsize()

    def begin(self, symbol: str, known: Known) -> None:
        """Take over from an earlier run: where somebody can be asked, its holes are asked for, too."""
        for hole in known.holes if self.repair is not None else ():
            self.notice(symbol, hole)

    def notice(self, symbol: str, hole: Hole, *, was_closed: bool = False) -> None:
        """Take note of a hole. was_closed: it lies between the last collection and this one."""
        self.counts.holes += 1
        self.counts.missing += hole[1] - hole[0] + 1
        log.warning("ids are missing", feed="binance-live", symbol=symbol, first=hole[0], last=hole[1])
        due = time.monotonic() + self.patience_seconds
        self._remember(Noticed(symbol, self.session(symbol), hole, due, was_closed))

    def forget(self, symbol: str) -> None:
        """Wait no longer for holes of a symbol whose ids begin anew: nobody can be asked for those of before.

        Where the judge, too, sees another numbering, they are stated to be beyond recovery.
        """
        gone = [noticed for noticed in self._waiting if noticed.symbol == symbol]
        self._waiting = deque(noticed for noticed in self._waiting if noticed.symbol != symbol)
        for noticed in gone:
            if self.repair is not None and noticed.session != self.session(symbol):
                self._asked.put_nowait(noticed.gap(self.feed))

    def outcomes(self, outcomes_max: int = 1_000) -> Iterator[Outcome]:
        """What was found since, and statements; hands over what became due. To be taken in the producing thread."""
        yield from self._due()
        for _ in range(outcomes_max):
            try:
                found = self._found.get_nowait()
            except Empty:
                return
            self.counts.filled += isinstance(found, Row) and found.feed == self.feed.name
            yield found

    def _remember(self, noticed: Noticed) -> None:
        if self.holes < HOLES_MAX:
            self._waiting.append(noticed)
        else:
            log.error("too many holes; left to `k2 gaps repair`", feed="binance-live", symbol=noticed.symbol)

    def _due(self) -> Iterable[Outcome]:
        while not self._again.empty():
            self._waiting.append(self._again.get_nowait())
        now, later = time.monotonic(), deque[Noticed]()
        for noticed in self._waiting:
            if noticed.due > now:
                later.append(noticed)
                continue
            for gap in self._missing(noticed):
                if self.repair is not None and gap.size <= IDS_MAX:
                    self._asked.put_nowait(gap)
                elif noticed.was_closed:
                    yield gap_statement(self.feed, gap, NOT_COLLECTED, self.stamp())
        self._waiting = later

    def _missing(self, noticed: Noticed) -> list[GapId]:
        """What of a hole did not come since; all of it where the ids have begun anew."""
        if noticed.session != self.session(noticed.symbol):
            return [noticed.gap(self.feed)]
        return [noticed.gap(self.feed, hole) for hole in self.missing(noticed.symbol, noticed.hole)]

    def _ask(self) -> None:
        while not self.ending.is_set():
            try:
                gap = self._asked.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            self._fill(gap)

    def _fill(self, gap: GapId) -> None:
        assert self.repair is not None, "only with somebody to ask"
        try:
            for outcome in mended(self.repair, self.feed, [gap], self.stamp, self.session):
                if not self._hand_over(outcome):
                    return
        except K2Error as error:
            self.counts.failures += 1
            log.warning("a hole is not filled yet", feed="binance-live", symbol=gap.scope, reason=str(error))
            hole, due = (gap.first_id, gap.last_id), time.monotonic() + self.retry_seconds
            self._again.put(Noticed(gap.scope, gap.session, hole, due))

    def _hand_over(self, outcome: Outcome) -> bool:
        """Whether the producing thread will get it: false once nobody waits."""
        while not self.ending.is_set():
            try:
                self._found.put(outcome, timeout=_POLL_SECONDS)
            except Full:
                continue
            return True
        return False


def waiting_until(ending: threading.Event) -> Callable[[float], None]:
    """How a REST client passes seconds of waiting so that the end of the feed cuts them short."""

    def wait(seconds: float) -> None:
        if ending.wait(seconds):
            raise Unreachable("the feed is ending")

    return wait
