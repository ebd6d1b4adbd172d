"""Capture lines of a market that never was, in the exact form of a Binance combined stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from heapq import merge
from random import Random

from k2_core.errors import BadInput
from k2_feeds.seeded import seeded

_EPOCH = date(1970, 1, 1)
_NUMBERED_FROM = date(2010, 1, 1)
"""Ids are counted from this day on, so that a day has the same ids whenever and with whatever it is simulated."""
_DAY_MS = 86_400_000
_MS_NS = 1_000_000
_BASES = (4_200, 31_250, 250_000, 5_800_000)
"""Prices a walk starts from, in cents: four magnitudes, as real pairs have."""
_LATENCY_NS = (3 * _MS_NS, 20 * _MS_NS)
"""Shortest way from exchange to capture, and what is added to it at most."""
_UPDATE_JUMP_MAX = 20
"""Book update ids rise by 1 to this much between two book tickers."""
_UPDATES_PER_TRADE = 2 * (_UPDATE_JUMP_MAX + 1)
_FAULT_WINDOW = 40
"""How many lines later a duplicate or a late trade comes at most."""


@dataclass(frozen=True)
class Faults:
    """Known faults put into the trades of the first pair on the first day.

    duplicates: trades that come twice. hole: consecutive trade ids that never come. out_of_order: late trades.
    """

    duplicates: int = 0
    hole: int = 0
    out_of_order: int = 0


@dataclass(frozen=True)
class Frame:
    """One captured frame. trade_id: None for a book ticker."""

    received_ns: int
    content: bytes
    trade_id: int | None

    @property
    def line(self) -> bytes:
        return b"%d %b\n" % (self.received_ns, self.content)


def crypto_days(start: date, days: int) -> list[date]:
    """Consecutive days: such a market never closes."""
    return [start + timedelta(days=i) for i in range(days)]


def capture(
    seed: int, pairs: Sequence[str], days: Sequence[date], trades_per_day: int, faults: Faults
) -> Iterator[Frame]:
    """All frames in the order of receipt. trades_per_day: of each pair, with twice as many book tickers."""
    for day in days:
        frames = [pair_day(seed, pair, day, trades_per_day) for pair in pairs]
        if day == days[0]:
            frames[0] = inject(frames[0], faults, seeded(seed, "faults"))
        yield from merge(*frames, key=lambda frame: frame.received_ns)


def pair_day(seed: int, pair: str, day: date, trades: int) -> list[Frame]:
    """One day of one pair: contiguous trade ids, rising update ids, each trade at the price of a side of the book."""
    rng = seeded(seed, pair, day)
    price = _BASES[int(seeded(seed, pair).random() * len(_BASES))]
    number = (day - _NUMBERED_FROM).days * trades
    update = number * _UPDATES_PER_TRADE
    midnight_ms, received_ns = (day - _EPOCH).days * _DAY_MS, 0
    frames: list[Frame] = []
    for i in range(trades):
        at_ms = midnight_ms + (2 * i + 1) * _DAY_MS // (2 * trades) + int(rng.random() * _DAY_MS / (4 * trades))
        price = max(2, price + int(rng.random() * 7) - 3)
        sells = rng.random() < 0.5
        trade_id, quantity = number + i + 1, 1 + int(rng.random() ** 4 * 200_000)
        traded = price if sells else price + 1
        trade = _trade(pair, trade_id, at_ms, price=traded, quantity=quantity, sells=sells)
        events: list[tuple[int | None, bytes]] = [(trade_id, trade)]
        for _ in range(2):
            update += 1 + int(rng.random() * _UPDATE_JUMP_MAX)
            events.append((None, _book_ticker(pair, update, price, rng)))
        for order, (frame_id, event) in enumerate(events):
            delay_ns = _LATENCY_NS[0] + order * _MS_NS + int(rng.random() * _LATENCY_NS[1])
            received_ns = max(received_ns + 1_000, at_ms * _MS_NS + delay_ns)
            frames.append(Frame(received_ns, event, frame_id))
    return frames


def inject(frames: list[Frame], faults: Faults, rng: Random) -> list[Frame]:
    """Put known faults into one pair's day. Raises BadInput when the day has too few trades for them."""
    trades = [i for i, frame in enumerate(frames) if frame.trade_id is not None]
    if 4 * (faults.duplicates + faults.hole + faults.out_of_order) > len(trades):
        raise BadInput(f"{faults} need four times as many trades a day; the day has {len(trades)}")
    middle = len(trades) // 2
    gone = set(trades[middle : middle + faults.hole])
    # the first trade of a day stays in place: one that came late would look like the end of another day
    rest = trades[1:middle] + trades[middle + faults.hole : -1]
    rng.shuffle(rest)
    again, late = set(rest[: faults.duplicates]), set(rest[faults.duplicates :][: faults.out_of_order])
    kept = [(i, frame) for i, frame in enumerate(frames) if i not in gone and i not in late]
    moved = [(_later(i, frames, rng), frames[i]) for i in sorted(again | late)]
    placed = sorted([*kept, *moved], key=lambda at_frame: at_frame[0])
    return [replace(frame, received_ns=frames[int(at)].received_ns) for at, frame in placed]


def _later(i: int, frames: Sequence[Frame], rng: Random) -> float:
    """A place between two lines further on, past the next trade."""
    return min(i + 4 + int(rng.random() * _FAULT_WINDOW), len(frames) - 1) + 0.5


def _trade(pair: str, trade_id: int, at_ms: int, *, price: int, quantity: int, sells: bool) -> bytes:
    return _frame(
        pair,
        "trade",
        {
            "e": "trade",
            "E": at_ms + trade_id % 2,
            "s": pair,
            "t": trade_id,
            "p": f"{price // 100}.{price % 100:02d}000000",
            "q": f"{quantity // 100_000}.{quantity % 100_000:05d}000",
            "T": at_ms,
            "m": sells,
            "M": True,
        },
    )


def _book_ticker(pair: str, update: int, bid: int, rng: Random) -> bytes:
    sizes = [1 + int(rng.random() * 900_000) for _ in range(2)]
    bid_size, ask_size = (f"{size // 100_000}.{size % 100_000:05d}000" for size in sizes)
    bid_price, ask_price = (f"{price // 100}.{price % 100:02d}000000" for price in (bid, bid + 1))
    event = {"u": update, "s": pair, "b": bid_price, "B": bid_size, "a": ask_price, "A": ask_size}
    return _frame(pair, "bookTicker", event)


def _frame(pair: str, stream: str, event: dict[str, object]) -> bytes:
    document = {"stream": f"{pair.lower()}@{stream}", "data": event}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
