"""Which streams a feed reads, and how they are spread over connections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from k2_core.errors import BadInput
from k2_core.identity import symbol_problem

STREAMS_MAX = 1_024
"""Streams of one connection, by the exchange's rules."""
TRADES = "trade"
QUOTES = "bookTicker"


def streams_of(symbols: Iterable[str], *, quotes: bool) -> list[tuple[str, ...]]:
    """Stream names, symbol by symbol, e.g. (btcusdt@trade, btcusdt@bookTicker).

    symbols: in any case, repeats allowed. Raises BadInput for one that can be none.
    """
    kinds = (TRADES, QUOTES) if quotes else (TRADES,)
    wanted = list(dict.fromkeys(symbol.upper() for symbol in symbols))
    problem = next(filter(None, map(_problem, wanted)), None)
    if problem or not wanted:
        raise BadInput(problem or "no symbols; expected at least one, e.g. BTCUSDT")
    return [tuple(f"{symbol.lower()}@{kind}" for kind in kinds) for symbol in wanted]


def spread(streams: Sequence[tuple[str, ...]], streams_max: int = STREAMS_MAX) -> list[tuple[str, ...]]:
    """Streams per connection: as few connections as the limit allows, equally full, all streams of a symbol on one."""
    symbols_max = streams_max // max(map(len, streams))
    connections = -(-len(streams) // symbols_max)
    cuts = [len(streams) * i // connections for i in range(connections + 1)]
    return [tuple(name for names in streams[start:end] for name in names) for start, end in pairwise(cuts)]


def symbol_of(stream: str) -> str:
    """The symbol of a stream name."""
    return stream.partition("@")[0].upper()


def _problem(symbol: str) -> str | None:
    if any(character in symbol for character in "@/!?&"):
        return f"{symbol!r} is a stream or a URL, expected a symbol such as BTCUSDT"
    return symbol_problem(symbol)
