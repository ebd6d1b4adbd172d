"""Records of the original platform's first schema (V1), and what they are in V2.

V1 knew one exchange, ASX, and its files' columns under other names. What became of each:

- volume -> quantity; bid_volume, ask_volume -> bid_quantity, ask_quantity; a pair of zeros is a side nobody is on
- exchange_timestamp, ingestion_timestamp: milliseconds -> microseconds
- qualifiers -> trade_conditions, as text; side is UNKNOWN, asset_class equities, currency that of the exchange
- company_id, venue, buyer_id -> vendor_data. On ASX a venue of X is the vendor's advice to leave the print out of the
  series (the files never named a venue), so it also sets that flag
- sequence_number -> platform_sequence

message_id: the natural key of a source without ids, on the local date of the exchange. V1 states no occurrence number;
sequence_number stands in for it, and 0 where there is none. So prints that are equal in every key field are told apart
by their sequence numbers alone: without any, the second one counts as a duplicate of the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.bodies import Bodies
from k2_core.contracts import CONDITIONS, PRICE, QUOTES, TRADES, VENDOR_DATA, Table
from k2_core.exchange_dates import PLAUSIBLE_US
from k2_core.identity import SEPARATOR
from k2_core.quality import Flag, Reason

NAMESPACE = "com.k2.market_data"
TIMEZONES = {"ASX": "Australia/Sydney"}
"""Where local dates of an exchange are not UTC dates."""
CURRENCIES = {"ASX": "AUD"}
NO_CURRENCY = "UNKNOWN"
"""V1 states no currency, and for an exchange it did not know nothing can be said."""
EXCLUDED_VENUE = ("ASX", "X")

_MARKS = {"company_id", "exchange_timestamp"}
_LIMIT = 10**18
"""decimal(18,8): the unscaled value has at most eighteen digits."""
_PRICE_SCALE = 6
_SECONDS = pa.decimal128(18, 6)
_QUARTER_HOUR_US = 15 * 60 * 1_000_000
"""Offsets change on a quarter of an hour, so one look per quarter is enough."""
_DAY_US = 86_400 * 1_000_000
_PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": _PRICE_SCALE}
_TIME = {"type": "long", "logicalType": "timestamp-millis"}
_BEGINNING = (
    {"name": "symbol", "type": "string"},
    {"name": "company_id", "type": "int"},
    {"name": "exchange", "type": "string", "default": "ASX"},
    {"name": "exchange_timestamp", "type": _TIME},
)
_MIDDLE: dict[str, tuple[dict[str, Any], ...]] = {
    TRADES.name: (
        {"name": "price", "type": _PRICE},
        {"name": "volume", "type": "long"},
        {"name": "qualifiers", "type": "int"},
        {"name": "venue", "type": "string"},
        {"name": "buyer_id", "type": ["null", "string"], "default": None},
    ),
    QUOTES.name: (
        {"name": "bid_price", "type": _PRICE},
        {"name": "bid_volume", "type": "long"},
        {"name": "ask_price", "type": _PRICE},
        {"name": "ask_volume", "type": "long"},
    ),
}
_END = (
    {"name": "ingestion_timestamp", "type": _TIME},
    {"name": "sequence_number", "type": ["null", "long"], "default": None},
)


def v1_schema(table: Table) -> dict[str, Any]:
    """The V1 record of trades or quotes. Raises KeyError for a table V1 did not have."""
    fields = [*_BEGINNING, *_MIDDLE[table.name], *_END]
    return {"type": "record", "name": table.record, "namespace": NAMESPACE, "fields": fields}


def is_v1(writer: Mapping[str, Any], table: Table) -> bool:
    """Whether a writer's schema is V1's record of this table, told by its name and fields, in any later shape of it."""
    if table.name not in _MIDDLE or not isinstance(writer.get("fields"), list):
        return False
    names = {field.get("name") for field in writer["fields"] if isinstance(field, Mapping)}
    is_named = str(writer.get("name", "")).rpartition(".")[2] == table.record
    return is_named and names >= _MARKS and "message_id" not in names


def lifted(v1: Bodies, table: Table) -> Bodies:
    """V1 rows as feed columns of the table; what does not fit them is dead. v1: rows in the columns of `v1_schema`."""
    rows, n = v1.rows, len(v1.rows)
    stated = _trades(rows) if table.name == TRADES.name else _quotes(rows)
    columns = {**_shared(rows), **stated.columns, **_keys(rows, table, stated.key_fields)}
    bad: dict[int, str] = {}
    for name, amount in stated.amounts.items():
        columns[name] = amount.array(name, bad)
    schema = table.arrow_schema(origins=("feed",))
    out = pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
    if not bad:
        return Bodies(out, v1.dead)
    places = np.delete(np.arange(n + len(v1.dead)), list(v1.dead))
    dead = {int(places[at]): (Reason.DECIMAL_OVERFLOW, detail) for at, detail in bad.items()}
    kept = np.delete(np.arange(n), list(bad))
    return Bodies(out.take(pa.array(kept)), dict(sorted({**v1.dead, **dead}.items())))


@dataclass(frozen=True)
class _Amount:
    """A price or size on its way to decimal(18,8). values: unscaled at `scale`; there: False where it is null."""

    values: npt.NDArray[np.int64]
    scale: int
    there: npt.NDArray[np.bool_] | None = None

    def array(self, name: str, bad: dict[int, str]) -> pa.Array:
        """The column; a value too large for it is 0 there, and said in bad."""
        times = 10 ** (PRICE.scale - self.scale)
        fits = np.abs(self.values) < _LIMIT // times
        fits &= self.values != np.iinfo(np.int64).min  # whose absolute value is itself
        for at in np.flatnonzero(~fits).tolist():
            value = Decimal(int(self.values[at])).scaleb(-self.scale)
            bad.setdefault(at, f"{name} {value} does not fit decimal(18,8)")
        return _decimals(np.where(fits, self.values, 0) * times, PRICE, self.there)


@dataclass(frozen=True)
class _Stated:
    """What only trades, or only quotes, state. key_fields: the texts that tell the rows of one second apart."""

    columns: dict[str, pa.Array]
    amounts: dict[str, _Amount]
    key_fields: list[pa.ChunkedArray]


def _trades(rows: pa.Table) -> _Stated:
    conditions = rows["qualifiers"].cast(pa.string())
    lists = pa.ListArray.from_arrays(pa.array(np.arange(len(rows) + 1), pa.int32()), _one(conditions))
    exchange, venue = EXCLUDED_VENUE
    is_excluded = pc.and_(pc.equal(rows["exchange"], exchange), pc.equal(rows["venue"], venue)).to_numpy()
    columns = {
        "side": pa.array(["UNKNOWN"] * len(rows), pa.string()),
        "trade_conditions": lists.cast(CONDITIONS),
        "vendor_data": _vendor_data(rows, ("company_id", "venue", "buyer_id")),
        "quality_flags": pa.array(np.where(is_excluded, int(Flag.VENDOR_EXCLUDED), 0), pa.int32()),
    }
    amounts = {
        "price": _Amount(_unscaled(rows["price"]), _PRICE_SCALE),
        "quantity": _Amount(rows["volume"].to_numpy(), 0),
    }
    return _Stated(columns, amounts, [_plain(rows["price"]), rows["volume"].cast(pa.string()), conditions])


def _quotes(rows: pa.Table) -> _Stated:
    amounts = {}
    for side in ("bid", "ask"):
        price, size = _unscaled(rows[f"{side}_price"]), rows[f"{side}_volume"].to_numpy()
        there = (price != 0) | (size != 0)
        amounts[f"{side}_price"] = _Amount(price, _PRICE_SCALE, there)
        amounts[f"{side}_quantity"] = _Amount(size, 0, there)
    columns = {
        "vendor_data": _vendor_data(rows, ("company_id",)),
        "quality_flags": pa.array(np.zeros(len(rows), np.int32)),
    }
    prices = [_plain(rows[name]) for name in ("bid_price", "ask_price")]
    return _Stated(columns, amounts, prices + [rows[n].cast(pa.string()) for n in ("bid_volume", "ask_volume")])


def _shared(rows: pa.Table) -> dict[str, pa.Array]:
    exchanges = rows["exchange"].to_pylist()
    return {
        "symbol": _one(rows["symbol"]),
        "exchange": _one(rows["exchange"]),
        "asset_class": pa.array(["equities"] * len(rows), pa.string()),
        "currency": pa.array([CURRENCIES.get(name, NO_CURRENCY) for name in exchanges], pa.string()),
        "timestamp": _one(rows["exchange_timestamp"]),
        "source_sequence": pa.nulls(len(rows), pa.int64()),
        "platform_sequence": _one(rows["sequence_number"]),
        "ingestion_timestamp": _one(rows["ingestion_timestamp"]),
    }


def _keys(rows: pa.Table, table: Table, key_fields: list[pa.ChunkedArray]) -> dict[str, pa.Array]:
    """message_id, and the id of the trade or quote: what `identity.counted_key` and `source_id` write."""
    kind = str(table.record).lower()
    days, seconds = _local(rows)
    occurrence = pc.fill_null(rows["sequence_number"], 0).cast(pa.string())
    tail = pc.binary_join_element_wise(kind, days, seconds, *key_fields, occurrence, SEPARATOR)
    return {
        "message_id": _one(pc.binary_join_element_wise(rows["exchange"], rows["symbol"], tail, SEPARATOR)),
        f"{kind}_id": _one(pc.binary_join_element_wise(rows["exchange"], tail, "-")),
    }


def _local(rows: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Local date and second of the day, as the parts of a key are written. What no calendar holds is clamped."""
    at = np.clip(_one(rows["exchange_timestamp"]).cast(pa.int64()).to_numpy(), PLAUSIBLE_US[0], PLAUSIBLE_US[1] - 1)
    local, exchanges = at.copy(), np.array(rows["exchange"].to_pylist(), object)
    for exchange in TIMEZONES.keys() & set(exchanges):
        mine = exchanges == exchange
        local[mine] += _offsets_us(at[mine], ZoneInfo(TIMEZONES[exchange]))
    days = pa.array((local // _DAY_US).astype(np.int32)).cast(pa.date32()).cast(pa.string())
    return pa.chunked_array([days]), _plain(pa.chunked_array([_decimals(local % _DAY_US, _SECONDS)]))


def _offsets_us(at: npt.NDArray[np.int64], zone: ZoneInfo) -> npt.NDArray[np.int64]:
    """How far local clocks are ahead of UTC at each instant."""
    quarters, which = np.unique(at // _QUARTER_HOUR_US, return_inverse=True)
    instants = (datetime.fromtimestamp(int(q) * _QUARTER_HOUR_US / 1_000_000, zone) for q in quarters)
    offsets = [int((instant.utcoffset() or timedelta()).total_seconds()) * 1_000_000 for instant in instants]
    return np.array(offsets, np.int64)[which]


def _vendor_data(rows: pa.Table, names: tuple[str, ...]) -> pa.Array:
    """The named columns of each row as a map; an absent one has no entry."""
    texts = [rows[name].cast(pa.string()).to_pylist() for name in names]
    maps = [[(n, v) for n, v in zip(names, row, strict=True) if v is not None] for row in zip(*texts, strict=True)]
    return pa.array(maps, VENDOR_DATA)


def _unscaled(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Unscaled values of decimals with at most 18 digits and no nulls."""
    array = _one(column)
    words = np.frombuffer(array.buffers()[1], np.int64)
    return words[2 * array.offset : 2 * (array.offset + len(array)) : 2].copy()


def _decimals(
    values: npt.NDArray[np.int64], type_: pa.DataType, there: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    words = np.stack([values, values >> 63], axis=1)
    valid = None if there is None else pa.py_buffer(np.packbits(there, bitorder="little"))
    return pa.Array.from_buffers(type_, len(values), [valid, pa.py_buffer(words)])


def _plain(decimals: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decimals of at most six digits after the point as `identity.canonical` writes them."""
    return pc.utf8_rtrim(pc.utf8_rtrim(decimals.cast(pa.string()), "0"), ".")


def _one(column: pa.ChunkedArray) -> pa.Array:
    """One array, whatever the chunks."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
