"""Holes in the ids of Binance trades filled from REST: the trades there are, and the proof of those there are not.

The exchange answers with trades from an id on, ascending. So one answer proves which ids it does not have: those it
passes over. Where nothing follows the hole yet, the exchange is asked again: REST may be a moment behind its stream.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from k2_core.errors import BadInput, Unreachable
from k2_core.feeds import Feed
from k2_core.gap_ids import ABSENT_AT_SOURCE, BACKFILLING, UNRECOVERABLE, GapId
from k2_feeds.binance_frames import TRADES_FEED, trade_row
from k2_feeds.coverage import Stamp, gap_statement
from k2_feeds.outcomes import Outcomes, Refusal, Rejected, Row, Unusable
from k2_resources.binance.rest import TRADES_MAX, Answer

FIELDS = ("id", "price", "qty", "time", "isBuyerMaker")
"""What a trade of REST must say."""
BEHIND_ATTEMPTS_MAX = 3
BEHIND_SECONDS = 1.0
"""Between two looks at ids that nothing follows: REST answers from memory within a second of the match."""
FILE = "historicalTrades"
"""How rejected trades name where they come from."""

Ids = tuple[int, int]
"""First and last id, both inclusive."""


class TradesAtSource(Protocol):
    """Who can be asked for trades by id: `k2_resources.binance.rest.BinanceRest`."""

    base_url: str

    def trades(self, symbol: str, from_id: int, limit: int = TRADES_MAX) -> Answer:
        """Ask for trades from an id on, ascending."""


@dataclass
class Filled:
    """A range of ids being filled. Take the outcomes first: what the rest says is known when they are at their end.

    outcomes: rows, and trades the exchange has but nobody could send. absent: ids it does not have; unusable: ids of
    the trades rejected. evidence: what proves each of these ranges.
    """

    symbol: str
    ids: Ids
    outcomes: Iterator[Row | Rejected]
    absent: list[Ids] = field(default_factory=list)
    unusable: list[Ids] = field(default_factory=list)
    evidence: dict[Ids, dict[str, Any]] = field(default_factory=dict)

    @property
    def rows(self) -> Iterator[Row]:
        """The rows alone."""
        return (outcome for outcome in self.outcomes if isinstance(outcome, Row))

    def statements(self, feed: Feed, stamp: Stamp, session: int = 0) -> list[Row]:
        """What to say of the ids that were not filled; nothing where all were."""
        states = [(ids, ABSENT_AT_SOURCE) for ids in self.absent] + [(ids, UNRECOVERABLE) for ids in self.unusable]
        gaps = [(GapId(feed.name, self.symbol, session, *ids), ids, state) for ids, state in sorted(states)]
        return [gap_statement(feed, gap, state, stamp, self.evidence[ids]) for gap, ids, state in gaps]


class Repair:
    """Fills ranges of ids from REST. now_us: the clock, µs UTC; wait: how to pass seconds."""

    def __init__(
        self, rest: TradesAtSource, now_us: Callable[[], int], *, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._rest = rest
        self._now_us = now_us
        self._wait = wait

    def fill(self, symbol: str, first_id: int, last_id: int) -> Filled:
        """Ask for every id from first to last, page by page as the outcomes are taken.

        Taking them raises BadInput (the exchange refuses the symbol) and Unreachable.
        """
        filled = Filled(symbol, (first_id, last_id), iter(()))
        filled.outcomes = self._outcomes(filled)
        return filled

    def _outcomes(self, filled: Filled) -> Iterator[Row | Rejected]:
        (next_id, last), behind = filled.ids, 0
        while next_id <= last:
            # one more than is missing, so that what follows a hole is in the answer that proves it
            answer = self._rest.trades(filled.symbol, next_id, min(TRADES_MAX, last - next_id + 2))
            page = Page.of(answer, next_id)
            if not page.trades and behind + 1 < BEHIND_ATTEMPTS_MAX:
                behind += 1
                self._wait(BEHIND_SECONDS)
                continue
            for first, until in page.passed_over(next_id, last):
                filled.absent.append((first, until))
                filled.evidence[first, until] = page.proof(first, until)
            yield from self._read(filled, page, last)
            next_id, behind = (page.ids[-1] + 1 if page.ids else last + 1), 0

    def _read(self, filled: Filled, page: Page, last: int) -> Iterator[Row | Rejected]:
        for line, (number, trade) in enumerate(zip(page.ids, page.trades, strict=True), start=1):
            if number > last:
                return
            try:
                yield rest_row(filled.symbol, trade, self._now_us())
            except Unusable as problem:
                filled.unusable.append((number, number))
                filled.evidence[number, number] = page.proof(number, number) | {
                    "reason": str(problem.reason),
                    "detail": problem.detail,
                }
                raw = json.dumps(trade, default=str).encode()
                where = (FILE, line, problem.reason, problem.detail, raw)
                yield Rejected(*where, feed=TRADES_FEED, symbol=filled.symbol)


@dataclass(frozen=True)
class Page:
    """One answer: trades with their ids, ascending."""

    answer: Answer
    ids: tuple[int, ...]
    trades: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, answer: Answer, from_id: int) -> Page:
        """Read an answer. Raises Unreachable when it is none to a question for trades from an id on."""
        ids = tuple(trade.get("id") for trade in answer.document)
        if not all(type(number) is int for number in ids):
            raise Unreachable(f"{answer.asked}: a trade without an id that is a number")
        steps = zip((from_id - 1, *ids), ids, strict=False)
        if not all(before < after for before, after in steps):
            raise Unreachable(f"{answer.asked}: ids do not rise from {from_id}: {ids!s:.80}")
        return cls(answer, ids, tuple(answer.document))

    def passed_over(self, first: int, last: int) -> list[Ids]:
        """The ids from first to last that the answer leaves out, up to the newest in it; all of them if it is empty."""
        edges = [first - 1, *(number for number in self.ids if number <= last)]
        if not self.ids or self.ids[-1] > last:
            edges.append(last + 1)
        pairs = itertools.pairwise(edges)
        return [(before + 1, after - 1) for before, after in pairs if after - before > 1]

    def proof(self, first: int, last: int) -> dict[str, Any]:
        """What was asked, what came, and its digest: whoever asks the same and gets the same bytes sees the same."""
        return {
            "asked": self.answer.asked,
            "status": self.answer.status,
            "sha256": self.answer.sha256,
            "trades": len(self.ids),
            "id_before": max((number for number in self.ids if number < first), default=None),
            "id_after": min((number for number in self.ids if number > last), default=None),
        }


def rest_row(symbol: str, trade: Mapping[str, Any], received_us: int) -> Row:
    """Build the row of a trade as REST tells it. Raises Unusable."""
    if missing := [name for name in FIELDS if name not in trade]:
        raise Unusable(Refusal.MISSING_VALUE, f"key {missing[0]} is missing")
    number, price, quantity, moment, buyer_is_maker = (trade[name] for name in FIELDS)
    rest = {name: _word(value) for name, value in trade.items() if name not in FIELDS}
    return trade_row(
        symbol,
        number,
        price,
        quantity,
        moment,
        buyer_is_maker=buyer_is_maker,
        received_us=received_us,
        vendor_data=rest or None,
    )


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def mended(
    repair: Repair, feed: Feed, gaps: Iterable[GapId], stamp: Callable[[], Stamp], session: Callable[[str], int]
) -> Outcomes:
    """Ask for gaps one after the other: their rows, what was wrong with others, and a statement of each step.

    session: the newest numbering of a symbol; the exchange answers by that one only, so what is missing of an earlier
    one is unrecoverable, as is a symbol the exchange refuses, and said so. Raises Unreachable: the gap at which it
    broke off stays in backfilling until somebody asks again.
    """
    for gap in gaps:
        if (now := session(gap.scope)) != gap.session:
            evidence = {"error": f"ids have begun anew: the exchange answers by numbering {now}, not {gap.session}"}
            yield gap_statement(feed, gap, UNRECOVERABLE, stamp(), evidence)
            continue
        yield gap_statement(feed, gap, BACKFILLING, stamp(), {"ids": gap.size})
        filled = repair.fill(gap.scope, gap.first_id, gap.last_id)
        try:
            yield from filled.outcomes
        except BadInput as refused:
            yield gap_statement(feed, gap, UNRECOVERABLE, stamp(), {"error": f"{refused.code}: {refused}"})
        else:
            yield from filled.statements(feed, stamp(), gap.session)
