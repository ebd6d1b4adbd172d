"""Quotes as of instants: which one stood when, from one state of the quotes.

A quote is looked for close by first, then further back: most instants have one within seconds, and a day of a busy
symbol is millions of rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from k2_api.pinning import Pinned
from k2_api.plans import Span, within
from k2_api.questions import Ticks
from k2_api.sources import Source, reading, source_of, steps_of, values_of
from k2_core.projections import Decimals, select_list
from k2_core.windows import FIRST_US, LAST_US
from k2_resources.duck import Duck, Statement

LOOKS_US = (60 * 10**6, 3_600 * 10**6)
"""How far back a quote is looked for before it is looked for as far as the question allows."""
_STRETCHES_MAX = 16
"""Queries of one look at most; stretches of time that lie closest to each other are read as one."""


@dataclass(frozen=True)
class Moment:
    """An instant (µs since the epoch) at one exchange."""

    exchange: str
    at_us: int


@dataclass(frozen=True)
class Standing:
    """A quote as JSON, and how long it had stood at the instant, in µs."""

    json: str
    age_us: int


@dataclass(frozen=True)
class QuoteBook:
    """The quotes of one symbol at one state. age_us_max: an older one says nothing. decimals: how JSON writes them."""

    pinned: Pinned
    symbol: str
    age_us_max: int
    decimals: Decimals = "string"

    async def at(self, duck: Duck, moments: Sequence[Moment]) -> list[Standing | None]:
        """The quote that stood at each moment, itself included; None where none is young enough."""
        found: list[Standing | None] = [None] * len(moments)
        source = source_of(self.pinned, (self.symbol,))
        for age_us in (*(look for look in LOOKS_US if look < self.age_us_max), self.age_us_max):
            open_ = sorted((i for i, standing in enumerate(found) if standing is None), key=lambda i: moments[i].at_us)
            for some in _stretches([moments[i].at_us for i in open_], age_us):
                asked = [open_[n] for n in some]
                for position, standing in await self._looked(duck, source, moments, asked, age_us):
                    found[position] = standing
        return found

    async def _looked(
        self, duck: Duck, source: Source, moments: Sequence[Moment], asked: Sequence[int], age_us: int
    ) -> list[tuple[int, Standing]]:
        """asked: positions of moments, by time."""
        first_us, last_us = moments[asked[0]].at_us, moments[asked[-1]].at_us
        span = Span(max(first_us - age_us, FIRST_US), min(last_us + 1, LAST_US))
        files = within(source.files, span)
        if not files or span.start_us >= span.end_us:
            return []
        ticks = Ticks(symbols=(self.symbol,))
        values = {
            **values_of(ticks),
            **source.values(),
            **reading(files, span),
            "positions": list(asked),
            "venues": [moments[i].exchange for i in asked],
            "instants": [moments[i].at_us for i in asked],
        }
        rows = await duck.query(self._statement(source, ticks), values)
        told = zip(rows["position"].to_pylist(), rows["at_us"].to_pylist(), rows["json"].to_pylist(), strict=True)
        aged = ((position, Standing(text, moments[position].at_us - at_us)) for position, at_us, text in told)
        return [(position, standing) for position, standing in aged if standing.age_us <= age_us]

    def _statement(self, source: Source, ticks: Ticks) -> Statement:
        stood = source.over("prevailing", **steps_of(ticks))
        shown = select_list(self.pinned.table, "json", (), self.decimals)
        text = f"SELECT position, at_us, {shown}\nFROM (\n{stood.text}\n) AS stood"
        return Statement(text, stood.parameters)


def _stretches(instants: Sequence[int], age_us: int) -> Iterator[range]:
    """Cut instants, in order, where nobody needs what lies between. Ranges of their positions."""
    apart_us = age_us
    while len(cuts := _cuts(instants, apart_us)) > _STRETCHES_MAX:
        apart_us *= 2
    bounds = [0, *cuts, len(instants)]
    return (range(a, b) for a, b in itertools.pairwise(bounds) if a < b)


def _cuts(instants: Sequence[int], apart_us: int) -> list[int]:
    return [i for i in range(1, len(instants)) if instants[i] - instants[i - 1] > apart_us]
