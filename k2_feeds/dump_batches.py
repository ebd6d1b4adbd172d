"""Dumps in blocks: rows as the exchange writes them become columns, many at once.

A block with a line written any other way is read line by line by k2_feeds.binance_dump, and what that says stands. Both
say the same of every line: a property test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.contracts import TRADES
from k2_core.frames import Longs
from k2_core.identity import key_prefix
from k2_core.tables import CONDITIONS, VENDOR_DATA
from k2_feeds.batches import Batch, constant, decimals, times
from k2_feeds.binance_dump import US_PER, Dump, Unit, open_dump, outcome_of, refused
from k2_feeds.binance_frames import ASSET_CLASS, EXCHANGE, MICROSECONDS_FROM, TRADES_FEED, currency_of
from k2_feeds.lines import Block, blocks_of, line_of
from k2_feeds.outcomes import Outcome, Rejected, Unusable
from k2_feeds.scan import PAD_BYTES, Mask, Scan

_ID_DIGITS, _TIME_DIGITS = 18, 17
"""As many always fit int64; an id or a time with more is read alone."""
_STEP = 10**8
"""Scaled values in one: those of columns have 8 decimals."""
_NOTIONAL_MAX = 1e17
"""Below it a float tells the product of two columns to less than 2^62 of its last digit, and int64 the rest."""


def read_dumps(dumps: Iterable[Dump], now_us: Callable[[], int]) -> Iterator[Outcome | Batch]:
    """What the lines of each dump became, in the order given. now_us: the clock of receipt, µs UTC."""
    for dump in dumps:
        yield from read_dump(dump, now_us())


def read_dump(dump: Dump, received_us: int) -> Iterator[Outcome | Batch]:
    """What the lines of one dump became; a file that is refused as a whole is one damaged rejection."""
    try:
        with open_dump(dump) as (archive, unit):
            for block in blocks_of(str(dump.path), archive.pieces()):
                if isinstance(block, Rejected):
                    yield outcome_of(dump, block, unit, received_us)
                else:
                    yield from _parse(dump, block, unit, received_us)
    except Unusable as problem:
        yield refused(dump, problem)


def _parse(dump: Dump, block: Block, unit: Unit, received_us: int) -> Iterator[Outcome | Batch]:
    """What the lines of one block became; the first line of a file may be its header, and is read alone."""
    ends = block.content.find(b"\n") + 1 if block.number == 1 else 0
    first, rest = block.content[:ends], block.content[ends:]
    if first:
        yield _alone(dump, block.number, first, unit, received_us)
    if not rest:
        return
    batch = _columns(dump, rest, unit, received_us)
    if batch is not None:
        yield batch
        return
    for number, content in enumerate(rest.removesuffix(b"\n").split(b"\n"), start=block.number + bool(first)):
        yield _alone(dump, number, content, unit, received_us)


def _alone(dump: Dump, number: int, content: bytes, unit: Unit, received_us: int) -> Outcome:
    return outcome_of(dump, line_of(str(dump.path), number, content.removesuffix(b"\n")), unit, received_us)


def _columns(dump: Dump, content: bytes, unit: Unit, received_us: int) -> Batch | None:
    """All lines as columns; None when any is not as plain as the exchange writes them."""
    content = content if content.endswith(b"\n") else content + b"\n"
    data = np.frombuffer(content + bytes(PAD_BYTES), np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    scan = Scan(data, np.concatenate(([0], ends[:-1] + 1)))
    booleans = (b"True", b"False") if b"True" in content or b"False" in content else (b"true", b"false")
    trade_id, _ = scan.whole(_ID_DIGITS)
    amounts = []
    for _ in ("price", "qty", "quote_qty"):
        scan.literal(b",")
        amounts.append(scan.decimal())
    scan.literal(b",")
    time, _ = scan.whole(_TIME_DIGITS)
    scan.literal(b",")
    buyer_is_maker = scan.choice(*booleans)
    scan.literal(b",")
    scan.choice(*booleans)
    price, quantity, quote = amounts
    time_us = time * US_PER[unit]
    good = scan.plain & (scan.at == ends) & (price > 0) & (quantity > 0) & _is_due(dump, time, time_us, unit)
    if not (good & _agrees(price, quantity, quote)).all():
        return None
    rows = {"timestamp": times(time_us), "price": decimals(price), "quantity": decimals(quantity)}
    return _batch(dump, trade_id, buyer_is_maker, rows, received_us)


def _is_due(dump: Dump, time: Longs, time_us: Longs, unit: Unit) -> Mask:
    """Which times are of the unit of the file and of the dates in its name."""
    start, end = dump.bounds_us
    due: Mask = ((time >= MICROSECONDS_FROM) == (unit == "microseconds")) & (time_us >= start) & (time_us < end)
    return due


def _agrees(price: Longs, quantity: Longs, quote: Longs) -> Mask:
    """Where quote_qty is price times quantity to its last digit: exact, though the product does not fit int64.

    The difference of the two wraps to what it is wherever a float has found it to be small.
    """
    product = price.astype(np.float64) * quantity
    about = product - quote.astype(np.float64) * _STEP
    exact = price * quantity - quote * _STEP
    agrees: Mask = (product < _NOTIONAL_MAX * _STEP**2) & (np.abs(about) < 2.0**62) & (np.abs(exact) < _STEP)
    return agrees


def _batch(dump: Dump, trade_id: Longs, buyer_is_maker: Mask, rows: dict[str, pa.Array], received_us: int) -> Batch:
    """The feed columns of trades. rows: those that only their line says."""
    n, ids = len(trade_id), pa.array(trade_id).cast(pa.string())
    same = {
        "message_id": pc.binary_join_element_wise(key_prefix(EXCHANGE, dump.symbol, "trade"), ids, ""),
        "trade_id": pc.binary_join_element_wise(f"{EXCHANGE}-", ids, ""),
        "symbol": constant(dump.symbol, n),
        "exchange": constant(EXCHANGE, n),
        "asset_class": constant(ASSET_CLASS, n),
        "currency": constant(currency_of(dump.symbol), n),
        "side": pa.DictionaryArray.from_arrays(buyer_is_maker.astype(np.int32), pa.array(["BUY", "SELL"])),
        "trade_conditions": pa.ListArray.from_arrays(np.zeros(n + 1, np.int32), pa.array([], pa.string()), CONDITIONS),
        "source_sequence": pa.array(trade_id),
        "platform_sequence": pa.nulls(n, pa.int64()),
        "ingestion_timestamp": times(np.full(n, received_us)),
        "vendor_data": pa.nulls(n, VENDOR_DATA),
        "quality_flags": pa.array(np.zeros(n, np.int32)),
    }
    names = [column.name for column in TRADES.feed_columns]
    return Batch(TRADES_FEED, pa.RecordBatch.from_arrays([{**same, **rows}[name] for name in names], names))
