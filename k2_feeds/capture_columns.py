"""Trades and book tickers of combined streams as the exchange writes them, many lines at once: bytes into columns.

A line written any other way, or whose values are not all what they must be, is left out: what it is, its parser says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.contracts import QUOTES, TRADES
from k2_core.frames import Bytes, Longs
from k2_core.identity import key_prefix
from k2_core.lockstep.columns import copied
from k2_core.lockstep.lanes import Block
from k2_core.quality import Flag
from k2_core.tables import CONDITIONS, VENDOR_DATA, Table
from k2_feeds import binance_frames as frames
from k2_feeds.batches import Batch, constant, decimals, times
from k2_feeds.scan import Mask, Scan, Texts, is_at

_PLAIN_SYMBOL = re.compile(rb"[A-Z0-9]+")
_RECEIVED_DIGITS = 19
"""Nanoseconds from 2001 to 2286."""
_ID_DIGITS = 18
"""Every id of so many digits fits int64; one digit more may not."""
_TIME_DIGITS = 17
"""The most a time of the exchange may have."""


@dataclass(frozen=True)
class _Lines:
    """Lines of one kind. number: which line of the block each is; ends: where they must end."""

    number: Longs
    ends: Longs
    received_us: Longs
    stream: Texts

    def some(self, index: Longs) -> _Lines:
        return _Lines(self.number[index], self.ends[index], self.received_us[index], self.stream.some(index))


@dataclass(frozen=True)
class _Side:
    """Price and size of one side of a quote, unscaled."""

    price: Longs
    size: Longs

    @property
    def is_whole(self) -> Mask:
        """Whether both are there, or neither is."""
        whole: Mask = (self.price > 0) == (self.size > 0)
        return whole


def plain_rows(data: Bytes, starts: Longs, ends: Longs) -> list[tuple[Longs, Batch]]:
    """Rows of the plain lines by feed, each with the number of its line. ends: without line ends."""
    scan = Scan(data, starts)
    received_us, digits = scan.digits(16)
    _, rest = scan.digits(_RECEIVED_DIGITS - 16)
    scan.literal(b' {"stream":"')
    stream = scan.until(b"@")
    plain, word = scan.plain & (digits + rest == _RECEIVED_DIGITS), scan.word()
    lines = _Lines(np.arange(len(starts)), ends, received_us, stream)
    found = []
    for name, read in ((b'@trade",', _trades), (b"@bookTic", _book_tickers)):
        index = np.flatnonzero(plain & is_at(word, name))
        if len(index):
            found.append(read(scan.some(index), lines.some(index)))
    return [(numbers, batch) for numbers, batch in found if len(batch)]


def _trades(scan: Scan, lines: _Lines) -> tuple[Longs, Batch]:
    scan.literal(b'@trade","data":{"e":"trade","E":')
    sent = _spelled(scan, _TIME_DIGITS)
    scan.literal(b',"s":"')
    symbol = scan.until(b'"')
    scan.literal(b'","t":')
    trade_id = _spelled(scan, _ID_DIGITS)
    scan.literal(b',"p":"')
    price = scan.decimal()
    scan.literal(b'","q":"')
    quantity = scan.decimal()
    scan.literal(b'","T":')
    time, _ = scan.whole(_TIME_DIGITS)
    scan.literal(b',"m":')
    buyer_is_maker = scan.choice(b"true", b"false")
    scan.literal(b',"M":')
    scan.choice(b"true", b"false")
    scan.literal(b"}}")
    good = scan.plain & (price > 0) & (quantity > 0) & (time > 0) & (sent.values > 0)
    rows = _Rows.of(scan, lines, symbol, good, trade_id)
    at, n = rows.index, len(rows.index)
    columns = {
        "timestamp": times(np.where(time < frames.MICROSECONDS_FROM, time * 1_000, time)[at]),
        "price": decimals(price[at]),
        "quantity": decimals(quantity[at]),
        "side": _one_of(("BUY", "SELL"), buyer_is_maker[at]),
        "trade_conditions": pa.ListArray.from_arrays(np.zeros(n + 1, np.int32), pa.array([], pa.string()), CONDITIONS),
        "vendor_data": _maps("E", _texts(scan.data, sent, at)),
        "quality_flags": pa.array(np.zeros(n, np.int32)),
    }
    return lines.number[at], Batch(frames.TRADES_FEED, rows.batch(TRADES, "trade", columns))


def _book_tickers(scan: Scan, lines: _Lines) -> tuple[Longs, Batch]:
    scan.literal(b'@bookTicker","data":{"u":')
    update_id = _spelled(scan, _ID_DIGITS)
    scan.literal(b',"s":"')
    symbol = scan.until(b'"')
    sides = []
    for before, between in ((b'","b":"', b'","B":"'), (b'","a":"', b'","A":"')):
        scan.literal(before)
        price = scan.decimal()
        scan.literal(between)
        sides.append(_Side(price, scan.decimal()))
    scan.literal(b'"}}')
    rows = _Rows.of(scan, lines, symbol, scan.plain & sides[0].is_whole & sides[1].is_whole, update_id)
    at, n = rows.index, len(rows.index)
    columns = {"timestamp": times(lines.received_us[at]), "vendor_data": pa.nulls(n, VENDOR_DATA)}
    columns["quality_flags"] = pa.array(np.full(n, int(Flag.RECEIVE_TIME_AS_EVENT_TIME), np.int32))
    for name, side in zip(("bid", "ask"), sides, strict=True):
        columns[f"{name}_price"] = decimals(side.price[at], side.price[at] > 0)
        columns[f"{name}_quantity"] = decimals(side.size[at], side.price[at] > 0)
    return lines.number[at], Batch(frames.QUOTES_FEED, rows.batch(QUOTES, "quote", columns))


@dataclass(frozen=True)
class _Spelled:
    """Integers and where their digits stand."""

    values: Longs
    starts: Longs
    lengths: Longs


def _spelled(scan: Scan, most: int) -> _Spelled:
    starts = scan.at
    values, lengths = scan.whole(most)
    return _Spelled(values, starts, lengths)


@dataclass(frozen=True)
class _Rows:
    """The lines that are plain to their end. index: their places among the lines; symbols: and which each row has."""

    data: Bytes
    index: Longs
    received_us: Longs
    ids: _Spelled
    symbols: tuple[str, ...]
    codes: Longs

    @classmethod
    def of(cls, scan: Scan, lines: _Lines, symbol: Texts, good: Mask, ids: _Spelled) -> _Rows:
        index = np.flatnonzero(good & (scan.at == lines.ends))
        words = np.stack(symbol.some(index).words, axis=1)
        coded = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(index), [None, pa.py_buffer(words)])
        coded = coded.dictionary_encode()
        names = [name.rstrip(b"\0") for name in coded.dictionary.to_pylist()]
        codes = coded.indices.to_numpy()
        plain = np.array([bool(_PLAIN_SYMBOL.fullmatch(name)) for name in names], np.bool_)
        kept = plain[codes] & lines.stream.some(index).is_lower_case_of(symbol.some(index))
        index, codes = index[kept], codes[kept]
        return cls(scan.data, index, lines.received_us[index], ids, tuple(n.decode("latin-1") for n in names), codes)

    def batch(self, table: Table, kind: str, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
        """All feed columns of a contract. columns: those that are not the same for every kind."""
        n, ids = len(self.index), _texts(self.data, self.ids, self.index)
        prefixes = self._by_symbol([key_prefix(frames.EXCHANGE, name, kind) for name in self.symbols])
        same = {
            "message_id": _joined(prefixes.dictionary_decode(), ids),
            f"{kind}_id": _joined(f"{frames.EXCHANGE}-", ids),
            "symbol": self._by_symbol(self.symbols),
            "exchange": constant(frames.EXCHANGE, n),
            "asset_class": constant(frames.ASSET_CLASS, n),
            "currency": self._by_symbol([frames.currency_of(name) for name in self.symbols]),
            "source_sequence": pa.array(self.ids.values[self.index]),
            "platform_sequence": pa.nulls(n, pa.int64()),
            "ingestion_timestamp": times(self.received_us),
        }
        names = [column.name for column in table.feed_columns]
        return pa.RecordBatch.from_arrays([{**same, **columns}[name] for name in names], names)

    def _by_symbol(self, texts: Sequence[str]) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(self.codes.astype(np.int32), pa.array(texts, pa.string()))


def _texts(data: Bytes, spelled: _Spelled, index: Longs) -> pa.Array:
    pieces = copied(spelled.starts[index], spelled.lengths[index], Block(data))
    return pa.Array.from_buffers(pa.string(), len(index), [None, *pieces])


def _joined(first: pa.Array | str, second: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(first, second, "")


def _one_of(words: tuple[str, str], is_second: Mask) -> pa.Array:
    return pa.DictionaryArray.from_arrays(is_second.astype(np.int32), pa.array(words, pa.string()))


def _maps(key: str, values: pa.Array) -> pa.Array:
    """A map of one entry in each row."""
    offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32))
    return pa.MapArray.from_arrays(offsets, pa.array([key] * len(values), pa.string()), values)
