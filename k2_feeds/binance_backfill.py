"""Past trades of one Binance symbol from REST, chunk by chunk, going on where it was stopped.

The first id at or after a time is found through aggTrades, which can be asked by time; then every id up to the first
one at or after the end is asked for. A chunk counts as done once the broker has acknowledged it: after a kill the chunk
that was under way is sent again, and natural keys make the two deliveries one row.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from k2_core.errors import Damaged, Unreachable
from k2_core.feeds import Feed
from k2_core.gap_ids import BACKFILLING, NOT_COLLECTED, GapId
from k2_core.sequences import Intervals
from k2_feeds.binance_frames import MICROSECONDS_FROM
from k2_feeds.coverage import Stamp, gap_statement
from k2_feeds.outcomes import Outcomes, Row
from k2_feeds.repair import Repair
from k2_resources.binance.rest import TRADES_MAX, Answer

CHUNK_IDS = 10 * TRADES_MAX
"""Ids between two notes of how far it is: ten answers, seconds of work that a kill may cost."""
_US_PER_MS = 1_000


class AggTradesAtSource(Protocol):
    """Who can be asked for ids by time: `k2_resources.binance.rest.BinanceRest`."""

    def agg_trades(self, symbol: str, start_ms: int | None = None, limit: int = TRADES_MAX) -> Answer:
        """Ask for aggregates from a time on, ascending; the newest ones without a time."""


@dataclass(frozen=True)
class Wanted:
    """Trades of one symbol over [start_ms, end_ms), ms UTC."""

    source: str
    symbol: str
    start_ms: int
    end_ms: int

    @property
    def name(self) -> str:
        """A file name for it: symbols may hold any letter, also those of a path."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Progress:
    """How far a backfill is: ids [first_id, end_id), those below next_id acknowledged."""

    wanted: Wanted
    first_id: int
    end_id: int
    next_id: int

    @property
    def is_done(self) -> bool:
        return self.next_id >= self.end_id

    @property
    def ids_left(self) -> int:
        return max(0, self.end_id - self.next_id)


class ProgressFile:
    """The progress of one backfill on disk: replaced whole, so that a kill leaves the old one or the new one."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self.path = folder / f"{wanted.name}.json"
        self._wanted = wanted

    def read(self) -> Progress | None:
        """What is noted; None before the first note. Raises Damaged for a file nobody here wrote."""
        try:
            told = json.loads(self.path.read_text())
            found = Progress(Wanted(**told["wanted"]), told["first_id"], told["end_id"], told["next_id"])
            ids = (found.first_id, found.next_id, found.end_id)
            if found.wanted != self._wanted or not all(type(number) is int for number in ids) or [*ids] != sorted(ids):
                raise ValueError(f"it tells of {found}")
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Damaged(f"{self.path}: no progress of this backfill: {error}. Delete it to begin anew") from error
        return found

    def write(self, progress: Progress) -> None:
        """Note a progress durably."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(f".{os.getpid()}")
        with unfinished.open("w") as file:
            file.write(json.dumps(asdict(progress)))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path)


def located(rest: AggTradesAtSource, wanted: Wanted, before: Progress | None) -> Progress | None:
    """Where to begin and to end; None when nothing traded there so far. before: what an earlier run noted.

    A run whose end lay in the future ends at the newest trade; a later one goes on from there. Raises BadInput,
    Unreachable.
    """
    if before is not None and not before.is_done:
        return before
    first = before.first_id if before else _first_id_at(rest, wanted.symbol, wanted.start_ms, wanted.end_ms)
    if first is None:
        return None
    end = _first_id_at(rest, wanted.symbol, wanted.end_ms)
    end = _newest_id(rest, wanted.symbol) + 1 if end is None else end
    next_id = before.next_id if before else first
    return Progress(wanted, first, max(end, next_id), next_id)


def _first_id_at(rest: AggTradesAtSource, symbol: str, time_ms: int, before_ms: int | None = None) -> int | None:
    """The first trade id at or after a time and before another; None where there is no such trade yet."""
    while True:
        answer = rest.agg_trades(symbol, time_ms)
        for moment_ms, first, _ in _aggregates(answer):
            if before_ms is not None and moment_ms >= before_ms:
                return None
            if first >= 0:
                return first
        if len(answer.document) < TRADES_MAX:
            return None
        time_ms = max(time_ms, *(moment_ms for moment_ms, _, _ in _aggregates(answer))) + 1


def _newest_id(rest: AggTradesAtSource, symbol: str) -> int:
    """The id of the newest trade. Raises Unreachable when there is none to be told of."""
    answer = rest.agg_trades(symbol)
    newest = max((last for _, _, last in _aggregates(answer)), default=-1)
    if newest < 0:
        raise Unreachable(f"{answer.asked}: no trade of {symbol}, though there was one just now")
    return newest


def _aggregates(answer: Answer) -> Iterator[tuple[int, int, int]]:
    """Time in ms, first and last id of each aggregate; ids of -1 mark one the exchange itself declared invalid."""
    for entry in answer.document:
        found = tuple(entry.get(name) for name in ("T", "f", "l"))
        if not all(type(value) is int for value in found):
            raise Unreachable(f"{answer.asked}: an aggregate without T, f and l: {entry!s:.200}")
        moment, first, last = found
        yield (moment // _US_PER_MS if moment >= MICROSECONDS_FROM else moment), first, last


def backfilled(
    repair: Repair, feed: Feed, start: Progress, stamp: Callable[[], Stamp], reached: Callable[[Progress], None]
) -> Outcomes:
    """Everything from where the progress stands to its end. reached: called when a chunk has been yielded.

    Raises BadInput, Unreachable.
    """
    at, symbol = start, start.wanted.symbol
    if at.is_done:
        return
    whole = GapId(feed.name, symbol, 0, at.next_id, at.end_id - 1)
    yield gap_statement(feed, whole, BACKFILLING, stamp(), {"ids": whole.size})
    while not at.is_done:
        end = min(at.next_id + CHUNK_IDS, at.end_id)
        filled = repair.fill(symbol, at.next_id, end - 1)
        yield from filled.outcomes
        yield from filled.statements(feed, stamp())
        at = replace(at, next_id=end)
        reached(at)


def beside(feed: Feed, progress: Progress, stored: Intervals, stamp: Stamp) -> list[Row]:
    """State the holes a backfill leaves to its stored neighbours: nobody asked for those ids. stored: of the lake."""
    below, above = stored.clipped(0, progress.first_id - 1), stored.clipped(progress.end_id, 2**63 - 1)
    holes = []
    if len(below) and int(below.lasts[-1]) + 1 < progress.first_id:
        holes.append((int(below.lasts[-1]) + 1, progress.first_id - 1))
    if len(above) and progress.end_id < int(above.firsts[0]):
        holes.append((progress.end_id, int(above.firsts[0]) - 1))
    gaps = [GapId(feed.name, progress.wanted.symbol, 0, first, last) for first, last in holes]
    evidence = {"collected_beside": [progress.first_id, progress.end_id - 1]}
    return [gap_statement(feed, gap, NOT_COLLECTED, stamp, evidence) for gap in gaps]
