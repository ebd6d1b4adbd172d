"""The tables of bars, each stated once. Bars of every length have the same columns; two lengths are stored.

A row is a function of the trades below its C (`version`), the update rules (`conditions_version`), and nothing else:
a price lasts until the next print that updates it, five minutes at most, and never into another exchange date.
"""

from __future__ import annotations

import pyarrow as pa

from k2_core.tables import PRICE, TIMESTAMP, Column, Table

TOTAL = pa.decimal128(38, 8)
"""Sum of quantities."""
NOTIONAL = pa.decimal128(38, 16)
"""Sum of price x quantity, every digit kept: both factors have eight decimals."""
PRICE_TIME = pa.decimal128(38, 14)
"""Integral of a price over seconds, every digit kept: eight decimals of the price, six of the time."""
SHARE = pa.decimal128(9, 8)
"""0 to 1."""

_WINDOW = (
    Column("symbol", pa.string(), "Instrument as the exchange writes it."),
    Column("exchange", pa.string(), "Exchange, upper case: BINANCE, ASX."),
    Column("exchange_date", pa.date32(), "Exchange-local trading date; the table partition."),
    Column("window_start", TIMESTAMP, "First instant of the window: its label.", unit="µs UTC"),
    Column("window_end", TIMESTAMP, "First instant after it.", unit="µs UTC"),
)
_PRICES = (
    Column("open_price", PRICE, "First price that may open; null without one.", unit="currency", nullable=True),
    Column("high_price", PRICE, "Highest eligible price.", unit="currency", nullable=True),
    Column("low_price", PRICE, "Lowest eligible price.", unit="currency", nullable=True),
    Column("close_price", PRICE, "Last price that may close.", unit="currency", nullable=True),
    Column("open_timestamp", TIMESTAMP, "Event time of the print that opened.", unit="µs UTC", nullable=True),
    Column("open_message_id", pa.string(), "Key of that print.", nullable=True),
    Column("close_timestamp", TIMESTAMP, "Event time of the print that closed.", unit="µs UTC", nullable=True),
    Column("close_message_id", pa.string(), "Key of that print.", nullable=True),
)
_SUMS = (
    Column("volume", TOTAL, "Sum of the quantities that count as volume.", unit="units"),
    Column("trade_count", pa.int64(), "Prints that count."),
    Column("excluded_count", pa.int64(), "Prints that do not; both together are all prints of the window."),
    Column(
        "notional",
        NOTIONAL,
        "Sum of price x quantity over the prints of the average price; null where 38 digits do not hold it.",
        unit="currency",
        nullable=True,
    ),
    Column("priced_volume", TOTAL, "Sum of the quantities in notional.", unit="units"),
    Column(
        "vwap",
        PRICE,
        "notional / priced_volume, rounded half to even; null without either.",
        unit="currency",
        nullable=True,
    ),
    Column("price_time", PRICE_TIME, "Integral of the last eligible price over the covered time.", unit="currency·s"),
    Column("covered_us", pa.int64(), "Time of the window in which there is such a price.", unit="µs"),
    Column("twap", PRICE, "price_time / covered time, rounded half to even.", unit="currency", nullable=True),
    Column("twap_coverage", SHARE, "Covered time / length of the window, rounded half to even."),
)
_STANDING = (
    Column("gap_count", pa.int64(), "Holes in the ids of a contiguous feed that end here, whoever explained them."),
    Column("is_final", pa.bool_(), "Whether the exchange was heard past the window, or its date is long over."),
    Column("heard_until", TIMESTAMP, "Newest event time of the exchange on the date.", unit="µs UTC"),
    Column("version", pa.string(), "SHA-256 digest of C: trades below it, and no others, are in."),
    Column("sequence_number", pa.int64(), "Commit of market_data.trades at which C was read."),
    Column("commit_time", TIMESTAMP, "Its commit time.", unit="µs UTC"),
    Column("conditions_version", pa.string(), "SHA-256 digest of the exchange's update rules."),
)


def _bars(name: str, grain: str) -> Table:
    return Table(
        name=name,
        grain=grain,
        key=("exchange", "symbol", "window_start"),
        partition="exchange_date",
        sort=("symbol", "exchange", "window_start"),
        columns=(*_WINDOW, *_PRICES, *_SUMS, *_STANDING),
    )


BARS_1M = _bars("market_data.bars_1m", "one UTC minute of one symbol in which something printed")
BARS_1D = _bars("market_data.bars_1d", "one exchange-local date of one symbol on which something printed")
BARS = (BARS_1M, BARS_1D)
"""In the order in which they follow from each other."""
